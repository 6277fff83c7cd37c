// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/completion_ring.h"

#include <mutex>

namespace verbena::engine {

CompletionRing::CompletionRing(uint32_t entries, CompletionObserver* observer)
    : observer_(observer), ring_(new Entry[entries]), capacity_(entries) {}

void CompletionRing::Push(const WorkCompletion& completion, bool solicited,
                          std::atomic<uint64_t>* retrieved, uint64_t position) {
  bool notify = false, waited = false, overflow = false;
  {
    std::lock_guard lock(lock_);
    const uint32_t count = count_.load(std::memory_order_relaxed);
    if (count == capacity_) {
      ++counters_.overflows;
      overflow = !overflowed_.exchange(true, std::memory_order_acq_rel);
    } else {
      uint32_t at = head_ + count;
      if (at >= capacity_) at -= capacity_;
      ring_[at] = {completion, retrieved, position};
      count_.store(count + 1, std::memory_order_release);
      ++counters_.completions;
    }
    if (armed_ == Armed::kAny || (armed_ == Armed::kSolicited && (solicited || !completion.ok()))) {
      armed_ = Armed::kNo;
      ++counters_.notifications;
      notify = true;
    }
    waited = waiters_ > 0;
  }
  if (notify || waited || overflow) [[unlikely]] {
    if (notify) observer_->OnNotify();
    if (waited) observer_->OnPushed();
    if (overflow) observer_->OnOverflow();
  }
}

size_t CompletionRing::Pop(std::span<WorkCompletion> out) {
  if (empty()) return 0;
  std::lock_guard lock(lock_);
  const uint32_t count = count_.load(std::memory_order_relaxed);
  const uint32_t n = count < out.size() ? count : static_cast<uint32_t>(out.size());
  for (uint32_t i = 0; i < n; ++i) {
    const Entry& e = ring_[head_];
    out[i] = e.completion;
    if (e.retrieved != nullptr) e.retrieved->store(e.position, std::memory_order_release);
    if (++head_ == capacity_) head_ = 0;
  }
  count_.store(count - n, std::memory_order_release);
  return n;
}

void CompletionRing::Arm(Notify kind) {
  std::lock_guard lock(lock_);
  // Arming for solicited ones does not narrow a wider arming (ibv_req_notify_cq(3)).
  if (kind == Notify::kAny) {
    armed_ = Armed::kAny;
  } else if (armed_ == Armed::kNo) {
    armed_ = Armed::kSolicited;
  }
}

bool CompletionRing::armed() const {
  std::lock_guard lock(lock_);
  return armed_ != Armed::kNo;
}

bool CompletionRing::BeginWait() {
  std::lock_guard lock(lock_);
  ++waiters_;
  return count_.load(std::memory_order_relaxed) == 0;
}

void CompletionRing::EndWait() {
  std::lock_guard lock(lock_);
  --waiters_;
}

bool CompletionRing::Resize(uint32_t entries) {
  auto fresh = std::make_unique<Entry[]>(entries);
  std::lock_guard lock(lock_);
  const uint32_t count = count_.load(std::memory_order_relaxed);
  if (count > entries) return false;
  for (uint32_t i = 0; i < count; ++i) fresh[i] = ring_[(head_ + i) % capacity_];
  ring_.swap(fresh);
  head_ = 0;
  capacity_ = entries;
  return true;
}

uint32_t CompletionRing::entries() const {
  std::lock_guard lock(lock_);
  return capacity_;
}

void CompletionRing::Forget(uint32_t number) {
  std::lock_guard lock(lock_);
  const uint32_t count = count_.load(std::memory_order_relaxed);
  uint32_t kept = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const Entry& e = ring_[(head_ + i) % capacity_];
    if (e.completion.qp_number != number) ring_[(head_ + kept++) % capacity_] = e;
  }
  count_.store(kept, std::memory_order_release);
}

CqCounters CompletionRing::counters() const {
  std::lock_guard lock(lock_);
  return counters_;
}

}  // namespace verbena::engine
