// SPDX-License-Identifier: Apache-2.0
// A completion queue without its bells: a ring that many queue pairs fill and many threads empty.
// Push and Pop never block or allocate; a full ring is an error, never a loss in silence
// (IBTA 11.2.8: overflow puts the queue and its queue pairs into error).
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "fallback/engine/spin_lock.h"
#include "transport/counters.h"
#include "transport/options.h"
#include "transport/work_completion.h"

namespace verbena::engine {

// Told by Push, on the pushing thread, with no lock held.
class CompletionObserver {
 public:
  virtual ~CompletionObserver() = default;
  virtual void OnNotify() = 0;    // it was armed, and this completion counts
  virtual void OnPushed() = 0;    // somebody waits (Wait)
  virtual void OnOverflow() = 0;  // once
};

class CompletionRing {
 public:
  CompletionRing(uint32_t entries, CompletionObserver* observer);

  // `solicited`: a solicited receive; errors always count as such.
  // `retrieved`, if any, gets `position` when the completion is polled; it outlives the entry.
  void Push(const WorkCompletion& completion, bool solicited = false,
            std::atomic<uint64_t>* retrieved = nullptr, uint64_t position = 0);
  size_t Pop(std::span<WorkCompletion> out);
  bool empty() const { return count_.load(std::memory_order_acquire) == 0; }

  void Arm(Notify kind);
  bool armed() const;
  // Between the two, Push calls OnPushed. BeginWait: whether the ring is empty now.
  bool BeginWait();
  void EndWait();

  bool Resize(uint32_t entries);  // false: more than that wait in it
  uint32_t entries() const;
  bool overflowed() const { return overflowed_.load(std::memory_order_acquire); }
  // Drops what queue pair `number` left, so that a later one of that number is not confused.
  void Forget(uint32_t number);
  CqCounters counters() const;

 private:
  enum class Armed : uint8_t { kNo, kSolicited, kAny };

  mutable SpinLock lock_;
  CompletionObserver* const observer_;
  struct Entry {
    WorkCompletion completion;
    std::atomic<uint64_t>* retrieved = nullptr;
    uint64_t position = 0;
  };
  std::unique_ptr<Entry[]> ring_;
  uint32_t capacity_;
  uint32_t head_ = 0;
  std::atomic<uint32_t> count_{0};
  Armed armed_ = Armed::kNo;
  uint32_t waiters_ = 0;
  std::atomic<bool> overflowed_{false};
  CqCounters counters_;
};

}  // namespace verbena::engine
