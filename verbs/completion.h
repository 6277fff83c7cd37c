// SPDX-License-Identifier: Apache-2.0
// Completion queues and channels of a device.
//
// Each queue has a completion channel of the kernel to itself, so that a thread may wait for one
// queue whether or not the application watches it. The application's channel is an epoll descriptor
// over those of its queues: no thread of ours stands between the device and its epoll.
//
// Completions may be taken from the device before anybody polls, by those who wait or ask what is
// outstanding; such a queue keeps them in the stash, and Poll delivers that first. Locks of the
// slow path: CompletionChannel, then CompletionQueue, then the service's.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "transport/provider.h"
#include "verbs/device.h"

namespace verbena::verbs {

class CompletionQueue;
class QueuePair;

class CompletionChannel final : public provider::CompletionChannel {
 public:
  static absl::StatusOr<std::unique_ptr<provider::CompletionChannel>> Create(Device* device);
  CompletionChannel(Device* device, int epoll, int wake);
  ~CompletionChannel() override;

  absl::Status Close() override { return children_.CheckNone("completion channel"); }
  int fd() const override { return epoll_; }
  bool TryNext(CqEvent* event) override;
  bool Await(absl::Duration timeout) override;
  ChannelCounters counters() const override;

  Device* device() const { return device_; }
  void Join(CompletionQueue* cq);
  void Leave(CompletionQueue* cq);
  void Mute(CompletionQueue* cq);  // it has no more events
  // Events of `cq` that were taken from its own channel by somebody else.
  void Add(CompletionQueue* cq, int events);

 private:
  Device* const device_;
  const int epoll_;  // over the queues' channels and wake_
  const int wake_;   // eventfd: readable while waiting_ has events
  Children children_;
  mutable std::mutex mutex_;
  std::deque<CompletionQueue*> waiting_;
  uint64_t taken_ = 0;
};

class CompletionQueue : public provider::CompletionQueue {
 public:
  static constexpr size_t kPollBatch = 32;  // that one call of the driver is asked for

  static absl::StatusOr<std::unique_ptr<provider::CompletionQueue>> Create(
      Device* device, const CqOptions& options);
  CompletionQueue(Device* device, const CqOptions& options, CompletionChannel* channel,
                  ibv_comp_channel* events);
  ~CompletionQueue() override;

  absl::Status Close() override;
  size_t Poll(std::span<WorkCompletion> out) override;
  absl::Status RequestNotify(Notify kind) override;
  absl::Status Resize(uint32_t entries) override;
  uint32_t entries() const override { return static_cast<uint32_t>(cq_->cqe); }
  CqCounters counters() const override;
  bool Await(absl::Duration timeout) override;

  ibv_cq* cq() const { return cq_; }
  Device* device() const { return device_; }
  void* context() const { return context_; }
  int event_fd() const { return events_->fd; }
  Children& children() { return children_; }  // queue pairs

  // Takes what the device has into the stash. True: the stash has something.
  bool Pull();
  // The same on the service thread, with its mutex held. False: another thread is at it.
  bool TryPull();
  // The next completion shall wake those who wait, if that hurts no arming of the application's.
  void ArmForWaiters();
  // Takes the kernel's events; how many of them the application had asked for.
  int TakeEvents();
  // A queue pair is gone or reset: its completions in the stash are void.
  void DropVoid();
  // The same for what it took from a shared receive queue, whose places are free by then.
  void DropShared(uint32_t qp_number);

  // A queue pair in ERR has requests that the device will not flush: whoever looks next does.
  void FlushSoon() { beside_.fetch_or(kLost, std::memory_order_release); }
  // Requests wait for a place at their queue pair: every poll looks whether there is one.
  void LookForRoom() { beside_.fetch_or(kWaiting, std::memory_order_release); }
  // The same, and wakes those who wait for a completion.
  void FlushNow();
  // From QueuePair::OnPoll, which this queue calls.
  void StashOne(uint64_t name, const WorkCompletion& completion);

  // With the service's mutex held.
  void Join(QueuePair* qp);
  void Leave(QueuePair* qp);
  void OnOverflow();
  // It gives no completions any more, so its queue pairs end; told once.
  void Broken(const absl::Status& why);

 private:
  friend class IwarpCompletionQueue;
  struct Stashed {
    uint64_t name;
    WorkCompletion completion;
  };

