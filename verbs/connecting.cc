// SPDX-License-Identifier: Apache-2.0
// How a queue pair gets its peer, and how it leaves: rdma_cm(7). All of it with the service's mutex
// held, most of it on the service thread.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "transport/datagram_checks.h"
#include "transport/log.h"
#include "verbs/queue_pair.h"

namespace verbena::verbs {
namespace {

// IBTA 12.6.7.2: what a REJ says. The others mean that no connection can come about here.
constexpr int kNoSuchService = 8;
constexpr int kRejectedByConsumer = 28;

absl::Status WhyRejected(const std::string& peer, int status) {
  if (status == kNoSuchService) {
    return absl::UnavailableError(
        absl::StrCat("connect ", peer,
                     ": nobody listens there. Does the peer run, on a device, and is the port "
                     "right?"));
  }
  return absl::UnavailableError(absl::StrCat("connect ", peer,
                                             ": the peer's connection manager refused (reason ",
                                             status, "). Try again in a moment."));
}

// As on TCP with a plain iWARP peer.
absl::Status NoReadsToConfirm(const std::string& what) {
  return absl::FailedPreconditionError(
      absl::StrCat(what,
                   ": this end requires completion by the peer (remote_completion), which a read "
                   "stands for on iWARP, and the peer takes no reads (its IRD is 0). Have it take "
                   "one: responder_resources"));
}

// A device pads private data with zeros; texts end before them.
std::string WithoutPadding(std::string text) {
  while (!text.empty() && text.back() == '\0') text.pop_back();
  return text;
}

}  // namespace

absl::Status QueuePair::CheckIdle(const char* what) const {
  if (type_ == QpType::kUd) return provider::HasNoPeer(what);
  return provider::CheckIdle(absl::StrCat(what, " ", Name()), state_, phase_ != Phase::kIdle);
}

// The connection manager's identifiers of RDMA_PS_TCP are of RC, whatever the queue pair is (Linux
// 6.1 ucma.c ucma_get_qp_type), and tell the peer so.
absl::Status QueuePair::CheckManaged(const char* what) const {
  if (type_ != QpType::kUc) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      what,
      ": a device's connection manager connects queue pairs of type RC, and this one is of "
      "type UC; exchange addresses: QueuePair::address, Connect"));
}

absl::Status QueuePair::CheckRequirements(const char* what, const Require& require) const {
  const char* lacks = require.atomics && !capabilities_.atomics       ? "atomics"
                      : require.immediate && !capabilities_.immediate ? "immediate data"
                      : require.rnr && !capabilities_.rnr             ? "waiting for receives (rnr)"
                      : require.remote_completion && !capabilities_.remote_completion
                          ? "completion by the peer (remote_completion)"
                          : nullptr;
  if (lacks == nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(what, ": this end requires ", lacks,
                                                    ", and device ", device_->name(),
                                                    " has none. Use another device, or TCP."));
}

