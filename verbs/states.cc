// SPDX-License-Identifier: Apache-2.0
// The states of a queue pair: what the application asks for, and what the device reports.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "transport/state_table.h"
#include "verbs/queue_pair.h"

namespace verbena::verbs {
namespace {

// The flush of a queue pair that dies: a shared receive queue's end, and other queues'.
constexpr absl::Duration kSharedFlushTime = absl::Milliseconds(100);
constexpr absl::Duration kFlushTime = absl::Milliseconds(20);
constexpr absl::Duration kLookAgain = absl::Milliseconds(1);

QpState StateOf(ibv_qp_state state) {
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
    case IBV_QPS_SQE:
      return QpState::kSqe;
    default:
      return QpState::kErr;
  }
}

}  // namespace

int QueuePair::ModifyDevice(ibv_qp_attr& attributes, int mask) const {
  return Lib().modify_qp(qp_, &attributes, mask);
}

void QueuePair::SetState(QpState state) {
  state_ = state;
  const bool short_ways = state == QpState::kRts && iwarp_ == nullptr && type_ != QpType::kUd;
  uint8_t may = 0;
  switch (state) {
    case QpState::kReset:
      break;
    case QpState::kInit:
    case QpState::kRtr:
      may = kReceives;
      break;
    case QpState::kRts:
    case QpState::kSqd:
      may = kReceives | kSends;
      if (short_ways && srq_ == nullptr) may |= kShort;
      break;
    case QpState::kSqe:
    case QpState::kErr:
      may = kReceives | kSends | kFlushes;
      break;
  }
  if (iwarp_ != nullptr &&
      (state == QpState::kSqd || state == QpState::kErr || iwarp_->waiting())) {
    may |= kKeeps;
  }
  OpenShortWay(short_ways);
  SetMayPost(may);
}

void QueuePair::SetMayPost(uint8_t may) {
  may_post_.store(may, std::memory_order_release);
  if (iwarp_ == nullptr) return;
  // Behind this nobody is between a look at the former one and the post.
  const std::lock_guard sends(send_turn_), receives(receive_turn_);
  ForgetShortWays();
}

absl::Status QueuePair::ToInit() {
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_INIT;
  attributes.pkey_index = 0;
  attributes.port_num = device_->port();
  const int own = FillInit(&attributes);
  const int error = ModifyDevice(attributes, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | own);
  if (error != 0) {
    errno = error;
    return ErrnoStatus(error, absl::StrCat("modify ", Name(), " to INIT"),
                       "Is the device's port still there?");
  }
  SetState(QpState::kInit);
  return absl::OkStatus();
}

int QueuePair::FillInit(ibv_qp_attr* attributes) const {
  attributes->qp_access_flags =
      static_cast<unsigned>(AccessFlags(access_ | Access::kLocalWrite, capabilities_));
  return IBV_QP_ACCESS_FLAGS;
}

// Without passing ERR, which would flush: RESET makes no completions (IBTA 10.3.1.1). A device that
// does not take RESET while it drains has to; what it flushes then is void.
absl::Status QueuePair::ToReset() {
  device_->service().Forget(this);
  SayGoodbye();
  if (phase_ == Phase::kConnected || phase_ == Phase::kAccepting) Part();
  DropId();
  phase_ = Phase::kIdle;
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RESET;
  if (iwarp_ != nullptr) SetMayPost(0);  // the device's queue pair goes
  int error = iwarp_ != nullptr ? Remake() : ModifyDevice(attributes, IBV_QP_STATE);
  if (error != 0 && state_ != QpState::kErr && iwarp_ == nullptr) {
    attributes.qp_state = IBV_QPS_ERR;
    (void)ModifyDevice(attributes, IBV_QP_STATE);
    attributes.qp_state = IBV_QPS_RESET;
    error = ModifyDevice(attributes, IBV_QP_STATE);
  }
  if (error != 0) {
    SetState(state_);
    EnterError(absl::OkStatus());
    return ErrnoStatus(error, absl::StrCat("modify ", Name(), " to RESET"),
                       "Close it and make a new one.");
  }
  send_ledger_->Clear();
  receive_ledger_->Clear();
  SetState(QpState::kReset);
  cause_ = absl::OkStatus();
  outcome_ = {};
  asked_ = parted_ = drained_ = resuming_ = last_wqe_told_ = false;
  initiator_depth_ = responder_resources_ = 0;
  contact_.reset();
  return absl::OkStatus();
}

