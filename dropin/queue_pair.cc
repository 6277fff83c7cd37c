// SPDX-License-Identifier: Apache-2.0
// Making, changing and destroying queue pairs. Posting is in datapath.cc and in work_requests.cc.
#include "dropin/queue_pair.h"

#include <algorithm>

#include "dropin/completion.h"
#include "dropin/connection_manager.h"
#include "dropin/context.h"
#include "dropin/errors.h"
#include "dropin/memory.h"
#include "dropin/names.h"
#include "dropin/shared_receive_queue.h"
#include "dropin/transitions.h"
#include "dropin/versions.h"
#include "dropin/work_requests.h"

namespace verbena::dropin {
namespace {

constexpr int kRightsOfPeers =
    IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;

Access RightsOf(unsigned flags) {
  return static_cast<Access>(flags & kRightsOfPeers) | Access::kLocalWrite;
}

QpLimits LimitsOf(const ibv_qp_cap& cap) {
  return {.max_send_wr = cap.max_send_wr,
          .max_receive_wr = cap.max_recv_wr,
          .max_send_sge = cap.max_send_sge,
          .max_receive_sge = cap.max_recv_sge,
          .max_inline = cap.max_inline_data};
}

ibv_qp_cap CapOf(const QpLimits& limits) {
  return {.max_send_wr = limits.max_send_wr,
          .max_recv_wr = limits.max_receive_wr,
          .max_send_sge = limits.max_send_sge,
          .max_recv_sge = limits.max_receive_sge,
          .max_inline_data = limits.max_inline};
}

// Nonces as both ends know them: from what they have told each other, and nothing more.
Contact ContactOf(const Ip& gid, uint32_t number) {
  Contact c;
  c.queue_pair = true;
  c.nonce = gid;
  for (size_t i = 0; i < 3; ++i) c.nonce[i] ^= static_cast<uint8_t>(number >> (8 * i));
  Way way;
  way.device = "tcp";
  way.qp_number = number;
  way.port = PortOf(number);
  way.addresses = {gid};
  c.ways = {std::move(way)};
  return c;
}

bool IsZero(const Ip& ip) {
  return std::all_of(ip.begin(), ip.end(), [](uint8_t b) { return b == 0; });
}

}  // namespace

QueuePair* QueuePair::Make(ibv_pd* pd, const ibv_qp_init_attr& attr, int* error) {
  Context& context = *Context::Of(pd->context);
  if (context.disabled()) {
    *error = EIO;
    return nullptr;
  }
  const bool datagrams = attr.qp_type == IBV_QPT_UD;
  const bool unreliable = attr.qp_type == IBV_QPT_UC;
  if (attr.qp_type != IBV_QPT_RC && !unreliable && !datagrams) {
    const bool known = attr.qp_type == IBV_QPT_RAW_PACKET || attr.qp_type == IBV_QPT_XRC_SEND ||
                       attr.qp_type == IBV_QPT_XRC_RECV || attr.qp_type == IBV_QPT_DRIVER;
    *error = known ? EOPNOTSUPP : EINVAL;
    return nullptr;
  }
  if (attr.send_cq == nullptr || attr.recv_cq == nullptr) {
    *error = EINVAL;
    return nullptr;
  }
  Process& process = context.process();
  // Datagrams have their socket's number.
  const absl::StatusOr<uint32_t> number =
      datagrams ? absl::StatusOr<uint32_t>(0) : process.numbers().Take();
  if (!number.ok()) {
    *error = ErrnoOf(number.status());
    return nullptr;
  }
  auto* const made = new QueuePair(&process);
  QueuePairOptions options;
  if (unreliable) options.type = QpType::kUc;
  options.send_cq = CompletionQueue::Of(attr.send_cq)->handle_of();
  options.receive_cq = CompletionQueue::Of(attr.recv_cq)->handle_of();
  if (attr.srq != nullptr) {
    options.shared_receive_queue = SharedReceiveQueue::Of(attr.srq)->handle_of();
  }
  options.limits = LimitsOf(attr.cap);
  options.signal = attr.sq_sig_all != 0 ? Signal::kAll : Signal::kSelective;
  options.access = Access::kLocalWrite;  // until it is modified to INIT
  options.context = made;
  fallback::ProtectionDomain* const domain = &ProtectionDomain::Of(pd)->domain();
  auto queue_pair =
      datagrams ? fallback::DatagramQueuePair::Create(domain, options, context.device().ip())
                : fallback::QueuePair::Create(domain, options, *number);
  if (!queue_pair.ok()) {
    if (!datagrams) process.numbers().Return(*number);
    delete made;
    *error = ErrnoOf(queue_pair.status());
    return nullptr;
  }
  made->owned_ = *std::move(queue_pair);
  if (datagrams) {
    made->datagrams_ = static_cast<fallback::DatagramQueuePair*>(made->owned_.get());
  } else {
    made->fast_ = static_cast<fallback::QueuePair*>(made->owned_.get());
  }
  const QpAttributes got = made->owned_->Query();
  ibv_qp& base = made->qp_base;
  base.context = pd->context;
  base.qp_context = attr.qp_context;
  base.pd = pd;
  base.send_cq = attr.send_cq;
  base.recv_cq = attr.recv_cq;
  base.srq = attr.srq;
  base.handle = base.qp_num = got.qp_number;
  base.state = IBV_QPS_RESET;
  base.qp_type = attr.qp_type;
  pthread_mutex_init(&base.mutex, nullptr);
  pthread_cond_init(&base.cond, nullptr);
  made->init_ = attr;
  made->init_.cap = CapOf(got.limits);
  if (attr.srq != nullptr) made->init_.cap.max_recv_wr = made->init_.cap.max_recv_sge = 0;
  (void)made->owned_->Modify({.state = QpState::kReset});
  made->Expect();
  process.Add(made);
  return made;
}

ibv_qp* QueuePair::Create(ibv_pd* pd, ibv_qp_init_attr* attr) {
  int error = 0;
  QueuePair* const made = Make(pd, *attr, &error);
  if (made == nullptr) return Fail<ibv_qp>(error);
  attr->cap = made->init_.cap;
  return made->qp();
}

ibv_qp* QueuePair::CreateExtended(ibv_context*, ibv_qp_init_attr_ex* attr) {
  constexpr uint32_t kMask =
      IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS | IBV_QP_INIT_ATTR_CREATE_FLAGS;
  if ((attr->comp_mask & IBV_QP_INIT_ATTR_PD) == 0) return Fail<ibv_qp>(EINVAL);
  if ((attr->comp_mask & ~kMask) != 0) return Fail<ibv_qp>(EOPNOTSUPP);
  if ((attr->comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS) != 0 && attr->create_flags != 0) {
    return Fail<ibv_qp>(EOPNOTSUPP);
  }
  const bool operations = (attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS) != 0;
  if (operations && !TakesOperations(attr->send_ops_flags)) return Fail<ibv_qp>(EOPNOTSUPP);
  ibv_qp_init_attr basic{.qp_context = attr->qp_context,
                         .send_cq = attr->send_cq,
                         .recv_cq = attr->recv_cq,
                         .srq = attr->srq,
                         .cap = attr->cap,
                         .qp_type = attr->qp_type,
                         .sq_sig_all = attr->sq_sig_all};
  ibv_qp* const qp = Create(attr->pd, &basic);
  if (qp == nullptr) return nullptr;
  attr->cap = basic.cap;
  if (operations) SetOperations(Of(qp));
  return qp;
}

// Callers are let in from now on, however late the program connects.
void QueuePair::Expect() {
  if (fast_ == nullptr) return;
  (void)fast_->Expect(ContactOf(Context::Of(qp_base.context)->device().ip(), number()));
}

int QueuePair::Apply(const QpModify& change) {
  const absl::Status s = fast_->Modify(change);
  return s.ok() ? 0 : EINVAL;
}

absl::Status QueuePair::MoveToInit() {
  if (datagrams_ != nullptr) return StartDatagrams();
  const absl::Status s =
      fast_->Modify({.state = QpState::kInit, .access = RightsOf(kRightsOfPeers)});
  if (s.ok()) qp_base.state = IBV_QPS_INIT;
  return s;
}

// The address is {GID, number}; without a GID the peer is on this device.
int QueuePair::MeetPeer(const ibv_qp_attr& attr, int mask) {
  Ip peer = Context::Of(qp_base.context)->device().ip();
  if (attr.ah_attr.is_global != 0) {
    if (attr.ah_attr.grh.sgid_index != 0) return ENODATA;  // as ib_core says
    Ip gid;
    std::copy(std::begin(attr.ah_attr.grh.dgid.raw), std::end(attr.ah_attr.grh.dgid.raw),
              gid.begin());
    if (!IsZero(gid)) peer = gid;
  }
  QpModify change;
  ConnectParameters parameters;
  if (qp_base.qp_type == IBV_QPT_RC) {
    change.min_rnr_timer = attr.min_rnr_timer;
    parameters.responder_resources = attr.max_dest_rd_atomic;
  }
  if ((mask & IBV_QP_ACCESS_FLAGS) != 0) change.access = RightsOf(attr.qp_access_flags);
  if (const int error = Apply(change); error != 0) return error;
  parameters.traffic_class = attr.ah_attr.is_global != 0 ? attr.ah_attr.grh.traffic_class : 0;
  parameters.deadline = absl::InfiniteDuration();
  const absl::Status s = fast_->ConnectUnmanaged(ContactOf(peer, attr.dest_qp_num), parameters);
  return s.ok() ? 0 : EINVAL;
}

int QueuePair::MoveTo(ibv_qp_state to, const ibv_qp_attr& attr, int mask) {
  QpModify change;
  if ((mask & IBV_QP_ACCESS_FLAGS) != 0) change.access = RightsOf(attr.qp_access_flags);
  if ((mask & IBV_QP_MIN_RNR_TIMER) != 0) change.min_rnr_timer = attr.min_rnr_timer;
  const ibv_qp_state from = qp_base.state;
  switch (to) {
    case IBV_QPS_RESET:
      moved_by_hand_ = false;
      if (const int error = Apply({.state = QpState::kReset}); error != 0) return error;
      Expect();
      return 0;
    case IBV_QPS_INIT:
      // From INIT the program may come late: what is under it is connected, if rdma_cm did that.
      if (from == IBV_QPS_RESET) change.state = QpState::kInit;
      return Apply(change);
    case IBV_QPS_RTR:
      moved_by_hand_ = attr.dest_qp_num == kOfManager;
      return moved_by_hand_ ? Apply(change) : MeetPeer(attr, mask);
    case IBV_QPS_RTS:
      if (from == IBV_QPS_RTR && !moved_by_hand_) {
        if (const int error = Apply(change); error != 0) return error;
        return ErrnoOf(fast_->Start(
            {.rnr_retry = attr.rnr_retry, .retry_count = attr.retry_cnt, .timeout = attr.timeout}));
      }
      if (from == IBV_QPS_SQD || from == IBV_QPS_SQE) change.state = QpState::kRts;
      return Apply(change);
    case IBV_QPS_SQD:
      if (from == IBV_QPS_RTS) change.state = QpState::kSqd;
      if ((mask & IBV_QP_RNR_RETRY) != 0) change.rnr_retry = attr.rnr_retry;
      if ((mask & IBV_QP_RETRY_CNT) != 0) change.retry_count = attr.retry_cnt;
      if ((mask & IBV_QP_TIMEOUT) != 0) change.timeout = attr.timeout;
      return Apply(change);
    case IBV_QPS_ERR:
      return Apply({.state = QpState::kErr});
    default:
      return EINVAL;
  }
}

void QueuePair::Remember(const ibv_qp_attr& attr, int mask) {
  const auto take = [&](int bit, auto member) {
    if ((mask & bit) != 0) attr_.*member = attr.*member;
  };
  take(IBV_QP_ACCESS_FLAGS, &ibv_qp_attr::qp_access_flags);
  take(IBV_QP_PKEY_INDEX, &ibv_qp_attr::pkey_index);
  take(IBV_QP_PORT, &ibv_qp_attr::port_num);
  take(IBV_QP_AV, &ibv_qp_attr::ah_attr);
  take(IBV_QP_PATH_MTU, &ibv_qp_attr::path_mtu);
  take(IBV_QP_TIMEOUT, &ibv_qp_attr::timeout);
  take(IBV_QP_RETRY_CNT, &ibv_qp_attr::retry_cnt);
  take(IBV_QP_RNR_RETRY, &ibv_qp_attr::rnr_retry);
  take(IBV_QP_RQ_PSN, &ibv_qp_attr::rq_psn);
  take(IBV_QP_MAX_QP_RD_ATOMIC, &ibv_qp_attr::max_rd_atomic);
  take(IBV_QP_MIN_RNR_TIMER, &ibv_qp_attr::min_rnr_timer);
  take(IBV_QP_SQ_PSN, &ibv_qp_attr::sq_psn);
  take(IBV_QP_MAX_DEST_RD_ATOMIC, &ibv_qp_attr::max_dest_rd_atomic);
  take(IBV_QP_DEST_QPN, &ibv_qp_attr::dest_qp_num);
  take(IBV_QP_QKEY, &ibv_qp_attr::qkey);
}

int QueuePair::Modify(const ibv_qp_attr& attr, int mask) {
  if (datagrams_ != nullptr) return ModifyDatagrams(attr, mask);
  const QpState now = fast_->Query().state;
  if (now == QpState::kErr) qp_base.state = IBV_QPS_ERR;
  if (now == QpState::kSqe) qp_base.state = IBV_QPS_SQE;
  const ibv_qp_state from = qp_base.state;
  if ((mask & IBV_QP_CUR_STATE) != 0 && attr.cur_qp_state != from) return EINVAL;
  const ibv_qp_state to = (mask & IBV_QP_STATE) != 0 ? attr.qp_state : from;
  if (!MayModify(qp_base.qp_type, from, to, mask)) return EINVAL;
  if ((mask & IBV_QP_PORT) != 0 && attr.port_num != 1) return EINVAL;
  if (const int error = MoveTo(to, attr, mask); error != 0) return error;
  if (to == IBV_QPS_RESET) attr_ = {};
  Remember(attr, mask);
  qp_base.state = to;
  return 0;
}

int QueuePair::Query(ibv_qp_attr* attr, ibv_qp_init_attr* init) {
  const QpAttributes now = owned_->Query();
  if (now.state == QpState::kErr) qp_base.state = IBV_QPS_ERR;
  if (now.state == QpState::kSqe) qp_base.state = IBV_QPS_SQE;
  *attr = attr_;
  attr->qp_state = attr->cur_qp_state = qp_base.state;
  attr->path_mig_state = IBV_MIG_MIGRATED;
  attr->cap = init_.cap;
  attr->sq_draining = now.draining ? 1 : 0;
  *init = init_;
  return 0;
}

int QueuePair::Destroy() {
  {
    std::lock_guard lock(manager_mutex_);
    if (manager_ != nullptr) ConnectionManager::Forget(manager_);
    manager_ = nullptr;
  }
  process_->Remove(this);  // so that nobody finds it who could use it
  if (const absl::Status s = owned_->Close(); !s.ok()) return ErrnoOf(s);
  Context::Of(qp_base.context)->events().Drop([this](const ibv_async_event& e) {
    return IsOfQueuePair(e.event_type) && e.element.qp == qp();
  });
  events_.WaitForAll();
  if (datagrams_ == nullptr) process_->numbers().Return(number());
  delete this;
  return 0;
}

}  // namespace verbena::dropin