absl::Status QueuePair::StartConnect(const Address& to, const ConnectParameters& parameters,
                                     const ConnectionInfo& info) {
  const DeviceAttributes limits = device_->attributes();
  if (absl::Status s = provider::CheckPrivateData("connect", parameters.private_data,
                                                  limits.private_data_connect, device_->name());
      !s.ok()) {
    return s;
  }
  if (absl::Status s = CheckManaged("connect"); !s.ok()) return s;
  if (absl::Status s = CheckRequirements("connect", parameters.require); !s.ok()) return s;
  const std::lock_guard lock(device_->service().mutex());
  if (absl::Status s = CheckIdle("connect"); !s.ok()) return s;
  DropId();
  peer_ = to;
  parameters_ = {PrivateData(parameters.private_data),
                 std::min(parameters.initiator_depth, limits.max_initiator_depth),
                 std::min(parameters.responder_resources, limits.max_responder_resources)};
  SetConfirms(parameters.require.remote_completion);
  rnr_retry_ = std::min<uint8_t>(parameters.rnr_retry, 7);
  SetTimers(parameters.timeout, parameters.retry_count);
  traffic_class_ = parameters.traffic_class;
  deadline_ = parameters.deadline;
  outcome_ = {};
  info_ = info;
  parted_ = false;
  device_->counts().connects.fetch_add(1);
  device_->service().SetDeadline(this, deadline_);
  phase_ = Phase::kAddress;
  const Library& lib = Lib();
  CmHandler* const handler = this;
  constexpr int kNoTimeoutMs = 1 << 30;  // the deadline of the whole decides
  if (lib.create_id(device_->service().channel(), &id_, handler, RDMA_PS_TCP) != 0 ||
      (traffic_class_ != 0 && lib.set_option(id_, RDMA_OPTION_ID, RDMA_OPTION_ID_TOS,
                                             &traffic_class_, sizeof traffic_class_) != 0) ||
      lib.resolve_addr(id_, nullptr, peer_.raw(), kNoTimeoutMs) != 0) {
    ConnectFailed(ErrnoStatus(errno, absl::StrCat("connect ", peer_.ToString()),
                              "Does an RDMA device reach this address?"));
  }
  return absl::OkStatus();
}

void QueuePair::OnCm(const CmEvent& event) {
  switch (event.type) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
      return AddressResolved();
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
      return RouteResolved();
    case RDMA_CM_EVENT_CONNECT_RESPONSE:
      return Responded(event);
    case RDMA_CM_EVENT_ESTABLISHED:
      if (phase_ == Phase::kConnecting) return Responded(event);  // iWARP: it is all done
      if (phase_ == Phase::kAccepting) return Established();
      return;
    case RDMA_CM_EVENT_REJECTED:
      if (phase_ == Phase::kConnecting) return Rejected(event);
      break;
    case RDMA_CM_EVENT_DISCONNECTED:
      // The peer left, or answered to our leaving: nobody's failure, unless the device had given up
      // before. Part() answers it.
      if (state_ != QpState::kErr && DeviceState() == QpState::kErr) return FailedByDevice();
      return EnterError(absl::OkStatus());
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
      return device_->Gone();
    case RDMA_CM_EVENT_TIMEWAIT_EXIT:
    case RDMA_CM_EVENT_ADDR_CHANGE:
      return;
    default:
      break;
  }
  const absl::Status why = absl::UnavailableError(
      absl::StrCat("connect ", peer_.ToString(), ": ",
                   event.status < 0 ? std::strerror(-event.status) : "the peer cannot be reached",
                   ". Is the address right, and the peer up?"));
  if (phase_ == Phase::kConnected || phase_ == Phase::kAccepting) return EnterError(why);
  if (phase_ != Phase::kIdle) ConnectFailed(why);
}

void QueuePair::AddressResolved() {
  if (phase_ != Phase::kAddress) return;
  if (id_->verbs == nullptr || device_->name() != id_->verbs->device->name) {
    return ConnectFailed(absl::UnavailableError(
        absl::StrCat("connect ", peer_.ToString(), ": the way there is no longer over device ",
                     device_->name(), ". Resolve the address again.")));
  }
  phase_ = Phase::kRoute;
  constexpr int kRouteTimeoutMs = 1 << 30;
  if (Lib().resolve_route(id_, kRouteTimeoutMs) != 0) {
    ConnectFailed(ErrnoStatus(errno, absl::StrCat("connect ", peer_.ToString(), ": no route"),
                              "Does a subnet manager run, and is the port active?"));
  }
}

rdma_conn_param QueuePair::ConnectionParameters(const Parameters& parameters) const {
  rdma_conn_param p{};
  p.private_data = parameters.private_data.data();
  p.private_data_len = static_cast<uint8_t>(parameters.private_data.size());
  p.initiator_depth = static_cast<uint8_t>(parameters.initiator_depth);
  p.responder_resources = static_cast<uint8_t>(parameters.responder_resources);
  p.flow_control = 1;
  p.retry_count = retry_count_;
  p.rnr_retry_count = rnr_retry_;
  p.srq = srq_ != nullptr ? 1 : 0;
  p.qp_num = number_;
  return p;
}

