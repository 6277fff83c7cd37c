// SPDX-License-Identifier: Apache-2.0
#include "dropin/datagrams.h"

#include <rdma/rdma_cma.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "dropin/context.h"
#include "dropin/errors.h"
#include "dropin/memory.h"
#include "dropin/queue_pair.h"
#include "dropin/transitions.h"
#include "dropin/versions.h"
#include "fallback/address_handle.h"
#include "fallback/datagram_queue_pair.h"
#include "transport/datagram_checks.h"

namespace verbena::dropin {
namespace {

constexpr uint8_t kAnyHops = 0xff;
constexpr uint8_t kMulticastPrefix[kMappedBytes] = {0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

std::optional<QpState> StateOf(ibv_qp_state state) {
  switch (state) {
    case IBV_QPS_RESET:
      return QpState::kReset;
    case IBV_QPS_INIT:
      return QpState::kInit;
    case IBV_QPS_RTR:
      return QpState::kRtr;
    case IBV_QPS_RTS:
      return QpState::kRts;
    case IBV_QPS_SQD:
      return QpState::kSqd;
    case IBV_QPS_ERR:
      return QpState::kErr;
    default:
      return {};
  }
}

int Membership(ibv_qp* qp, const ibv_gid* gid, bool attach) {
  fallback::DatagramQueuePair* const datagrams = QueuePair::Of(qp)->datagrams();
  const Ip group = IpOfGid(*gid);
  if (Context::Of(qp->context)->disabled()) return EIO;
  if (datagrams == nullptr || !provider::IsGroup(group)) return EINVAL;
  const absl::Status s = attach ? datagrams->Attach(group) : datagrams->Detach(group);
  return absl::IsNotFound(s) ? EINVAL : ErrnoOf(s);
}

}  // namespace

Ip IpOfGid(const ibv_gid& gid) {
  Ip ip;
  std::copy(std::begin(gid.raw), std::end(gid.raw), ip.begin());
  if (std::equal(std::begin(kMulticastPrefix), std::end(kMulticastPrefix), ip.begin())) {
    std::copy(std::begin(kMapped), std::end(kMapped), ip.begin());
  }
  return ip;
}

ibv_gid GidOfGroup(const Ip& group) {
  ibv_gid gid;
  std::copy(group.begin(), group.end(), std::begin(gid.raw));
  if (IsV4(group)) {
    std::copy(std::begin(kMulticastPrefix), std::end(kMulticastPrefix), std::begin(gid.raw));
  }
  return gid;
}

ibv_ah_attr AttributesOf(const ibv_gid& gid) {
  ibv_ah_attr attr{};
  attr.is_global = 1;
  attr.grh.dgid = gid;
  attr.grh.hop_limit = kAnyHops;
  attr.port_num = 1;
  return attr;
}

Destination DestinationOf(ibv_ah* ah, uint32_t qp_number, uint32_t qkey) {
  return {.address = ah == nullptr ? nullptr : AddressHandle::Of(ah)->handle(),
          .qp_number = qp_number,
          .qkey = qkey};
}

// Without a GID the peer is on this device, as for connected ones.
ibv_ah* AddressHandle::Create(ibv_pd* pd, const ibv_ah_attr& attr) {
  if (Context::Of(pd->context)->disabled()) return Fail<ibv_ah>(EIO);
  if (attr.port_num != 1 || (attr.is_global != 0 && attr.grh.sgid_index != 0)) {
    return Fail<ibv_ah>(EINVAL);
  }
  datagram::Route route;
  route.ip = Context::Of(pd->context)->device().ip();
  if (attr.is_global != 0) {
    const Ip gid = IpOfGid(attr.grh.dgid);
    if (gid != Ip{}) route.ip = gid;
    route.traffic_class = attr.grh.traffic_class;
  }
  route.group = provider::IsGroup(route.ip);
  if (route.group) route.hop_limit = attr.grh.hop_limit;
  auto* const made = new AddressHandle;
  made->handle_ = verbena::AddressHandle(std::make_unique<fallback::AddressHandle>(
      &ProtectionDomain::Of(pd)->domain(), AddressHandleOptions{}, route));
  made->context = pd->context;
  made->pd = pd;
  return made;
}

// --- of QueuePair

// What rdma_cm gives its queue pairs of datagrams (RDMA_UDP_QKEY).
absl::Status QueuePair::StartDatagrams() {
  for (const QpModify& step :
       {QpModify{.state = QpState::kInit, .qkey = RDMA_UDP_QKEY}, QpModify{.state = QpState::kRtr},
        QpModify{.state = QpState::kRts}}) {
    if (const absl::Status s = owned_->Modify(step); !s.ok()) return s;
  }
  attr_.qkey = RDMA_UDP_QKEY;
  qp_base.state = IBV_QPS_RTS;
  return absl::OkStatus();
}

int QueuePair::ModifyDatagrams(const ibv_qp_attr& attr, int mask) {
  const QpState now = owned_->Query().state;
  if (now == QpState::kErr) qp_base.state = IBV_QPS_ERR;
  if (now == QpState::kSqe) qp_base.state = IBV_QPS_SQE;
  const ibv_qp_state from = qp_base.state;
  if ((mask & IBV_QP_CUR_STATE) != 0 && attr.cur_qp_state != from) return EINVAL;
  const ibv_qp_state to = (mask & IBV_QP_STATE) != 0 ? attr.qp_state : from;
  if (!MayModify(IBV_QPT_UD, from, to, mask)) return EINVAL;
  QpModify change;
  if (to != from) change.state = StateOf(to);
  if ((mask & IBV_QP_QKEY) != 0) change.qkey = attr.qkey;
  if (!owned_->Modify(change).ok()) return EINVAL;
  if (to == IBV_QPS_RESET) attr_ = {};
  Remember(attr, mask);
  qp_base.state = to;
  return 0;
}

}  // namespace verbena::dropin

using verbena::dropin::AddressHandle;
using verbena::dropin::Context;

extern "C" {

ibv_ah* ibv_create_ah(ibv_pd* pd, ibv_ah_attr* attr) { return AddressHandle::Create(pd, *attr); }

int ibv_destroy_ah(ibv_ah* ah) {
  if (Context::Of(ah->context)->disabled()) return EIO;
  delete AddressHandle::Of(ah);
  return 0;
}

// The sender's address stands in the IPv6 header, or in the IPv4 one at the end (IBTA A17.4.5.2).
int ibv_init_ah_from_wc(ibv_context*, uint8_t port, ibv_wc* wc, ibv_grh* grh, ibv_ah_attr* attr) {
  if (port != 1 || (wc->wc_flags & IBV_WC_GRH) == 0) {
    *attr = {};
    attr->port_num = port;
    return port == 1 ? 0 : EINVAL;
  }
  static_assert(sizeof(ibv_grh) == verbena::kGrhBytes);
  constexpr size_t kV4 = 20, kV4Class = 1, kV4Source = 12;
  uint8_t bytes[sizeof(ibv_grh)];
  std::memcpy(bytes, grh, sizeof(bytes));
  ibv_gid source = grh->sgid;
  uint8_t traffic_class = static_cast<uint8_t>(bytes[0] << 4 | bytes[1] >> 4);
  if (bytes[0] >> 4 != 6) {
    if (bytes[kV4] != 0x45) return EINVAL;
    traffic_class = bytes[kV4 + kV4Class];
    std::copy(std::begin(verbena::kMapped), std::end(verbena::kMapped), std::begin(source.raw));
    std::memcpy(&source.raw[verbena::kMappedBytes], &bytes[kV4 + kV4Source], 4);
  }
  *attr = verbena::dropin::AttributesOf(source);
  attr->grh.traffic_class = traffic_class;
  return 0;
}

ibv_ah* ibv_create_ah_from_wc(ibv_pd* pd, ibv_wc* wc, ibv_grh* grh, uint8_t port) {
  ibv_ah_attr attr{};
  if (const int error = ibv_init_ah_from_wc(pd->context, port, wc, grh, &attr); error != 0) {
    return verbena::dropin::Fail<ibv_ah>(error);
  }
  return AddressHandle::Create(pd, attr);
}

int ibv_attach_mcast(ibv_qp* qp, const ibv_gid* gid, uint16_t) {
  return verbena::dropin::Membership(qp, gid, true);
}
int ibv_detach_mcast(ibv_qp* qp, const ibv_gid* gid, uint16_t) {
  return verbena::dropin::Membership(qp, gid, false);
}

}  // extern "C"

USUAL_1_1(ibv_attach_mcast);
USUAL_1_1(ibv_create_ah);
USUAL_1_1(ibv_destroy_ah);
USUAL_1_1(ibv_detach_mcast);