absl::Status QueuePair::Modify(const QpModify& change) {
  absl::Status result;
  {
    const std::lock_guard lock(device_->service().mutex());
    if (result = provider::CheckModify(state_, change, type_); !result.ok()) return result;
    if (change.state != QpState::kReset) result = Apply(change);
  }
  if (change.state == QpState::kReset) {
    LeaveSharedQueue();
    {
      const std::lock_guard lock(device_->service().mutex());
      result = Apply(change);
    }
    send_cq_->DropVoid();
    receive_cq_->DropVoid();
    if (srq_ != nullptr) receive_cq_->DropShared(number_);
  }
  device_->service().Changed();
  return result;
}

absl::Status QueuePair::Apply(const QpModify& change) {
  const QpState to = change.state.value_or(state_);
  if (to == QpState::kErr) {
    // Linux has no way from RESET to ERR (ib_modify_qp_is_ok), which IBTA 10.3.1 has.
    if (state_ == QpState::kReset) {
      if (absl::Status s = ToInit(); !s.ok()) return s;
    }
    asked_ = true;
    EnterError(absl::OkStatus());
    return absl::OkStatus();
  }
  return to == QpState::kReset ? ToReset() : Move(to, change);
}

absl::Status QueuePair::Move(QpState to, const QpModify& change) {
  const Access former = access_;
  if (change.access) access_ = *change.access | Access::kLocalWrite;
  ibv_qp_attr attributes{};
  int mask = 0;
  if (to == QpState::kInit) {
    if (absl::Status s = ToInit(); !s.ok()) {
      access_ = former;
      return s;
    }
  } else {
    const auto set = [&mask](bool wanted, int bit) { mask |= wanted ? bit : 0; };
    attributes.qp_access_flags = static_cast<unsigned>(AccessFlags(access_, capabilities_));
    attributes.min_rnr_timer = change.min_rnr_timer.value_or(0);
    attributes.rnr_retry = change.rnr_retry.value_or(0);
    attributes.retry_cnt = change.retry_count.value_or(0);
    attributes.timeout = change.timeout.value_or(0);
    set(change.access.has_value(), IBV_QP_ACCESS_FLAGS);
    set(change.min_rnr_timer.has_value(), IBV_QP_MIN_RNR_TIMER);
    set(change.rnr_retry.has_value(), IBV_QP_RNR_RETRY);
    set(change.retry_count.has_value(), IBV_QP_RETRY_CNT);
    set(change.timeout.has_value(), IBV_QP_TIMEOUT);
    int error = mask != 0 ? ModifyDevice(attributes, mask) : 0;
    if (error == 0 && to != state_) error = to == QpState::kSqd ? ToSqd() : ToRts();
    if (error != 0) {
      access_ = former;
      return ErrnoStatus(error, absl::StrCat("modify ", Name(), " in state ", QpStateName(state_)),
                         "The device does not take this change; make a new connection instead.");
    }
    SetState(to);
  }
  min_rnr_timer_ = change.min_rnr_timer.value_or(min_rnr_timer_);
  rnr_retry_ = change.rnr_retry.value_or(rnr_retry_);
  retry_count_ = change.retry_count.value_or(retry_count_);
  timeout_ = change.timeout.value_or(timeout_);
  return absl::OkStatus();
}

int QueuePair::ToSqd() {
  if (iwarp_ != nullptr) return HoldSends();
  int error = 0;
  if (!std::exchange(resuming_, false)) {  // else the device has not left it yet
    ibv_qp_attr attributes{};
    attributes.qp_state = IBV_QPS_SQD;
    attributes.en_sqd_async_notify = 1;
    error = ModifyDevice(attributes, IBV_QP_STATE | IBV_QP_EN_SQD_ASYNC_NOTIFY);
  }
  if (error == 0) {
    drained_ = false;
    LookAgain();
  }
  return error;
}

// A device may refuse to leave SQD before it has drained; then it leaves when it has.
int QueuePair::ToRts() {
  if (iwarp_ != nullptr) return ReleaseSends();
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RTS;
  int error = ModifyDevice(attributes, IBV_QP_STATE);
  resuming_ = error != 0 && Draining();
  if (error != 0 && !resuming_) error = ModifyDevice(attributes, IBV_QP_STATE);  // it has by now
  if (resuming_) LookAgain();
  if (error == 0 && send_ledger_->outstanding() > 0) RingDoorbell();
  return resuming_ ? 0 : error;
}

