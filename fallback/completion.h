// SPDX-License-Identifier: Apache-2.0
// Completion queues of the fallback. A queue knows its *hot* queue pairs, whose sockets nobody but
// its pollers looks after, and the wait sets of those that threads sleep on (docs/architecture.md,
// threads).
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "fallback/device.h"
#include "fallback/engine/completion_ring.h"
#include "fallback/engine/spin_lock.h"
#include "fallback/wait_set.h"
#include "transport/provider.h"

namespace verbena::fallback {

class CompletionChannel;
class Driven;

class CompletionQueue final : public provider::CompletionQueue, engine::CompletionObserver {
 public:
  static absl::StatusOr<std::unique_ptr<provider::CompletionQueue>> Create(
      Device* device, const CqOptions& options);
  CompletionQueue(Device* device, const CqOptions& options, CompletionChannel* channel);
  ~CompletionQueue() override;

  absl::Status Close() override;
  size_t Poll(std::span<WorkCompletion> out) override;
  absl::Status RequestNotify(Notify kind) override;
  absl::Status Resize(uint32_t entries) override;
  uint32_t entries() const override { return ring_.entries(); }
  CqCounters counters() const override;
  bool Await(absl::Duration timeout) override;

  engine::CompletionRing& ring() { return ring_; }
  Device* device() const { return device_; }
  void* context() const { return context_; }

  void Join(Driven* qp);
  void Leave(Driven* qp);
  void AddHot(Driven* qp);
  void RemoveHot(Driven* qp);
  // Streams of its queue pairs, and how many of them are in `set`.
  void StreamBegins() { streams_.fetch_add(1, std::memory_order_relaxed); }
  void StreamEnds() { streams_.fetch_sub(1, std::memory_order_relaxed); }
  void Entered(WaitSet* set);
  void Left(WaitSet* set);
  bool armed() const { return ring_.armed(); }
  // Whether somebody polls it now, so that hot queue pairs would be served.
  bool polled(Nanos now, Nanos within = kPolledFor) const {
    return now - last_poll_.load(std::memory_order_relaxed) < within && !ring_.armed();
  }
  // Each poll that finds nothing receives for all hot queue pairs, which a few do not make slow.
  bool has_many_hot() const { return hot_count_.load(std::memory_order_relaxed) > kFewHot; }
  // A post may wait a little for the poll that is about to come.
  bool polled_just_now(Nanos now) const {
    return now - last_poll_.load(std::memory_order_relaxed) < kCoalesceFor;
  }

 private:
  static constexpr size_t kFewHot = 16;
  static constexpr Nanos kPolledFor = 1'000'000;
  static constexpr Nanos kCoalesceFor = 20'000;
  static constexpr uint32_t kFewPolls = 4;  // an event loop makes no more between two armings
  friend class CompletionChannel;

  void OnNotify() override;
  void OnPushed() override;
  void OnOverflow() override;
  void DriveHot(Nanos now);
  void ForEachSet(absl::FunctionRef<void(WaitSet&)> f);  // those that its queue pairs are in
  void HandOver();                                       // hot queue pairs go to the service
  void MoveInto(WaitSet* set);                           // all its queue pairs
  bool AllIn(const WaitSet* set);
  WaitSet* OwnSet();  // null: there cannot be one
  bool Sleep(WaitSet* set, Nanos deadline);

  Device* const device_;
  void* const context_;
  CompletionChannel* const channel_;
  engine::CompletionRing ring_;
  Children children_;
  std::atomic<Nanos> last_poll_{INT64_MIN / 2};
  std::atomic<uint64_t> polls_{0};
  std::atomic<uint64_t> empty_polls_{0};
  engine::SpinLock hot_lock_;
  std::vector<Driven*> hot_;
  std::atomic<size_t> hot_count_{0};
  std::atomic<Nanos> rests_until_{0};  // none of them has anything to do before
  struct Membership {
    WaitSet* set;
    size_t count;
  };
  std::vector<Membership> sets_;  // guarded by hot_lock_
  std::atomic<size_t> set_count_{0};
  std::atomic<size_t> streams_{0};
  std::atomic<uint32_t> idle_polls_{0};  // in a row, since it was armed or waited on
  std::mutex mutex_;
  absl::flat_hash_set<Driven*> queue_pairs_;
  std::unique_ptr<WaitSet> own_set_;  // for Await; made by the first
  std::atomic<WaitSet*> own_{nullptr};
  std::atomic<int> sleepers_{0};  // in Await; a push by others rings for them
  int unread_ = 0;                // events on the channel; the channel's mutex
};

}  // namespace verbena::fallback
