// SPDX-License-Identifier: Apache-2.0
#include "fallback/shared_receive_queue.h"

#include "absl/strings/str_cat.h"
#include "fallback/queue_pair.h"

namespace verbena::fallback {

absl::StatusOr<std::unique_ptr<provider::SharedReceiveQueue>> SharedReceiveQueue::Create(
    ProtectionDomain* domain, const SrqOptions& options) {
  const DeviceAttributes limits = Device::Attributes();
  if (options.limits.max_wr == 0) {
    return absl::InvalidArgumentError("shared receive queue: max_wr is 0, at least 1 is needed");
  }
  for (const absl::Status& s :
       {CheckLimit("shared receive queue max_wr", options.limits.max_wr, limits.max_work_requests),
        CheckLimit("shared receive queue max_sge", options.limits.max_sge, limits.max_sge)}) {
    if (!s.ok()) return s;
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
    for (QueuePair* qp : queue_pairs_) qp->Schedule();
  }
  return result;
}

absl::Status SharedReceiveQueue::SetLimit(uint32_t limit) {
  const SrqLimits now = queue_.limits();
  if (limit > now.max_wr) {
    return absl::InvalidArgumentError(absl::StrCat("shared receive queue limit: ", limit,
                                                   " asked for, the queue holds ", now.max_wr));
  }
  if (queue_.SetLimit(limit)) LimitReached();
  return absl::OkStatus();
}

void SharedReceiveQueue::LimitReached() {
  Event e;
  e.type = EventType::kSrqLimitReached;
  e.context = context_;
  domain_->device()->Push(this, std::move(e));
}

void SharedReceiveQueue::Join(QueuePair* qp) {
  children_.Add();
  std::lock_guard lock(mutex_);
  queue_pairs_.insert(qp);
}

void SharedReceiveQueue::Leave(QueuePair* qp) {
  {
    std::lock_guard lock(mutex_);
    queue_pairs_.erase(qp);
  }
  children_.Remove();
}

}  // namespace verbena::fallback
