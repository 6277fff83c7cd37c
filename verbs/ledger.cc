// SPDX-License-Identifier: Apache-2.0
#include "verbs/ledger.h"

#include <algorithm>
#include <bit>

namespace verbena::verbs {
void Ledger::Place::FailAs(WcStatus status) {
  Facts now = known();
  now.fails_as = status;
  now.state |= kOdd;
  Know(now);
}

uint64_t Ledger::completed() const {
  const uint64_t done = done_.load(std::memory_order_acquire);
  if (kind_ == Kind::kShared) return done;
  const uint64_t tail = Free(end_.load(std::memory_order_acquire) - reach_);
  return PositionOf(Before(tail, done) ? done : tail);
}

uint32_t Ledger::Reserve(uint32_t wanted, uint64_t* first) {
  uint64_t head = head_.load(std::memory_order_relaxed);
  uint32_t got = 0;
  do {
    uint64_t end = end_.load(std::memory_order_acquire);
    if (Before(end, head + wanted * kStep)) end = FreePlaces();
    if (!Before(head, end)) return 0;
    got = static_cast<uint32_t>(std::min<uint64_t>(wanted, (end - head) / kStep));
  } while (!head_.compare_exchange_weak(head, head + got * kStep, std::memory_order_acq_rel,
                                        std::memory_order_relaxed));
  *first = PositionOf(head);
  return got;
}

bool Ledger::GiveBackSome(uint64_t first, uint32_t used, uint32_t reserved) {
  uint64_t end = Name(first + reserved);
  if (head_.compare_exchange_strong(end, Name(first + used), std::memory_order_acq_rel)) {
    return true;
  }
  for (uint64_t i = first + used; i < first + reserved; ++i) {
    at(i).posted.store(Marked(Name(i), kUnused), std::memory_order_release);
  }
  // What was done right before them goes on to what comes behind them (Done).
  uint64_t done = Name(first + used);
  (void)done_.compare_exchange_strong(done, Name(first + reserved), std::memory_order_acq_rel);
  return false;
}

uint32_t Ledger::Ahead(Place** first) {
  const uint64_t head = head_.load(std::memory_order_relaxed);
  uint64_t end = end_.load(std::memory_order_acquire);
  if (!Before(head, end)) end = FreePlaces();
  *first = &Of(head);
  const auto in_memory = static_cast<uint64_t>(places_.get() + size() - *first);
  return Before(head, end) ? static_cast<uint32_t>(std::min((end - head) / kStep, in_memory)) : 0;
}

uint64_t Ledger::Free(uint64_t tail) const {
  const uint64_t head = head_.load(std::memory_order_acquire);
  const uint64_t passed = passed_.load(std::memory_order_acquire);
  for (; Before(tail, head); tail += kStep) {
    const Place& place = Of(tail);
    const uint64_t posted = place.posted.load(std::memory_order_acquire);
    if (posted == Marked(tail, kUnused)) continue;
    if (posted != tail && posted != Marked(tail, kOther)) break;
    if (!Before(tail, passed)) break;
    if (!place.known().quiet && place.delivered.load(std::memory_order_acquire) != Low(tail)) break;
  }
  return tail;
}

uint64_t Ledger::FreePlaces() {
  uint64_t end = end_.load(std::memory_order_acquire);
  for (;;) {
    const uint64_t next = Free(end - reach_) + reach_;
    if (next == end) return end;
    if (end_.compare_exchange_strong(end, next, std::memory_order_acq_rel)) return next;
  }
}

// Whoever finds it raised sees what was done before that.
void Ledger::Raise(std::atomic<uint64_t>* to, uint64_t value) {
  uint64_t now = to->load(std::memory_order_acquire);
  while (Before(now, value) && !to->compare_exchange_weak(now, value, std::memory_order_acq_rel,
                                                          std::memory_order_acquire)) {
  }
}

void Ledger::Done(uint64_t name) {
  uint64_t next = name + kStep;
  while (Of(next).posted.load(std::memory_order_acquire) == Marked(next, kUnused)) next += kStep;
  Raise(&done_, next);
}

// What Free would find, if none is odd and the posters of all are through. Its loop is the cost of
// an unsignalled request.
bool Ledger::RetireBehindQuiet(uint64_t name) {
  uint64_t end = end_.load(std::memory_order_acquire);
  uint64_t at = end - reach_;
  if (Before(name, at) || Of(name).posted.load(std::memory_order_acquire) != name) return false;
  for (; at != name; at += kStep) {
    const Place& place = Of(at);
    if (place.posted.load(std::memory_order_acquire) != at || !place.known().quiet) return false;
  }
  return end_.compare_exchange_strong(end, name + kStep + reach_, std::memory_order_acq_rel);
}

void Ledger::Retire(uint64_t name) {
  if (kind_ == Kind::kShared) return Return(PositionOf(name));
  if (RetireBehindQuiet(name)) return;
  Place& place = Of(name);
  const uint64_t tail = end_.load(std::memory_order_relaxed) - reach_;
  if (!Before(name, tail) && !place.known().quiet) {
    place.delivered.store(Low(name), std::memory_order_release);
  }
  Raise(&passed_, name + kStep);
  FreePlaces();
  if (pinned_.load(std::memory_order_relaxed)) ReleasePins(PositionOf(name) + 1);
}

void Ledger::Pin(uint64_t position, Children* a, Children* b) {
  a->Add();
  b->Add();
  const std::lock_guard lock(pins_mutex_);
  pins_.push_back({position, a, b});
  pinned_.store(true, std::memory_order_relaxed);
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
  if (pins_.empty()) pinned_.store(false, std::memory_order_relaxed);
}

void Ledger::Return(uint64_t position) {
  uint64_t top = top_.load(std::memory_order_relaxed);
  uint64_t next = 0;
  do {
    at(position).key_or_next = static_cast<uint32_t>(top);
    next = ((top >> 32) + 1) << 32 | static_cast<uint32_t>(position);
  } while (!top_.compare_exchange_weak(top, next, std::memory_order_acq_rel));
  done_.fetch_add(1, std::memory_order_relaxed);
}

void Ledger::Clear() {
  for (uint64_t i = 0; i < size(); ++i) places_[i].posted.fetch_or(kUnused);
  if (kind_ != Kind::kShared) {
    const uint64_t head = head_.load(std::memory_order_acquire);
    floor_.store(head, std::memory_order_release);
    passed_.store(head, std::memory_order_release);
    done_.store(head, std::memory_order_release);
    end_.store(head + reach_, std::memory_order_release);
  }
  failed_.store(false, std::memory_order_relaxed);
  blameless_.store(false, std::memory_order_relaxed);
  KeepFrom(~uint64_t{0});
  ReleasePins(~uint64_t{0});
}

Ledgers::Ledgers() { SetPlaces(&nobody_, 1); }

Ledgers::~Ledgers() {
  for (std::atomic<Ledger*>& chunk : chunks_) delete[] chunk.load(std::memory_order_relaxed);
}

void Ledgers::SetPlaces(Ledger* ledger, uint64_t size) {
  ledger->places_ = std::make_unique<Ledger::Place[]>(size);
  ledger->offsets_ = (size - 1) << Ledger::kPlaceBits;
  ledger->start_ = size;
}

Ledger* Ledgers::Acquire(Ledger::Kind kind, uint32_t limit) {
  const std::lock_guard lock(mutex_);
  // Twice what may be outstanding: threads that post at once may be served in another order than
  // they took their places (Ledger::Free).
  const uint64_t size = std::bit_ceil(uint64_t{std::max(limit, 1u)} * 2);
  std::vector<Ledger*>& free = free_[static_cast<size_t>(std::countr_zero(size))];
  Ledger* ledger = nullptr;
  if (!free.empty()) {
    ledger = free.back();
    free.pop_back();
  } else {
    if (made_ == Ledger::kOther) return nullptr;
    std::atomic<Ledger*>& chunk = chunks_[made_ / kChunk];
    if (made_ % kChunk == 0) chunk.store(new Ledger[kChunk], std::memory_order_release);
    ledger = &chunk.load(std::memory_order_relaxed)[made_ % kChunk];
    ledger->index_ = made_++;
    SetPlaces(ledger, size);
  }
  const bool shared = kind == Ledger::Kind::kShared;
  ledger->kind_ = kind;
  ledger->limit_ = limit;
  ledger->reach_ = limit * Ledger::kStep;
  const uint64_t first = ledger->Name(0);
  for (uint64_t i = 0; i < size; ++i) {
    Ledger::Place& place = ledger->at(i);
    const uint64_t a_round_ago = ledger->Name(i - size);
    place.posted.store(shared ? ledger->Name(i) : Ledger::Marked(a_round_ago, Ledger::kUnused),
                       std::memory_order_relaxed);
    place.delivered.store(Ledger::Low(a_round_ago), std::memory_order_relaxed);
    place.key_or_next = i + 1 < limit ? static_cast<uint32_t>(i) + 1 : Ledger::kNoPlace;
  }
  ledger->head_.store(shared ? 0 : first, std::memory_order_relaxed);
  ledger->passed_.store(first, std::memory_order_relaxed);
  ledger->done_.store(shared ? 0 : first, std::memory_order_relaxed);
  // No name of a shared queue comes to the end: they are not in order.
  ledger->end_.store(shared ? Ledger::kUnused : first + ledger->reach_, std::memory_order_relaxed);
  ledger->top_.store(limit > 0 ? 0 : Ledger::kNoPlace, std::memory_order_relaxed);
  ledger->failed_.store(false, std::memory_order_relaxed);
  ledger->blameless_.store(false, std::memory_order_relaxed);
  ledger->KeepFrom(~uint64_t{0});
  ledger->floor_.store(first, std::memory_order_release);
  return ledger;
}

void Ledgers::Release(Ledger* ledger) {
  ledger->Clear();
  const std::lock_guard lock(mutex_);
  // Positions go on behind those that were used.
  const uint64_t size = ledger->size();
  const uint64_t used = ledger->kind_ == Ledger::Kind::kShared ? 0 : ledger->posted();
  ledger->start_ += (used / size + 1) * size;
  ledger->floor_.store(ledger->Name(0), std::memory_order_release);
  free_[static_cast<size_t>(std::countr_zero(size))].push_back(ledger);
}

bool PostedBefore(const Ledgers& ledgers, uint64_t a, uint64_t b) {
  const Ledger* ledger = ledgers.Find(a);
  const Ledger* other = ledgers.Find(b);
  if (ledger != other) return ledger < other;
  if (ledger == nullptr || ledger->kind() == Ledger::Kind::kShared) return false;
  return ledger->PositionOf(a) < ledger->PositionOf(b);
}

}  // namespace verbena::verbs
