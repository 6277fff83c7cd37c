// SPDX-License-Identifier: Apache-2.0
#include "fallback/shared_receive_queue.h"

#include "fallback/driven.h"

namespace verbena::fallback {

absl::StatusOr<std::unique_ptr<provider::SharedReceiveQueue>> SharedReceiveQueue::Create(
    ProtectionDomain* domain, const SrqOptions& options) {
  if (absl::Status s = provider::CheckSrqLimits(options.limits, Device::Attributes(), "tcp");
      !s.ok()) {
    return s;
  }
  return std::make_unique<SharedReceiveQueue>(domain, options);
}

SharedReceiveQueue::SharedReceiveQueue(ProtectionDomain* domain, const SrqOptions& options)
    : domain_(domain),
      context_(options.context),
      queue_(options.limits.max_wr, std::max(options.limits.max_sge, 1u)) {
  domain_->children().Add();
  if (options.limits.limit != 0) (void)queue_.SetLimit(options.limits.limit);
}

SharedReceiveQueue::~SharedReceiveQueue() {
  domain_->device()->Forget(this);
  domain_->children().Remove();
}

PostResult SharedReceiveQueue::PostReceive(std::span<const ReceiveWr> requests) {
  bool wake = false;
  const PostResult result = queue_.Post(requests, &wake);
  if (wake) {  // rare: some of them have a peer that waits for this
    std::lock_guard lock(mutex_);
    for (Driven* qp : queue_pairs_) qp->Schedule();
  }
  return result;
}

absl::Status SharedReceiveQueue::SetLimit(uint32_t limit) {
  if (absl::Status s = provider::CheckSrqLimit(limit, queue_.limits().max_wr); !s.ok()) return s;
  if (queue_.SetLimit(limit)) LimitReached();
  return absl::OkStatus();
}

void SharedReceiveQueue::LimitReached() {
  Event e;
  e.type = EventType::kSrqLimitReached;
  e.context = context_;
  domain_->device()->Push(this, std::move(e));
}

void SharedReceiveQueue::Join(Driven* qp) {
  children_.Add();
  std::lock_guard lock(mutex_);
  queue_pairs_.insert(qp);
}

void SharedReceiveQueue::Leave(Driven* qp) {
  {
    std::lock_guard lock(mutex_);
    queue_pairs_.erase(qp);
  }
  children_.Remove();
}

}  // namespace verbena::fallback