void QueuePair::RouteResolved() {
  if (phase_ != Phase::kRoute) return;
  phase_ = Phase::kConnecting;
  rdma_conn_param parameters = ConnectionParameters(parameters_);
  if (Lib().connect(id_, &parameters) != 0) {
    const int error = errno;
    ConnectFailed(error == ECONNREFUSED
                      ? WhyRejected(peer_.ToString(), kNoSuchService)
                      : ErrnoStatus(error, absl::StrCat("connect ", peer_.ToString()),
                                    "Is the peer up, and does it listen on an RDMA device?"));
  }
}

void QueuePair::SetTimers(std::optional<uint8_t> timeout, std::optional<uint8_t> retry_count) {
  path_decides_timeout_ = !timeout.has_value();
  path_decides_retries_ = !retry_count.has_value();
  timeout_ = std::min<uint8_t>(timeout.value_or(kDefaultTimeout), 31);
  retry_count_ = std::min<uint8_t>(retry_count.value_or(kDefaultRetryCount), 7);
}

// What the application has asked for, else what is there: the connection manager's, from the path
// record, the peer's acknowledgement delay and the request (IBTA 12.7.34, 12.7.38).
void QueuePair::TakeTimers(ibv_qp_attr& attributes, int mask) {
  if (path_decides_timeout_ && (mask & IBV_QP_TIMEOUT) != 0) timeout_ = attributes.timeout;
  if (path_decides_retries_ && (mask & IBV_QP_RETRY_CNT) != 0) retry_count_ = attributes.retry_cnt;
  attributes.timeout = timeout_;
  attributes.retry_cnt = retry_count_;
}

// INIT, RTR, RTS with the attributes of the route and of both ends (rdma_init_qp_attr(3)).
int QueuePair::ToReadyToSend(uint32_t initiator_depth, uint32_t responder_resources) {
  initiator_depth_ = initiator_depth;
  responder_resources_ = responder_resources;
  if (iwarp_ != nullptr) iwarp_->set_depth(initiator_depth);
  if (device_->iwarp()) return 0;  // the kernel's connection manager does it
  for (ibv_qp_state state : {IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS}) {
    ibv_qp_attr attributes{};
    int mask = 0;
    attributes.qp_state = state;
    if (Lib().init_qp_attr(id_, &attributes, &mask) != 0) return errno;
    attributes.qp_access_flags =
        static_cast<unsigned>(AccessFlags(access_ | Access::kLocalWrite, capabilities_));
    attributes.max_dest_rd_atomic = static_cast<uint8_t>(responder_resources);
    attributes.max_rd_atomic = static_cast<uint8_t>(initiator_depth);
    attributes.min_rnr_timer = min_rnr_timer_;
    TakeTimers(attributes, mask);
    attributes.rnr_retry = rnr_retry_;
    if (traffic_class_ != 0) attributes.ah_attr.grh.traffic_class = traffic_class_;
    if (const int error = ModifyDevice(attributes, mask); error != 0) return error;
  }
  return 0;
}

void QueuePair::ReadAddresses() {
  info_.local = Address::From(&id_->route.addr.src_addr).ToString();
  info_.peer = Address::From(&id_->route.addr.dst_addr).ToString();
}

