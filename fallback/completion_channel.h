// SPDX-License-Identifier: Apache-2.0
// Where completion queues report. Its descriptor is a wait set's: readable when an event waits, and
// when a socket is ready whose bytes may become one. TryNext moves these bytes.
#pragma once

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
  CompletionChannel(Device* device, std::unique_ptr<WaitSet> set);
  ~CompletionChannel() override;

  absl::Status Close() override { return children_.CheckNone("completion channel"); }
  int fd() const override { return set_->fd(); }
  bool TryNext(CqEvent* event) override;
  bool Await(absl::Duration timeout) override;
  ChannelCounters counters() const override;

  Device* device() const { return device_; }
  WaitSet* set() const { return set_.get(); }
  void Join(CompletionQueue* cq);
  void Leave(CompletionQueue* cq);
  void Signal(CompletionQueue* cq);

 private:
  bool HasEvent();
  bool Take(CqEvent* event);
  void SetBell();  // with mutex_
  void Serve(Nanos deadline);

  Device* const device_;
  std::unique_ptr<WaitSet> set_;
  Children children_;
  mutable std::mutex mutex_;
  std::vector<CompletionQueue*> queues_;
  int waiting_ = 0;  // events
  ChannelCounters counters_;
};

}  // namespace verbena::fallback
