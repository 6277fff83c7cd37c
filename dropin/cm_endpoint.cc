// SPDX-License-Identifier: Apache-2.0
// What an id brings along: queue pairs, their completion queues, shared receive queues; and ids
// whose calls wait (rdma_create_ep(3), rdma_get_request(3)).
#include <algorithm>
#include <cstring>

#include "dropin/cm_id.h"
#include "dropin/completion.h"
#include "dropin/errors.h"

namespace verbena::dropin {
namespace {

constexpr uint8_t kUsualTimeout = 18;  // 4.096 µs × 2^18: about a second

// A completion queue with a channel of its own, as rdma_create_qp(3) makes those that are missing.
int MakeQueue(rdma_cm_id* id, uint32_t entries, ibv_comp_channel** channel, ibv_cq** cq) {
  *channel = ibv_create_comp_channel(id->verbs);
  if (*channel == nullptr) return errno;
  *cq = ibv_create_cq(id->verbs, static_cast<int>(std::max(entries, 1u)), id, *channel, 0);
  return *cq == nullptr ? errno : 0;
}

void FreeQueue(ibv_comp_channel** channel, ibv_cq** cq, bool mine) {
  if (mine) {
    if (*cq != nullptr) ibv_destroy_cq(*cq);
    if (*channel != nullptr) ibv_destroy_comp_channel(*channel);
  }
  *cq = nullptr;
  *channel = nullptr;
}

}  // namespace

int ConnectionId::CreateQueuePair(ibv_pd* domain, ibv_qp_init_attr* attr) {
  ibv_qp_init_attr_ex all{};
  std::memcpy(&all, attr, sizeof *attr);  // which it begins with
  all.comp_mask = IBV_QP_INIT_ATTR_PD;
  all.pd = domain;
  const int error = CreateQueuePair(&all);
  std::memcpy(attr, &all, sizeof *attr);
  return error;
}

int ConnectionId::CreateQueuePair(ibv_qp_init_attr_ex* attr) {
  if (verbs == nullptr || qp != nullptr) return EINVAL;
  ibv_pd* domain = (attr->comp_mask & IBV_QP_INIT_ATTR_PD) != 0 ? attr->pd : nullptr;
  if (domain == nullptr) domain = pd;
  if (domain == nullptr || domain->context != verbs) return EINVAL;
  if (attr->srq == nullptr) attr->srq = srq;
  made_send_queue_ = attr->send_cq == nullptr;
  made_receive_queue_ = attr->recv_cq == nullptr;
  int error = 0;
  if (made_send_queue_) {
    error = MakeQueue(this, attr->cap.max_send_wr, &send_cq_channel, &send_cq);
  } else {
    send_cq = attr->send_cq;
    send_cq_channel = send_cq->channel;
  }
  if (error == 0 && made_receive_queue_) {
    error = MakeQueue(this, attr->cap.max_recv_wr, &recv_cq_channel, &recv_cq);
  } else if (error == 0) {
    recv_cq = attr->recv_cq;
    recv_cq_channel = recv_cq->channel;
  }
  if (error == 0) {
    attr->send_cq = send_cq;
    attr->recv_cq = recv_cq;
    attr->comp_mask |= IBV_QP_INIT_ATTR_PD;
    attr->pd = domain;
    qp = QueuePair::CreateExtended(verbs, attr);
    if (qp == nullptr) error = errno;
  }
  if (error == 0) {
    pd = domain;
    error = ErrnoOf(QueuePair::Of(qp)->MoveToInit());
  }
  if (error != 0) DestroyQueuePair();
  return error;
}

void ConnectionId::DestroyQueuePair() {
  Detach();
  if (qp != nullptr) ibv_destroy_qp(qp);
  qp = nullptr;
  FreeQueue(&send_cq_channel, &send_cq, made_send_queue_);
  FreeQueue(&recv_cq_channel, &recv_cq, made_receive_queue_);
}

// As the kernel's rdma_init_qp_attr(). Who is behind the peer's number need not be known: the
// connection is this id's.
int ConnectionId::DescribeQueuePair(ibv_qp_attr* attr, int* mask) const {
  constexpr int kInit = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
  constexpr int kReady = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                         IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
  constexpr int kSends = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                         IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;
  if (verbs == nullptr) return EINVAL;
  const ibv_qp_state state = attr->qp_state;
  *attr = {};
  attr->qp_state = state;
  switch (state) {
    case IBV_QPS_INIT:
      *mask = kInit;
      attr->port_num = port_num;
      attr->qp_access_flags =
          IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
      return 0;
    case IBV_QPS_RTR:
      *mask = kReady;
      attr->path_mtu = IBV_MTU_4096;
      attr->dest_qp_num = QueuePair::kOfManager;
      attr->max_dest_rd_atomic = agreed_.responder_resources;
      attr->ah_attr.is_global = 1;
      attr->ah_attr.port_num = port_num;
      attr->ah_attr.grh.dgid = route.addr.addr.ibaddr.dgid;
      attr->ah_attr.grh.hop_limit = 1;
      return 0;
    case IBV_QPS_RTS:
      *mask = kSends;
      attr->timeout = timeout_.value_or(kUsualTimeout);
      attr->retry_cnt = 7;
      attr->rnr_retry = agreed_.rnr_retry_count;
      attr->max_rd_atomic = agreed_.initiator_depth;
      return 0;
    default:
      return EINVAL;
  }
}

int ConnectionId::CreateSharedQueue(ibv_pd* domain, ibv_srq_init_attr* attr) {
  if (domain == nullptr) domain = pd;
  if (domain == nullptr || srq != nullptr) return EINVAL;
  srq = ibv_create_srq(domain, attr);
  return srq == nullptr ? errno : 0;
}

void ConnectionId::DestroySharedQueue() {
  if (srq != nullptr) ibv_destroy_srq(srq);
  srq = nullptr;
}

void ConnectionId::KeepForRequests(ibv_pd* domain, const ibv_qp_init_attr* attr) {
  request_pd_ = domain;
  if (attr != nullptr) request_attr_ = *attr;
}

int ConnectionId::GetRequest(rdma_cm_id** id) {
  if (!waits()) return EINVAL;
  if (const int error = Complete(RDMA_CM_EVENT_CONNECT_REQUEST); error != 0) return error;
  ConnectionId* const made = Of(event->id);
  int error = 0;
  if (request_attr_) {
    ibv_qp_init_attr attr = *request_attr_;
    error = made->CreateQueuePair(request_pd_, &attr);
  }
  if (error == 0) error = made->Migrate(nullptr);
  if (error != 0) {  // the caller learns that nobody will answer
    ForgetEvent();
    made->DestroyQueuePair();
    made->Destroy();
    return error;
  }
  // The id has it until it is destroyed, and shows the private data of the request.
  auto* const request = static_cast<CmEvent*>(std::exchange(event, nullptr));
  request->whose = made;
  made->events().Taken();
  events().Acknowledge();
  made->event = request;
  *id = made;
  return 0;
}

}  // namespace verbena::dropin
