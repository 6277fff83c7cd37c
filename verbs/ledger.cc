// SPDX-License-Identifier: Apache-2.0
#include "verbs/ledger.h"

#include <algorithm>
#include <bit>

namespace verbena::verbs {
namespace {

constexpr uint32_t kNoPlace = 0xffffffff;

}  // namespace

uint32_t Ledger::Reserve(uint32_t wanted, uint64_t* first) {
  uint64_t head = head_.load(std::memory_order_relaxed);
  uint32_t got = 0;
  do {
    const uint64_t used = head - tail_.load(std::memory_order_acquire);
    // Below zero for a moment, if another thread's requests were posted and completed meanwhile.
    const uint64_t left = static_cast<int64_t>(used) < 0 ? limit_
                          : used >= limit_               ? 0
                                                         : limit_ - used;
    const auto most = static_cast<uint32_t>(std::min<uint64_t>(wanted, left));
    got = 0;
    while (got < most && MayFollow(head + got)) ++got;
    if (got == 0) return 0;
  } while (!head_.compare_exchange_weak(head, head + got, std::memory_order_acq_rel,
                                        std::memory_order_relaxed));
  *first = head;
  return got;
}

void Ledger::GiveBack(uint64_t first, uint32_t used, uint32_t reserved) {
  if (used == reserved) return;
  uint64_t end = first + reserved;
  if (head_.compare_exchange_strong(end, first + used, std::memory_order_acq_rel)) return;
  // Another thread has posted behind them: they stay as holes, which retire by themselves.
  for (uint64_t i = first + used; i < first + reserved; ++i) {
    at(i).unused = true;
    Posted(i);
  }
  odd_.fetch_or(kUnused, std::memory_order_seq_cst);
  SkipUnused();
}

void Ledger::Done(uint64_t name) {
  uint64_t done = done_.load(std::memory_order_relaxed);
  // Near the tail; the other mark may be far behind.
  const uint64_t tail = tail_.load(std::memory_order_relaxed);
  const uint64_t next = Widen(tail, static_cast<uint32_t>(name)) + 1;
  while (static_cast<int64_t>(next - done) > 0 &&
         !done_.compare_exchange_weak(done, next, std::memory_order_acq_rel,
                                      std::memory_order_relaxed)) {
  }
}

void Ledger::RetireOdd(uint64_t end) {
  const uint8_t odd = odd_.load(std::memory_order_relaxed);
  if ((odd & kUnused) != 0) SkipUnused();
  if ((odd & kPinned) != 0) ReleasePins(end);
}

void Ledger::Pin(uint64_t position, Children* a, Children* b) {
  a->Add();
  b->Add();
  const std::lock_guard lock(pins_mutex_);
  pins_.push_back({position, a, b});
  odd_.fetch_or(kPinned, std::memory_order_seq_cst);
}

void Ledger::Unpin(uint64_t position) {
  const std::lock_guard lock(pins_mutex_);
  std::erase_if(pins_, [position](const Pinned& pinned) {
    if (pinned.position != position) return false;
    pinned.a->Remove();
    pinned.b->Remove();
    return true;
  });
}

void Ledger::ReleasePins(uint64_t end) {
  const std::lock_guard lock(pins_mutex_);
  std::erase_if(pins_, [end](const Pinned& pinned) {
    if (pinned.position >= end) return false;
    pinned.a->Remove();
    pinned.b->Remove();
    return true;
  });
  if (pins_.empty()) odd_.fetch_and(static_cast<uint8_t>(~kPinned), std::memory_order_relaxed);
}

void Ledger::SkipUnused() {
  uint64_t tail = tail_.load(std::memory_order_acquire);
  while (tail != head_.load(std::memory_order_acquire) && at(tail).unused) {
    if (tail_.compare_exchange_strong(tail, tail + 1, std::memory_order_acq_rel)) ++tail;
  }
}

bool Ledger::Take(uint64_t* position) {
  uint64_t top = top_.load(std::memory_order_acquire);
  for (;;) {
    const uint32_t index = static_cast<uint32_t>(top);
    if (index == kNoPlace) return false;
    // The tag in the upper half changes with every pop, so a stale `next` never gets in.
    const uint64_t next = ((top >> 32) + 1) << 32 | at(index).next;
    if (top_.compare_exchange_weak(top, next, std::memory_order_acq_rel)) {
      *position = index;
      head_.fetch_add(1, std::memory_order_relaxed);
      return true;
    }
  }
}

void Ledger::Return(uint64_t position) {
  uint64_t top = top_.load(std::memory_order_relaxed);
  uint64_t next = 0;
  do {
    at(position).next = static_cast<uint32_t>(top);
    next = ((top >> 32) + 1) << 32 | static_cast<uint32_t>(position);
  } while (!top_.compare_exchange_weak(top, next, std::memory_order_acq_rel));
  tail_.fetch_add(1, std::memory_order_relaxed);
}

void Ledger::NextGeneration() {
  const uint64_t base = base_.load(std::memory_order_relaxed);
  const uint64_t generation = (base + Ledgers::kGeneration) & Ledgers::kGenerations;
  base_.store((base & ~Ledgers::kGenerations) | generation, std::memory_order_release);
}

void Ledger::Clear() {
  NextGeneration();
  tail_.store(head_.load(std::memory_order_acquire), std::memory_order_release);
  done_.store(tail_.load(std::memory_order_relaxed), std::memory_order_release);
  floor_.store(tail_.load(std::memory_order_relaxed), std::memory_order_release);
  failed_.store(false, std::memory_order_relaxed);
  blameless_.store(false, std::memory_order_relaxed);
  odd_.fetch_and(static_cast<uint8_t>(~kUnused), std::memory_order_relaxed);
  KeepFrom(~uint64_t{0});
  ReleasePins(~uint64_t{0});
}

Ledgers::~Ledgers() {
  for (std::atomic<Ledger*>& chunk : chunks_) delete[] chunk.load(std::memory_order_relaxed);
}

Ledger* Ledgers::Acquire(Ledger::Kind kind, uint32_t limit) {
  const std::lock_guard lock(mutex_);
  Ledger* ledger = nullptr;
  if (!free_.empty()) {
    ledger = free_.back();
    free_.pop_back();
  } else {
    if (made_ == chunks_.size() * kChunk) return nullptr;
    std::atomic<Ledger*>& chunk = chunks_[made_ / kChunk];
    if (made_ % kChunk == 0) chunk.store(new Ledger[kChunk], std::memory_order_release);
    ledger = &chunk.load(std::memory_order_relaxed)[made_ % kChunk];
    ledger->base_.store(made_ << kIndexShift, std::memory_order_relaxed);
    ++made_;
  }
  // Twice what may be outstanding: threads that post at once may be served in another order than
  // they took their places (MayFollow).
  const uint64_t size = std::bit_ceil(uint64_t{std::max(limit, 1u)} * 2);
  Ledger::Places* places = ledger->places_.load(std::memory_order_relaxed);
  if (places == nullptr || places->mask + 1 < size) {
    places_.push_back(std::make_unique<Ledger::Places>());
    places = places_.back().get();
    places->mask = size - 1;
    places->place = std::make_unique<Ledger::Place[]>(size);
    ledger->places_.store(places, std::memory_order_release);
  }
  const uint64_t mask = places->mask;
  for (uint64_t i = 0; i <= mask; ++i) {  // a round ago all were posted
    places->place[i].posted.store(static_cast<uint32_t>(i - mask - 1), std::memory_order_relaxed);
  }
  ledger->kind_ = kind;
  ledger->limit_ = limit;
  ledger->head_.store(0, std::memory_order_relaxed);
  ledger->tail_.store(0, std::memory_order_relaxed);
  ledger->done_.store(0, std::memory_order_relaxed);
  ledger->failed_.store(false, std::memory_order_relaxed);
  ledger->blameless_.store(false, std::memory_order_relaxed);
  ledger->odd_.store(0, std::memory_order_relaxed);
  ledger->KeepFrom(~uint64_t{0});
  ledger->floor_.store(0, std::memory_order_relaxed);
  if (kind == Ledger::Kind::kShared) {
    for (uint32_t i = 0; i < limit; ++i) places->place[i].next = i + 1 < limit ? i + 1 : kNoPlace;
    ledger->top_.store(limit > 0 ? 0 : kNoPlace, std::memory_order_release);
  }
  return ledger;
}

void Ledgers::Release(Ledger* ledger) {
  ledger->Clear();
  const std::lock_guard lock(mutex_);
  free_.insert(free_.begin(), ledger);  // the oldest is used again first: generations last longer
}

bool PostedBefore(const Ledgers& ledgers, uint64_t a, uint64_t b) {
  const uint64_t high = ~uint64_t{0xffffffff};
  if ((a & high) != (b & high)) return (a & high) < (b & high);
  const Ledger* ledger = ledgers.Find(a);
  if (ledger == nullptr || ledger->kind() == Ledger::Kind::kShared) return false;
  return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b)) < 0;
}

}  // namespace verbena::verbs
