// SPDX-License-Identifier: Apache-2.0
// Where completion queues report. Its descriptor is a wait set's: readable when an event waits, and
// when a socket is ready whose bytes may become one. TryNext moves these bytes.
//
// An exact one has an eventfd instead, readable only when an event waits, as programs for
// libibverbs take it: they go to read without having said that they will not wait. Whoever polls
// it cannot move bytes, so sockets are the service's, until a thread has called Attend.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "fallback/device.h"
#include "fallback/wait_set.h"
#include "transport/provider.h"

namespace verbena::fallback {

class CompletionQueue;

class CompletionChannel final : public provider::CompletionChannel {
 public:
  static absl::StatusOr<std::unique_ptr<provider::CompletionChannel>> Create(Device* device);
  // Told of each event that is taken, with the queue's context, while the queue cannot leave.
  using Taken = void (*)(void* context);
  static absl::StatusOr<std::unique_ptr<CompletionChannel>> CreateExact(Device* device,
                                                                        Taken taken);
  // `exact_fd`: an eventfd that becomes its own; -1: it is not exact.
  CompletionChannel(Device* device, std::unique_ptr<WaitSet> set, int exact_fd, Taken taken);
  ~CompletionChannel() override;

  absl::Status Close() override { return children_.CheckNone("completion channel"); }
  int fd() const override { return exact_fd_ >= 0 ? exact_fd_ : set_->fd(); }
  bool TryNext(CqEvent* event) override;
  bool Await(absl::Duration timeout) override;
  ChannelCounters counters() const override;
  // For who waits by itself, as signals may end its wait: sockets are the channel's from now on.
  // Returns a descriptor that is readable when TryNext, which moves the bytes, may have an event.
  int Attend();

  Device* device() const { return device_; }
  WaitSet* set() const { return set_.get(); }
  // Whether sockets belong into the set rather than to the service.
  bool drives() const { return exact_fd_ < 0 || attended_.load(std::memory_order_relaxed); }
  void Join(CompletionQueue* cq);
  void Leave(CompletionQueue* cq);
  void Signal(CompletionQueue* cq);

 private:
  bool HasEvent();
  bool Take(CqEvent* event);
  void SetBell();  // with mutex_
  void Serve(Nanos deadline);
  void Raise(bool up);  // the eventfd; with mutex_

  Device* const device_;
  std::unique_ptr<WaitSet> set_;
  const int exact_fd_;
  const Taken taken_;
  bool raised_ = false;
  std::atomic<bool> attended_{false};  // the thread that waits drives
  Children children_;
  mutable std::mutex mutex_;
  std::vector<CompletionQueue*> queues_;
  int waiting_ = 0;  // events
  ChannelCounters counters_;
};

}  // namespace verbena::fallback
