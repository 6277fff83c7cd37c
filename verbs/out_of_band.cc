// SPDX-License-Identifier: Apache-2.0
// Queue pairs that are connected by hand, with what the two addresses say: no connection manager,
// no identifier, no hand-shake (docs/decisions/0015-out-of-band.md).
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "verbs/ack_timeout.h"
#include "verbs/queue_pair.h"

namespace verbena::verbs {
namespace {

constexpr uint32_t kMask24 = 0xffffff;
constexpr uint8_t kHopLimit = 64;
constexpr uint32_t kDepth = 128;  // as ConnectParameters

uint32_t Random24() {
  const Nonce random = NewNonce();
  return (random[0] | random[1] << 8 | random[2] << 16) & kMask24;
}

}  // namespace

absl::StatusOr<Way> Device::way() const {
  if (!capabilities_.out_of_band) {
    return absl::UnimplementedError(absl::StrCat(
        "device ", name(),
        ": an iWARP device connects through its connection manager only. Use Listen and Resolve, "
        "or TCP."));
  }
  const Use use(this);
  if (absl::Status s = use.Check(); !s.ok()) return s;
  const absl::StatusOr<Gid> gid = GidForPeers(name(), found_.info.link == Link::kRoce, gids(),
                                              std::getenv("VERBENA_GID_INDEX"));
  if (!gid.ok()) return gid.status();
  const absl::StatusOr<ibv_port_attr> port = PortNow();
  if (!port.ok()) return port.status();
  Way way;
  way.device = name();
  way.link = found_.info.link;
  std::memcpy(way.gid.data(), gid->entry.gid.raw, way.gid.size());
  way.gid_type = static_cast<uint8_t>(gid->entry.gid_type);
  way.lid = port->lid;
  way.mtu = static_cast<uint8_t>(port->active_mtu);
  way.responder_resources =
      static_cast<uint8_t>(std::min(attributes_.max_responder_resources, kDepth));
  return way;
}

absl::StatusOr<ibv_port_attr> Device::PortNow() const {
  ibv_port_attr now{};
  const int error =
      Lib().query_port(context(), found_.port, reinterpret_cast<_compat_ibv_port_attr*>(&now));
  if (error == 0) return now;
  return ErrnoStatus(error, absl::StrCat("device ", name(), ": its port ", found_.port),
                     "Is the device still there?");
}

std::vector<Gid> Device::gids() const {
  return ReadGids(context(), found_.port,
                  static_cast<size_t>(std::max(found_.port_attributes.gid_tbl_len, 1)) *
                      found_.attributes.phys_port_cnt);
}

absl::StatusOr<Contact> QueuePair::contact() {
  const std::lock_guard lock(device_->service().mutex());
  if (contact_) return *contact_;
  if (state_ != QpState::kInit && state_ != QpState::kReset) {
    return absl::FailedPreconditionError(
        absl::StrCat("address of ", Name(), ": it is in state ", QpStateName(state_),
                     ", and an address is for one in INIT (modify it to RESET, then INIT)"));
  }
  const absl::StatusOr<Way> way = device_->way();
  if (!way.ok()) return way.status();
  Contact contact{.queue_pair = true, .nonce = NewNonce(), .ways = {*way}};
  contact.ways.front().qp_number = number_;
  contact.ways.front().psn = Random24();
  contact_ = contact;
  return contact;
}

absl::Status QueuePair::Connect(const Contact& peer, const ConnectParameters& parameters) {
  if (absl::Status s = CheckRequirements("connect", parameters.require); !s.ok()) return s;
  const std::lock_guard lock(device_->service().mutex());
  if (absl::Status s = CheckIdle("connect"); !s.ok()) return s;
  if (!contact_) {
    return absl::FailedPreconditionError(absl::StrCat(
        "connect ", Name(),
        ": its own address was not taken yet, and the peer needs it. Call address() first."));
  }
  if (absl::Status s = CheckPeer(*contact_, peer); !s.ok()) return s;
  const Way& mine = contact_->ways.front();
  const Way& there = peer.ways.front();
  if (there.mtu < IBV_MTU_256 || there.mtu > IBV_MTU_4096) {
    return absl::InvalidArgumentError(
        absl::StrCat("connect ", Name(), ": the peer's address has MTU code ", there.mtu,
                     ", which there is not. Take a new address at the peer."));
  }
  if (absl::Status s = CheckPort(mine, there); !s.ok()) return s;
  DropId();
  rnr_retry_ = std::min<uint8_t>(parameters.rnr_retry, 7);
  SetTimers(parameters.timeout, parameters.retry_count);
  traffic_class_ = parameters.traffic_class;
  if (type_ == QpType::kRc) {
    initiator_depth_ = std::min({parameters.initiator_depth, uint32_t{there.responder_resources},
                                 device_->attributes().max_initiator_depth});
    responder_resources_ = mine.responder_resources;
  }
  outcome_ = {};
  info_ = {};
  info_.local = GidText(mine.gid.data());
  info_.peer = GidText(there.gid.data());
  info_.candidates.push_back({device_->name(), true, "both addresses are of this kind"});
  parted_ = false;
  device_->counts().connects.fetch_add(1);
  if (const int error = ToReadyToSend(mine, there); error != 0) {
    // Half way to RTR it can be neither connected nor posted to.
    const absl::Status why = ErrnoStatus(
        error, absl::StrCat("connect ", Name(), " to GID ", info_.peer),
        "Is the peer in a network that this device's port reaches? Reset it before another try.");
    EnterError(absl::UnavailableError(why.message()));
    return absl::UnavailableError(why.message());
  }
  phase_ = Phase::kConnected;
  SetState(QpState::kRts);
  ConnectDone({ConnectOutcome::Kind::kEstablished, "", absl::OkStatus()}, EventType::kEstablished);
  device_->service().Changed();
  return absl::OkStatus();
}

// The peer goes by what the address says: both ends send packets of the MTU that both have named.
absl::Status QueuePair::CheckPort(const Way& mine, const Way& peer) const {
  const absl::StatusOr<ibv_port_attr> port = device_->PortNow();
  if (!port.ok()) return port.status();
  const int agreed = std::min(mine.mtu, peer.mtu);
  const int mtu = port->active_mtu;
  if (port->lid == mine.lid && mtu >= agreed) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("connect ", Name(), ": since its address was taken the port changed from LID ",
                   mine.lid, " and MTU code ", mine.mtu, " to ", port->lid, " and ", mtu,
                   ". Reset it, and take and exchange addresses again."));
}