// The device's word: an event of a former SQD may have been read only now.
bool QueuePair::Draining() const {
  ibv_qp_attr attributes{};
  ibv_qp_init_attr unused{};
  return Lib().query_qp(qp_, &attributes, IBV_QP_STATE, &unused) == 0 &&
         StateOf(attributes.qp_state) == QpState::kSqd && attributes.sq_draining != 0;
}

// Soft-RoCE's completer compares sequence numbers before it counts the last acknowledgement
// (Linux 6.1 rxe_comp.c complete_ack), so it is the requester that finds the queue drained, and
// only a doorbell runs it.
void QueuePair::LookAgain() {
  if (device_->software()) device_->service().SetDeadline(this, kLookAgain);
}

void QueuePair::LookWhetherDrained() {
  if (drained_) return;
  RingDoorbell();
  if (Draining()) return LookAgain();
  Drained();
}

void QueuePair::Drained() {
  drained_ = true;
  if (resuming_) {
    if (ToRts() != 0) FailedByDevice();
    return;
  }
  if (state_ == QpState::kSqd) PushEvent(EventType::kSendQueueDrained, absl::OkStatus());
}

QpAttributes QueuePair::Query() const {
  // What the device has completed is not outstanding, though nobody has polled it. Whoever asks
  // may be waiting for the last request, and nothing else would tell.
  if (send_ledger_->outstanding() > 0) {
    send_cq_->Pull();
    if (device_->service().anybody_waits() && send_ledger_->outstanding() > 0) {
      send_cq_->ArmForWaiters();
      send_cq_->Pull();
    }
  }
  const std::lock_guard lock(device_->service().mutex());
  if (state_ == QpState::kRts || state_ == QpState::kSqd) {
    if (DeviceState() == QpState::kErr) const_cast<QueuePair*>(this)->FailedByDevice();
  }
  QpAttributes out;
  out.state = state_;
  out.type = type_;
  out.limits = limits_;
  out.access = access_;
  out.qp_number = number_;
  out.min_rnr_timer = min_rnr_timer_;
  out.rnr_retry = rnr_retry_;
  out.retry_count = retry_count_;
  out.timeout = timeout_;
  out.traffic_class = TrafficClass();
  out.initiator_depth = initiator_depth_;
  out.responder_resources = responder_resources_;
  out.send_outstanding = static_cast<uint32_t>(send_ledger_->outstanding());
  out.draining = state_ == QpState::kSqd && !drained_;
  return out;
}

// The device goes to ERR by itself, and does not always say why.
void QueuePair::FailedByDevice() {
  EnterError(absl::UnavailableError(
      absl::StrCat(Name(),
                   ": the device put it into ERR: a request of this end failed, which its "
                   "completion explains, or one of the peer's was refused (key, bounds, "
                   "access, or invalid). Reset it or make a new one, and connect again.")));
}

QpState QueuePair::DeviceState() const {
  ibv_qp_attr attributes{};
  ibv_qp_init_attr unused{};
  const int error = Lib().query_qp(qp_, &attributes, IBV_QP_STATE, &unused);
  return error == 0 ? StateOf(attributes.qp_state) : state_;
}

void QueuePair::EnterError(const absl::Status& why) {
  if (state_ == QpState::kErr) return;
  const bool connected = phase_ == Phase::kConnected || phase_ == Phase::kAccepting;
  if (phase_ != Phase::kIdle && !connected) {
    ConnectFailed(absl::CancelledError(absl::StrCat("connect ", Name(), ": it went to ERR")));
  }
  if (cause_.ok() && !asked_) cause_ = why;
  resuming_ = false;
  SetState(QpState::kErr);
  // On iWARP the goodbye is the stream's end, and ERR would reset the stream before it.
  if (connected && device_->iwarp()) Part();
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_ERR;
  (void)ModifyDevice(attributes, IBV_QP_STATE);
  if (iwarp_ != nullptr) KeepAll(!asked_);
  const absl::Duration now = SteadyNow();
  shared_flush_by_ = now + kSharedFlushTime;
  if (connected) {
    goodbye_ = why;
    goodbye_by_ = now + kFlushTime;
  }
  device_->service().Attend(this);
  device_->service().Changed();
}

