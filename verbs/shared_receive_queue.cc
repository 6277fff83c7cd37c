// SPDX-License-Identifier: Apache-2.0
#include "verbs/shared_receive_queue.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace verbena::verbs {

absl::StatusOr<std::unique_ptr<provider::SharedReceiveQueue>> SharedReceiveQueue::Create(
    ProtectionDomain* domain, const SrqOptions& options) {
  const DeviceAttributes limits = domain->device()->attributes();
  const std::string& device = domain->device()->name();
  if (limits.max_shared_receive_queues == 0) {
    return absl::UnimplementedError(
        absl::StrCat("shared receive queue: device ", device, " has none"));
  }
  if (absl::Status s = provider::CheckSrqLimits(options.limits, limits, device); !s.ok()) return s;
  auto srq = std::make_unique<SharedReceiveQueue>(domain, options);
  if (srq->srq_ == nullptr) {
    return domain->device()->Refused(errno, "create shared receive queue",
                                     Resource::kSharedReceiveQueue,
                                     "Ask for a smaller one, or close queues that are not needed.");
  }
  if (options.limits.limit != 0) {
    if (absl::Status s = srq->SetLimit(options.limits.limit); !s.ok()) {
      (void)srq->Close();
      return s;
    }
  }
  return srq;
}

SharedReceiveQueue::SharedReceiveQueue(ProtectionDomain* domain, const SrqOptions& options)
    : domain_(domain), context_(options.context), limits_(options.limits) {
  domain_->children().Add();
  limits_.max_sge = std::max(limits_.max_sge, 1u);
  ibv_srq_init_attr attributes{};
  attributes.srq_context = this;
  attributes.attr = {.max_wr = limits_.max_wr, .max_sge = limits_.max_sge, .srq_limit = 0};
  srq_ = Lib().create_srq(domain_->pd(), &attributes);
  if (srq_ == nullptr) return;
  limits_.max_wr = std::max(limits_.max_wr, attributes.attr.max_wr);
  limits_.max_sge = std::max(limits_.max_sge, attributes.attr.max_sge);
  limits_.max_sge = std::min(limits_.max_sge, domain_->device()->attributes().max_sge);
  ledger_ = domain_->device()->ledgers().Acquire(Ledger::Kind::kShared, limits_.max_wr);
  if (ledger_ != nullptr) return;
  (void)Lib().destroy_srq(srq_);  // or the domain could not be closed
  srq_ = nullptr;
  errno = ENOMEM;
}

SharedReceiveQueue::~SharedReceiveQueue() {
  if (ledger_ != nullptr) domain_->device()->ledgers().Release(ledger_);
  domain_->children().Remove();
}

absl::Status SharedReceiveQueue::Close() {
  if (absl::Status s = children_.CheckNone("shared receive queue"); !s.ok()) return s;
  if (const int error = Lib().destroy_srq(srq_); error != 0) {
    return ErrnoStatus(error, "close shared receive queue", "Is a queue pair still using it?");
  }
  domain_->device()->Forget(this);
  return absl::OkStatus();
}

absl::Status SharedReceiveQueue::SetLimit(uint32_t limit) {
  if (absl::Status s = provider::CheckSrqLimit(limit, limits_.max_wr); !s.ok()) return s;
  ibv_srq_attr attributes{};
  attributes.srq_limit = limit;
  const uint32_t former = limit_.exchange(limit);  // before the device may answer
  if (const int error = Lib().modify_srq(srq_, &attributes, IBV_SRQ_LIMIT); error != 0) {
    limit_ = former;
    return ErrnoStatus(error, absl::StrCat("shared receive queue limit ", limit),
                       "Is the device still there?");
  }
  // Some drivers look only when the next receive is taken.
  if (ledger_->outstanding() < limit) LimitReached();
  return absl::OkStatus();
}

void SharedReceiveQueue::LimitReached() {
  if (limit_.exchange(0) == 0) return;  // it was told already
  limit_events_.fetch_add(1);
  Event e;
  e.type = EventType::kSrqLimitReached;
  e.context = context_;
  domain_->device()->Push(this, std::move(e));
}

SrqLimits SharedReceiveQueue::limits() const {
  SrqLimits limits = limits_;
  limits.limit = limit_;
  return limits;
}

SrqCounters SharedReceiveQueue::counters() const {
  SrqCounters c;
  c.posted = ledger_->posted();
  c.taken = ledger_->completed();
  c.limit_events = limit_events_;
  return c;
}

void SharedReceiveQueue::OnEvent(bool limit_reached) {
  if (limit_reached) return LimitReached();
  Event e;
  e.type = EventType::kQpFatal;
  e.context = context_;
  e.status = absl::UnavailableError(
      "a shared receive queue failed; close its queue pairs and make new ones");
  domain_->device()->Push(this, std::move(e));
}

}  // namespace verbena::verbs
