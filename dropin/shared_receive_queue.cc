// SPDX-License-Identifier: Apache-2.0
#include "dropin/shared_receive_queue.h"

#include "dropin/context.h"
#include "dropin/errors.h"
#include "dropin/memory.h"
#include "dropin/versions.h"

namespace verbena::dropin {

ibv_srq* SharedReceiveQueue::Create(ibv_pd* pd, void* srq_context, const ibv_srq_attr& attr) {
  if (Context::Of(pd->context)->disabled()) return Fail<ibv_srq>(EIO);
  auto* const made = new SharedReceiveQueue;
  auto queue = ProtectionDomain::Of(pd)->domain().CreateSharedReceiveQueue(
      {.limits = {.max_wr = attr.max_wr, .max_sge = attr.max_sge, .limit = 0}, .context = made});
  if (!queue.ok()) {
    delete made;
    return Fail<ibv_srq>(ErrnoOf(queue.status()));
  }
  made->handle_ = verbena::SharedReceiveQueue(*std::move(queue));
  made->context = pd->context;
  made->srq_context = srq_context;
  made->pd = pd;
  pthread_mutex_init(&made->mutex, nullptr);
  pthread_cond_init(&made->cond, nullptr);
  return made;
}

ibv_srq* SharedReceiveQueue::CreateExtended(ibv_context*, ibv_srq_init_attr_ex* attr) {
  constexpr uint32_t kMask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD;
  if ((attr->comp_mask & IBV_SRQ_INIT_ATTR_PD) == 0) return Fail<ibv_srq>(EINVAL);
  if ((attr->comp_mask & ~kMask) != 0 ||
      ((attr->comp_mask & IBV_SRQ_INIT_ATTR_TYPE) != 0 && attr->srq_type != IBV_SRQT_BASIC)) {
    return Fail<ibv_srq>(EOPNOTSUPP);
  }
  return Create(attr->pd, attr->srq_context, attr->attr);
}

int SharedReceiveQueue::Number(ibv_srq*, uint32_t*) { return EOPNOTSUPP; }  // XRC's

int SharedReceiveQueue::Destroy() {
  if (Context::Of(context)->disabled()) return EIO;
  if (const absl::Status s = handle_.Close(); !s.ok()) return ErrnoOf(s);
  Context::Of(context)->events().Drop([this](const ibv_async_event& e) {
    return e.event_type == IBV_EVENT_SRQ_LIMIT_REACHED && e.element.srq == this;
  });
  events_.WaitForAll();
  delete this;
  return 0;
}

void SharedReceiveQueue::OnLimit() {
  ibv_async_event event{};
  event.event_type = IBV_EVENT_SRQ_LIMIT_REACHED;
  event.element.srq = this;
  Context::Of(context)->events().Push(event);
}

}  // namespace verbena::dropin

using verbena::dropin::Context;
using verbena::dropin::SharedReceiveQueue;

extern "C" {

ibv_srq* ibv_create_srq(ibv_pd* pd, ibv_srq_init_attr* attr) {
  ibv_srq* const srq = SharedReceiveQueue::Create(pd, attr->srq_context, attr->attr);
  if (srq == nullptr) return nullptr;
  const verbena::SrqLimits got = SharedReceiveQueue::Of(srq)->queue().limits();
  attr->attr.max_wr = got.max_wr;
  attr->attr.max_sge = got.max_sge;
  return srq;
}

int ibv_modify_srq(ibv_srq* srq, ibv_srq_attr* attr, int mask) {
  if (Context::Of(srq->context)->disabled()) return EIO;
  if ((mask & IBV_SRQ_MAX_WR) != 0) return EOPNOTSUPP;
  if ((mask & IBV_SRQ_LIMIT) == 0) return 0;
  return verbena::dropin::ErrnoOf(SharedReceiveQueue::Of(srq)->queue().SetLimit(attr->srq_limit));
}

int ibv_query_srq(ibv_srq* srq, ibv_srq_attr* attr) {
  if (Context::Of(srq->context)->disabled()) return EIO;
  const verbena::SrqLimits got = SharedReceiveQueue::Of(srq)->queue().limits();
  *attr = {.max_wr = got.max_wr, .max_sge = got.max_sge, .srq_limit = got.limit};
  return 0;
}

int ibv_destroy_srq(ibv_srq* srq) { return SharedReceiveQueue::Of(srq)->Destroy(); }

}  // extern "C"

USUAL_1_1(ibv_create_srq);
USUAL_1_1(ibv_destroy_srq);
USUAL_1_1(ibv_modify_srq);
USUAL_1_1(ibv_query_srq);