// kDisconnected comes when the flush is in the queues: some drivers only begin it with ERR. Sends
// without a completion of their own may never be known to be complete, so this has an end.
void QueuePair::FinishError() {
  const absl::Duration now = SteadyNow();
  if (goodbye_.has_value()) {
    const bool pulled = send_cq_->TryPull() && (receive_cq_ == send_cq_ || receive_cq_->TryPull());
    const bool flushed =
        pulled && send_ledger_->outstanding() == 0 && receive_ledger_->outstanding() == 0;
    if (!flushed && now < goodbye_by_) return device_->service().SetDeadline(this, kLookAgain);
    SayGoodbye();
  }
  // Not every driver says when a dying queue pair has let go of its shared receive queue
  // (IBTA 11.6.3): then it is said when the flush has had its time.
  if (srq_ == nullptr || last_wqe_told_) return;
  if (now < shared_flush_by_) return device_->service().SetDeadline(this, shared_flush_by_ - now);
  LastWqeReached();
}

void QueuePair::SayGoodbye() {
  if (!goodbye_.has_value()) return;
  PushEvent(EventType::kDisconnected, *std::exchange(goodbye_, std::nullopt));
}

void QueuePair::PushEvent(EventType type, const absl::Status& why) const {
  Event e;
  e.type = type;
  e.context = context_;
  e.qp_number = number_;
  e.status = why;
  device_->Push(this, std::move(e));
}

void QueuePair::OnAsync(ibv_event_type type) {
  switch (type) {
    case IBV_EVENT_COMM_EST:
      // The peer's confirmation may be lost, its data was not (rdma_notify(3)).
      if (phase_ == Phase::kAccepting) {
        PushEvent(EventType::kCommunicationEstablished, absl::OkStatus());
        Lib().notify(id_, IBV_EVENT_COMM_EST);
      }
      return;
    case IBV_EVENT_SQ_DRAINED:
      if (state_ == QpState::kErr || drained_ || Draining()) return;
      return Drained();
    case IBV_EVENT_QP_LAST_WQE_REACHED:
      return LastWqeReached();
    default:
      break;
  }
  const bool access = type == IBV_EVENT_QP_ACCESS_ERR, request = type == IBV_EVENT_QP_REQ_ERR;
  const absl::Status why =
      absl::UnavailableError(absl::StrCat(Name(), ": ",
                                          access    ? "the peer broke a key, bounds or access rule"
                                          : request ? "the peer sent something invalid"
                                                    : "it failed in the device",
                                          "; the connection is at its end. Connect again."));
  PushEvent(access    ? EventType::kQpAccessError
            : request ? EventType::kQpRequestError
                      : EventType::kQpFatal,
            why);
  if (state_ == QpState::kErr && cause_.ok() && !asked_) cause_ = why;  // the end came first
  EnterError(why);
}

void QueuePair::LastWqeReached() {
  if (std::exchange(last_wqe_told_, true)) return;
  PushEvent(EventType::kLastWqeReached, absl::OkStatus());
}

void QueuePair::CompletionFailed(WcStatus status, const char* what, uint32_t key) {
  const bool flushed = status == WcStatus::kFlushed;
  // On iWARP a goodbye flushes, too.
  if (state_ != QpState::kErr && flushed && iwarp_ != nullptr) return EnterError(absl::OkStatus());
  if (state_ != QpState::kErr && flushed) return FailedByDevice();
  if (flushed) return;
  // What the device flushes now was not refused by the peer.
  if (std::string_view(what) == WcOpcodeName(WcOpcode::kReceive)) send_ledger_->BlameNone();
  FailedWith(Failure(status, what, key, "reset the queue pair and connect again"));
}

absl::Status QueuePair::Failure(WcStatus status, const char* what, uint32_t key,
                                const char* remedy) const {
  std::string text = WcStatusText(status);
  if (iwarp_ != nullptr && status == WcStatus::kGeneralError) {  // Build: a read without a sink
    const absl::Status no_sink = domain_->iwarp()->why_no_sink();
    if (!no_sink.ok()) text = std::string(no_sink.message());
  }
  return absl::UnavailableError(
      absl::StrCat(Name(), ": ", what, " failed with ", WcStatusName(status),
                   key != 0 ? absl::StrCat(" (the peer's key 0x", absl::Hex(key), ")") : "", ": ",
                   absl::StripSuffix(text, "."),  // whole sentences, or a fact alone
                   ". Mend the request, ", remedy, "."));
}

void QueuePair::FailedWith(const absl::Status& why) {
  if (state_ != QpState::kErr) return EnterError(why);
  if (!asked_) cause_ = why;  // it tells more than what was known
}

void QueuePair::QueueBroken(const absl::Status& why) {
  if (state_ == QpState::kErr) return;
  PushEvent(EventType::kQpFatal, why);
  EnterError(why);
}

}  // namespace verbena::verbs