void QueuePair::Responded(const CmEvent& event) {
  if (phase_ != Phase::kConnecting) return;
  // The event tells them from this end's point of view (rdma_get_cm_event(3)). But an iWARP driver
  // tells its IRD and ORD of the reply, and rdma_cm has them change places (Linux 6.1 cma.c
  // cma_iw_handler, siw_cm.c siw_cm_upcall).
  uint32_t ord = event.initiator_depth, ird = event.responder_resources;
  if (iwarp_ != nullptr) std::swap(ord, ird);
  ord = std::min(ord, parameters_.initiator_depth);
  ird = std::min(ird, parameters_.responder_resources);
  if (iwarp_ != nullptr && iwarp_->confirms() && ord == 0) {
    return ConnectFailed(NoReadsToConfirm(absl::StrCat("connect ", peer_.ToString())), true);
  }
  if (iwarp_ != nullptr) iwarp_->set_peer(event.confirmation);
  int error = ToReadyToSend(ord, ird);
  if (error == 0 && event.type == RDMA_CM_EVENT_CONNECT_RESPONSE && Lib().establish(id_) != 0) {
    error = errno;
  }
  if (error != 0) {
    return ConnectFailed(ErrnoStatus(error, absl::StrCat("connect ", peer_.ToString()),
                                     "The device refused the connection's attributes."));
  }
  device_->service().SetDeadline(this, absl::InfiniteDuration());
  ReadAddresses();
  phase_ = Phase::kConnected;
  SetState(QpState::kRts);
  ConnectDone({ConnectOutcome::Kind::kEstablished, event.private_data, absl::OkStatus()},
              EventType::kEstablished);
}

void QueuePair::Rejected(const CmEvent& event) {
  const std::string peer = peer_.ToString();
  // iWARP has one errno for all; MPA's reject bit is the consumer's (RFC 5044 7.1.2).
  if (event.status != kRejectedByConsumer && event.status >= 0) {
    return ConnectFailed(WhyRejected(peer, event.status));
  }
  const std::string said = WithoutPadding(event.private_data);
  device_->counts().rejects.fetch_add(1);
  device_->service().Forget(this);
  DropId();
  phase_ = Phase::kIdle;
  ConnectDone({ConnectOutcome::Kind::kRejected, event.private_data,
               absl::AbortedError(absl::StrCat("connect ", peer, ": the peer rejected",
                                               said.empty() ? "" : ": ", said))},
              EventType::kRejected);
}

void QueuePair::ConnectFailed(const absl::Status& why, bool lacks) {
  if (phase_ == Phase::kIdle) return;
  device_->service().Forget(this);
  DropId();
  phase_ = Phase::kIdle;
  device_->counts().handshake_failures.fetch_add(1);
  absl::Status status = why;
  if (!lacks && !absl::IsDeadlineExceeded(why) && !absl::IsCancelled(why) &&
      !absl::IsUnavailable(why)) {
    status = absl::UnavailableError(why.message());
  }
  ConnectDone({ConnectOutcome::Kind::kUnreachable, "", status}, EventType::kUnreachable);
}

void QueuePair::ConnectDone(ConnectOutcome outcome, EventType type) {
  VERBENA_LOG(kInfo, "connect", Name(), ": ", EventTypeName(type), outcome.status.ok() ? "" : ": ",
              std::string(outcome.status.message()));
  Event e;
  e.type = type;
  e.context = context_;
  e.qp_number = number_;
  e.private_data = outcome.private_data;
  e.status = outcome.status;
  outcome_ = std::move(outcome);
  device_->Push(this, std::move(e));
}

// MPA revision 1 tells no depths (RFC 5044 7.1): none is no wish for none.
bool QueuePair::TellsDepths(const CmEvent& offer) const {
  return iwarp_ == nullptr || offer.initiator_depth != 0 || offer.responder_resources != 0;
}

absl::Status QueuePair::CheckOffer(const CmEvent& offer, const Require& require) const {
  if (absl::Status s = CheckManaged("accept"); !s.ok()) return s;
  if (absl::Status s = CheckRequirements("accept", require); !s.ok()) return s;
  const bool reads = offer.initiator_depth != 0 || !TellsDepths(offer);
  if (iwarp_ != nullptr && require.remote_completion && !reads) return NoReadsToConfirm("accept");
  return absl::OkStatus();
}