// INIT, RTR, RTS as in ibv_modify_qp(3): those of unreliable ones have nothing that is for answers.
int QueuePair::ToReadyToSend(const Way& mine, const Way& peer) {
  const std::vector<Gid> gids = device_->gids();
  const auto own = std::find_if(gids.begin(), gids.end(), [&mine](const Gid& each) {
    return std::memcmp(each.entry.gid.raw, mine.gid.data(), mine.gid.size()) == 0 &&
           each.entry.gid_type == mine.gid_type;
  });
  if (own == gids.end()) return EADDRNOTAVAIL;  // its interface lost the address
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RTR;
  attributes.path_mtu = static_cast<ibv_mtu>(std::min(mine.mtu, peer.mtu));
  attributes.dest_qp_num = peer.qp_number;
  attributes.rq_psn = peer.psn;
  attributes.max_dest_rd_atomic = mine.responder_resources;
  attributes.min_rnr_timer = min_rnr_timer_;
  attributes.ah_attr.port_num = device_->port();
  attributes.ah_attr.dlid = peer.lid;
  attributes.ah_attr.is_global = 1;
  attributes.ah_attr.grh.hop_limit = kHopLimit;
  attributes.ah_attr.grh.traffic_class = traffic_class_;
  attributes.ah_attr.grh.sgid_index = static_cast<uint8_t>(own->entry.gid_index);
  std::memcpy(attributes.ah_attr.grh.dgid.raw, peer.gid.data(), peer.gid.size());
  const bool reliable = type_ == QpType::kRc;
  int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
  if (reliable) mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
  if (const int error = ModifyDevice(attributes, mask); error != 0) return error;
  attributes.qp_state = IBV_QPS_RTS;
  attributes.sq_psn = mine.psn;
  if (!reliable) return ModifyDevice(attributes, IBV_QP_STATE | IBV_QP_SQ_PSN);
  // No path record: the subnet's manager tells the port how long packets live, at most.
  const absl::StatusOr<ibv_port_attr> port = device_->PortNow();
  const int told = port.ok() ? port->subnet_timeout : 0;
  attributes.timeout = AckTimeout(told != 0 ? told : kPacketLifeTime, device_->ack_delay());
  TakeTimers(attributes, IBV_QP_TIMEOUT);
  attributes.rnr_retry = rnr_retry_;
  attributes.max_rd_atomic = static_cast<uint8_t>(initiator_depth_);
  return ModifyDevice(attributes, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                                      IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

// As the device has it; the kernel's connection manager copies the caller's to the other end. Of an
// iWARP device's packets nobody tells.
uint8_t QueuePair::TrafficClass() const {
  ibv_qp_attr attributes{};
  ibv_qp_init_attr unused{};
  if (phase_ != Phase::kConnected && phase_ != Phase::kAccepting) return 0;
  if (!capabilities_.traffic_class) return 0;
  if (Lib().query_qp(qp_, &attributes, IBV_QP_AV, &unused) != 0) return traffic_class_;
  return attributes.ah_attr.grh.traffic_class;
}

}  // namespace verbena::verbs
