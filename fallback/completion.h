// SPDX-License-Identifier: Apache-2.0
// Completion queues and channels of the fallback. A queue knows its *hot* queue pairs: those whose
// sockets nobody but its pollers looks after (docs/architecture.md, threads).
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "fallback/device.h"
#include "fallback/engine/completion_ring.h"
#include "fallback/engine/spin_lock.h"
#include "transport/provider.h"

namespace verbena::fallback {

class CompletionQueue;
class QueuePair;

class CompletionChannel final : public provider::CompletionChannel {
 public:
  static absl::StatusOr<std::unique_ptr<provider::CompletionChannel>> Create(Device* device);
  CompletionChannel(Device* device, int fd);
  ~CompletionChannel() override;

  absl::Status Close() override { return children_.CheckNone("completion channel"); }
  int fd() const override { return fd_; }
  bool TryNext(CqEvent* event) override;

  Device* device() const { return device_; }
  void Join(CompletionQueue* cq);
  void Leave(CompletionQueue* cq);
  void Signal(CompletionQueue* cq);

 private:
  Device* const device_;
  const int fd_;  // eventfd: readable while an event waits
  Children children_;
  std::mutex mutex_;
  std::vector<CompletionQueue*> queues_;
  int waiting_ = 0;
};

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

  void Join(QueuePair* qp);
  void Leave(QueuePair* qp);
  void AddHot(QueuePair* qp);
  void RemoveHot(QueuePair* qp);
  // Whether somebody polls it now, so that hot queue pairs would be served.
  bool polled(Nanos now) const {
    return now - last_poll_.load(std::memory_order_relaxed) < kPolledFor && !ring_.armed();
  }
  // A post may wait a little for the poll that is about to come.
  bool polled_just_now(Nanos now) const {
    return now - last_poll_.load(std::memory_order_relaxed) < kCoalesceFor;
  }

 private:
  static constexpr Nanos kPolledFor = 1'000'000;
  static constexpr Nanos kCoalesceFor = 20'000;
  friend class CompletionChannel;

  void OnNotify() override;
  void OnPushed() override { device_->hub().world().Changed(); }
  void OnOverflow() override;
  void DriveHot();
  void HandOver();  // hot queue pairs go to the service

  Device* const device_;
  void* const context_;
  CompletionChannel* const channel_;
  engine::CompletionRing ring_;
  Children children_;
  std::atomic<Nanos> last_poll_{INT64_MIN / 2};
  std::atomic<uint64_t> polls_{0};
  std::atomic<uint64_t> empty_polls_{0};
  engine::SpinLock hot_lock_;
  std::vector<QueuePair*> hot_;
  std::atomic<size_t> hot_count_{0};
  std::mutex mutex_;
  absl::flat_hash_set<QueuePair*> queue_pairs_;
  int unread_ = 0;  // events on the channel; the channel's mutex
};

}  // namespace verbena::fallback