  static constexpr uint64_t kNobody = ~uint64_t{0};  // no ledger's name

  // What a poll gets from the driver, and what it needs after that.
  struct Polling {
    ibv_wc wc[kPollBatch];
    CompletionQueue* self;
    std::span<WorkCompletion> out;
  };

  enum class For : uint8_t { kDelivery, kStash };

  // hot_polls.cc
  // A name has its ledger in the lower bits; those of a queue pair's two queues are neighbours.
  std::atomic<Ledger*>& Latest(uint64_t name) { return latest_[name % latest_.size()]; }
  static bool Copy(const ibv_wc& wc, const Ledger& ledger, WorkCompletion* out);
  static bool CopyOnIwarp(const ibv_wc& wc, const Ledger& ledger, WorkCompletion* out);
  template <bool kIwarp>
  size_t PollShort(std::span<WorkCompletion> out);
  size_t PollRetire(Polling* poll, Ledger* ledger);
  size_t PollMore(Polling* poll, size_t delivered, size_t taken);

  // polling.cc
  size_t PollInBatches(std::span<WorkCompletion> out);
  size_t PollAround(std::span<WorkCompletion> out, size_t n, const uint64_t* names);
  size_t PollOn(std::span<WorkCompletion> out, size_t n);
  size_t PollDevice(std::span<WorkCompletion> out, For purpose, uint64_t* names, bool* more);
  bool Translate(const ibv_wc& wc, For purpose, WorkCompletion* out);
  void Fail(const ibv_wc& wc, Ledger* ledger, const WorkCompletion& completion, uint32_t key);
  void PollFailed(int answer);
  bool JudgeOnIwarp(const Ledger& ledger, Ledger::Place* place, WorkCompletion* out);

  bool wants_attention() const {
    return (beside_.load(std::memory_order_acquire) & kAttention) != 0;
  }
  bool disturbed() const { return beside_.load(std::memory_order_acquire) != 0; }
  bool TellsSender(const Ledger& ledger, const Facts& receive) const;
  void LookForDatagrams();
  void Attend();
  void StashChanged();

  void PullLocked();
  size_t Unstash(std::span<WorkCompletion> out);
  // Another thread took completions from the device meanwhile: brings all into posting order.
  size_t StashAndUnstash(std::span<WorkCompletion> out, size_t count, const uint64_t* names);
  size_t UnstashLocked(std::span<WorkCompletion> out);
  void Stash(std::span<const WorkCompletion> completions, const uint64_t* names);
  void Absorb();  // TakeEvents, and tell the application's channel

  Device* const device_;
  void* const context_;
  CompletionChannel* const channel_;
  ibv_comp_channel* const events_;
  ibv_cq* cq_ = nullptr;
  Children children_;
  std::atomic<uint64_t> completions_{0}, full_polls_{0}, empty_polls_{0}, single_polls_{0},
      notifications_{0}, overflows_{0};
  std::atomic<bool> broken_{false};
  // single_polls_ brought one completion each, counted there only.
  // What a poll may find beside the device, in one word, so that it asks once.
  static constexpr uint32_t kStashed = 1;  // the stash has something
  static constexpr uint32_t kPulling = 2;  // somebody takes completions to the stash
  static constexpr uint32_t kLost = 4;     // FlushSoon
  static constexpr uint32_t kWaiting = 8;  // LookForRoom
  // Shared receives tell who sent them. The only one that stays, and no reason to look beside.
  static constexpr uint32_t kSharedDatagrams = 16;
  static constexpr uint32_t kAttention = kLost | kWaiting;
  std::atomic<uint32_t> beside_{0};
  std::array<std::atomic<Ledger*>, 16> latest_;  // whose completions polls saw last

  std::mutex mutex_;  // what follows
  std::deque<Stashed> stash_;
  bool asked_ = false;  // the application armed it, and no event has come
  Notify asked_for_ = Notify::kSolicited;
  bool mute_ = false;  // its descriptor is of no use any more

  absl::flat_hash_set<QueuePair*> queue_pairs_;  // the service's mutex
};

// Of an iWARP device. Else every poll would ask for that.
class IwarpCompletionQueue final : public CompletionQueue {
 public:
  using CompletionQueue::CompletionQueue;
  size_t Poll(std::span<WorkCompletion> out) override;  // hot_polls.cc
};

}  // namespace verbena::verbs