absl::Status QueuePair::Accept(rdma_cm_id* id, const CmEvent& offer,
                               const AcceptParameters& parameters, const ConnectionInfo& info) {
  if (absl::Status s = CheckIdle("accept"); !s.ok()) return s;
  const bool told = TellsDepths(offer);
  DropId();
  const DeviceAttributes limits = device_->attributes();
  parameters_ = {PrivateData(parameters.private_data),
                 std::min({parameters.initiator_depth, limits.max_initiator_depth,
                           told ? uint32_t{offer.initiator_depth} : ~0u}),
                 std::min({parameters.responder_resources, limits.max_responder_resources,
                           told ? uint32_t{offer.responder_resources} : ~0u})};
  SetConfirms(parameters.require.remote_completion);
  if (iwarp_ != nullptr) iwarp_->set_peer(offer.confirmation);
  rnr_retry_ = std::min<uint8_t>(parameters.rnr_retry, 7);
  SetTimers(parameters.timeout, parameters.retry_count);
  traffic_class_ = parameters.traffic_class;
  id_ = id;
  info_ = info;
  parted_ = false;
  phase_ = Phase::kAccepting;
  int error = ToReadyToSend(parameters_.initiator_depth, parameters_.responder_resources);
  rdma_conn_param p = ConnectionParameters(parameters_);
  if (error == 0) {
    CmHandler* const handler = this;
    id_->context = handler;
    if (Lib().accept(id_, &p) != 0) error = errno;
  }
  if (error != 0) {
    id_ = nullptr;  // the request keeps it
    phase_ = Phase::kIdle;
    const absl::Status why = absl::UnavailableError(
        absl::StrCat("accept ", info.peer, ": the peer has left (", std::strerror(error), ")"));
    // Nobody is at the other end; back to where it was, receives and all, is not possible.
    EnterError(why);
    return why;
  }
  SetState(QpState::kRts);
  device_->counts().accepts.fetch_add(1);
  return absl::OkStatus();
}

void QueuePair::Established() {
  phase_ = Phase::kConnected;
  ReadAddresses();
  PushEvent(EventType::kEstablished, absl::OkStatus());
}

absl::Status QueuePair::Disconnect() {
  const std::lock_guard lock(device_->service().mutex());
  if (state_ == QpState::kErr) return absl::OkStatus();
  if (phase_ == Phase::kIdle) {
    return absl::FailedPreconditionError(
        absl::StrCat("disconnect ", Name(), ": it is not connected"));
  }
  if (phase_ == Phase::kConnected || phase_ == Phase::kAccepting) {
    asked_ = true;
    EnterError(absl::OkStatus());
  } else {
    ConnectFailed(absl::CancelledError("disconnected while connecting"));
  }
  return absl::OkStatus();
}

// The kernel waits for the identifier. The goodbye may not get out any more.
void QueuePair::DeviceGone(const absl::Status& why) {
  if (phase_ == Phase::kConnected || phase_ == Phase::kAccepting) {
    EnterError(why);
    Part();
  } else {
    ConnectFailed(why);
    EnterError(why);
  }
  DropId();
  phase_ = Phase::kIdle;
}

void QueuePair::OnAttention() {
  if (state_ != QpState::kErr) return;
  Part();
  FinishError();
}

void QueuePair::OnDeadline() {
  if (iwarp_ != nullptr && LookForHeld()) return;
  if (state_ == QpState::kErr) return FinishError();
  if (state_ == QpState::kSqd || resuming_) return LookWhetherDrained();
  if (state_ != QpState::kInit || phase_ == Phase::kIdle) return;
  ConnectFailed(absl::DeadlineExceededError(absl::StrCat(
      "connect ", peer_.ToString(), ": no answer within ", absl::FormatDuration(deadline_),
      ". Is the peer overloaded, or does a firewall drop ",
      device_->iwarp() ? absl::StrCat("TCP port ", peer_.port()) : "UDP port 4791 (RoCE v2)",
      "?")));
}

// Says goodbye, or answers the peer's: the connection manager tells which is due
// (rdma_disconnect(3)).
void QueuePair::Part() {
  if (parted_ || id_ == nullptr) return;
  parted_ = true;
  (void)Lib().disconnect(id_);
}

void QueuePair::DropId() {
  if (id_ == nullptr) return;
  Lib().destroy_id(id_);
  id_ = nullptr;
}

}  // namespace verbena::verbs