using verbena::dropin::Context;
using verbena::dropin::QueuePair;

extern "C" {

ibv_qp* ibv_create_qp(ibv_pd* pd, ibv_qp_init_attr* attr) { return QueuePair::Create(pd, attr); }

ibv_qp_ex* ibv_qp_to_qp_ex(ibv_qp* qp) {
  QueuePair* const mine = QueuePair::Of(qp);
  return mine->wr_start != nullptr ? mine : nullptr;
}

int ibv_modify_qp(ibv_qp* qp, ibv_qp_attr* attr, int mask) {
  if (Context::Of(qp->context)->disabled()) return EIO;
  return QueuePair::Of(qp)->Modify(*attr, mask);
}

int ibv_query_qp(ibv_qp* qp, ibv_qp_attr* attr, int, ibv_qp_init_attr* init) {
  if (Context::Of(qp->context)->disabled()) return EIO;
  return QueuePair::Of(qp)->Query(attr, init);
}

int ibv_destroy_qp(ibv_qp* qp) {
  if (Context::Of(qp->context)->disabled()) return EIO;
  return QueuePair::Of(qp)->Destroy();
}

// Payload is placed in order, and its tail last (decision 0005).
int ibv_query_qp_data_in_order(ibv_qp*, ibv_wr_opcode, uint32_t) { return 1; }

}  // extern "C"

USUAL_1_1(ibv_create_qp);
USUAL_1_1(ibv_destroy_qp);
USUAL_1_1(ibv_modify_qp);
USUAL_1_1(ibv_query_qp);
