// SPDX-License-Identifier: Apache-2.0
// States, errors, flushing, and the end of the stream.
#include <algorithm>
#include <cstring>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "fallback/engine/handshake.h"
#include "fallback/engine/queue_pair.h"
#include "transport/state_table.h"

namespace verbena::engine {

QueuePair::QueuePair(const QueuePairConfig& config)
    : config_(config),
      access_(config.access),
      sq_(config.limits.max_send_wr, config.limits.max_send_sge, config.limits.max_inline),
      own_receives_(config.shared_receives != nullptr
                        ? nullptr
                        : std::make_unique<ReceiveQueue>(config.limits.max_receive_wr,
                                                         config.limits.max_receive_sge)),
      receives_(config.shared_receives != nullptr ? config.shared_receives : own_receives_.get()) {}

void QueuePair::Connected(const Session& session) {
  if (rx_ == nullptr) rx_ = std::make_unique<std::byte[]>(kReceiveBuffer);
  session_ = session;
  SetMss(session.mss);
  if (session_.ird == 0) session_.ird = 1;
  agreed_ord_ = session_.ord;
  agreed_ird_ = session_.ird;
  // What kAcknowledge means to programs, applied at the peer, holds either way.
  active_features_.store(session.features.features | (session.confirm ? wire::kAcknowledge : 0),
                         std::memory_order_relaxed);
  has_session_.store(true, std::memory_order_release);
  connected_ = true;
  may_send_ = session.initiator && session.ready_frame == ReadyFrame::kNone;
  ready_owed_ = session.initiator && session.ready_frame != ReadyFrame::kNone;
  // From plain peers also where none was agreed on: cxgb4 sends its one in revision 1, too.
  const bool own = session.features.has(wire::kAcknowledge);
  ready_expected_ = !session.initiator && (!own || session.ready_frame != ReadyFrame::kNone);
  rnr_.left = rnr_retry_;
  SetState(QpState::kRts);
}

void QueuePair::SendFirst(std::span<const std::byte> bytes) {
  batch_.Clear();
  std::memcpy(batch_.Append(bytes.size()), bytes.data(), bytes.size());
}

void QueuePair::SetRetry(uint8_t rnr_retry, uint8_t retry_count, uint8_t timeout) {
  rnr_retry_ = rnr_.left = rnr_retry;
  retry_count_ = retry_count;
  timeout_ = timeout;
}

absl::Status QueuePair::Modify(const QpModify& change) {
  const QpState from = state();
  const QpState to = change.state.value_or(from);
  if (absl::Status s = provider::CheckModify(from, change, config_.type); !s.ok()) return s;
  if (change.access) access_ = *change.access | Access::kLocalWrite;
  if (change.min_rnr_timer) min_rnr_timer_ = *change.min_rnr_timer;
  if (change.rnr_retry) rnr_retry_ = rnr_.left = *change.rnr_retry;
  if (change.retry_count) retry_count_ = *change.retry_count;
  if (change.timeout) timeout_ = *change.timeout;
  if (to == from) return absl::OkStatus();
  switch (to) {
    case QpState::kErr:
      EnterError(absl::OkStatus(), true);
      break;
    case QpState::kReset:
      Reset();
      break;
    case QpState::kSqd:
      drained_reported_ = false;
      SetState(to);
      Retire();
      break;
    default:
      if (from == QpState::kSqe) SetCause(absl::OkStatus());
      SetState(to);
  }
  return absl::OkStatus();
}

QpAttributes QueuePair::Query() const {
  QpAttributes out;
  out.state = state();
  out.type = config_.type;
  out.limits = config_.limits;
  out.access = access_;
  out.qp_number = config_.number;
  if (!unreliable()) {
    out.min_rnr_timer = min_rnr_timer_;
    out.rnr_retry = rnr_retry_;
    out.retry_count = retry_count_;
    out.timeout = timeout_;
    out.initiator_depth = agreed_ord_;
    out.responder_resources = agreed_ird_;
  }
  out.send_outstanding = static_cast<uint32_t>(outstanding());
  out.draining = state() == QpState::kSqd && !drained_reported_;
  return out;
}

void QueuePair::Disconnect() { EnterError(absl::OkStatus(), true); }

void QueuePair::Fail(const absl::Status& why) {
  const bool first = state() != QpState::kErr;
  if (first) {
    Retire();
    SetCause(why);
    SetState(QpState::kErr);
  }
  config_.observer->OnEvent(EventType::kQpFatal, why);
  if (first) EnterError(why, true, true);
}

void QueuePair::EnterError(const absl::Status& why, bool say_bye, bool failed) {
  if (state() == QpState::kErr && !failed) return;
  if (!failed) Retire();  // what was acknowledged in the same breath is complete, not flushed
  SetCause(why);
  SetState(QpState::kErr);
  // What is flushed goes back to the application, so nothing may be sent from its memory any more.
  if (!batch_.Detach()) send_dead_ = true;
  closing_ = connected_;
  bye_owed_ = say_bye && connected_;
  segment_.kind = Segment::Kind::kNone;
  orq_ = {};
  rnr_ = {};
  Flush();
  if (connected_) config_.observer->OnEvent(EventType::kDisconnected, why);
}

void QueuePair::FailOldest(WcStatus status, const absl::Status& why) {
  if (state() == QpState::kErr) return;
  // No peer answers for a request: the connection has failed, and no one of them.
  if (unreliable()) return EnterError(why, status != WcStatus::kRetryExceeded);
  Retire();
  // Who sees the completion may ask for the cause and the state at once.
  SetCause(why);
  SetState(QpState::kErr);
  const uint64_t head = sq_.head();
  if (head != sq_.tail()) {
    Complete(sq_.at(head), status);
    sq_.Retire(head + 1);
    cursor_ = std::max(cursor_, head + 1);  // it may have failed before it was sent
  }
  EnterError(why, status != WcStatus::kRetryExceeded, true);
}

void QueuePair::Flush() {
  FlushSends();
  FlushReceives();
  if (config_.shared_receives != nullptr) {
    config_.observer->OnEvent(EventType::kLastWqeReached, absl::OkStatus());
  }
}

void QueuePair::FlushSends() {
  for (uint64_t head = sq_.head(); head != sq_.tail(); ++head) {
    Complete(sq_.at(head), WcStatus::kFlushed);
    sq_.Retire(head + 1);
  }
  cursor_ = sq_.head();
  cursor_started_ = cursor_immediate_ = false;
}

void QueuePair::FlushReceives() {
  if (receiving_) FailReceive(WcStatus::kFlushed);
  if (own_receives_ == nullptr) return;
  bool limit = false;
  while (own_receives_->Take(&current_, &limit)) FailReceive(WcStatus::kFlushed);
}

void QueuePair::FlushPosted() {
  const QpState now = state();
  if (now < QpState::kSqe) return;  // before SQE and ERR
  FlushSends();
  if (now == QpState::kErr) FlushReceives();
}

void QueuePair::ReceiveEnded(int error, Nanos) {
  if (!connected_) return;
  if (closing_) {
    finished_ = true;
    return;
  }
  if (unmanaged_) return PeerLeft();
  if (error == 0 && !session_.features.has(wire::kAcknowledge)) {
    // Its way of a goodbye (decision 0004), if it leaves neither end with half of something.
    const bool nothing_open = outstanding() == 0 && !receiving_ &&
                              segment_.kind == Segment::Kind::kNone && rx_begin_ == rx_end_;
    EnterError(nothing_open ? absl::OkStatus()
                            : absl::UnavailableError(
                                  "the peer closed the connection while something was under way"),
               false);
    return;
  }
  StreamLost(error == 0 ? "the stream ended without a goodbye" : std::strerror(error));
}

// Nothing tells what the peer did with what is outstanding: the oldest request says so, the rest is
// flushed.
void QueuePair::StreamLost(const std::string& how) {
  send_dead_ = true;
  FailOldest(WcStatus::kRetryExceeded,
             absl::UnavailableError(absl::StrCat("the peer vanished: ", how,
                                                 ". Reconnect; what was outstanding may or may not "
                                                 "have been applied")));
  batch_.Clear();
  finished_ = true;
}

void QueuePair::Start() {
  if (state() == QpState::kInit) SetState(QpState::kRts);
}

void QueuePair::PeerLost(const std::string& how) {
  if (outstanding() == 0 || state() == QpState::kErr) return;
  if (unreliable()) return SendToNobody();
  peer_left_ = false;
  StreamLost(how);
}

// IBTA has nothing like the end of a stream. What is not acknowledged waits for the timer, and
// without a request there is none: the driver's.
void QueuePair::PeerLeft() {
  if (peer_left_) return;
  Retire();  // what was acknowledged in the same breath
  batch_.Clear();
  segment_.kind = Segment::Kind::kNone;
  irq_ = {};
  rnr_ = {};
  dropping_ = rnr_nak_owed_ = false;
  peer_left_ = finished_ = true;
  if (unreliable()) SendToNobody();
}

void QueuePair::Detach() {
  connected_ = false;
  closing_ = finished_ = false;
  send_dead_ = false;
  batch_.Clear();
  direct_ = 0;
}

void QueuePair::KeepUnsent() {
  if (!batch_.Detach()) StreamLost("no memory for what is half sent");
}

std::vector<std::byte> QueuePair::TakeUnsent() {
  std::vector<std::byte> out;
  if (!batch_.Detach()) return out;  // the peer sees where it ends
  for (const iovec& v : batch_.Vectors()) {
    const std::byte* p = static_cast<const std::byte*>(v.iov_base);
    out.insert(out.end(), p, p + v.iov_len);
  }
  batch_.Clear();
  return out;
}

// The driver has taken the stream away. No completion is made: RESET forgets (IBTA 10.3.1).
void QueuePair::Reset() {
  for (uint64_t head = sq_.head(); head != sq_.tail(); ++head) {
    SendEntry& e = sq_.at(head);
    if (e.opcode == Opcode::kBindWindow) {
      e.window->pending.fetch_sub(1);
      e.region->pending.fetch_sub(1);
    }
    sq_.Retire(head + 1);
  }
  if (own_receives_ != nullptr) own_receives_->Clear();
  receiving_ = false;
  cursor_ = begun_ = sq_.tail();
  cursor_started_ = cursor_immediate_ = false;
  cursor_offset_ = 0;
  next_rsn_ = send_msn_ = read_msn_ = 1;
  acked_rsn_ = asked_rsn_ = 0;
  orq_ = {};
  irq_ = {};
  rnr_ = {};
  drained_reported_ = false;
  applied_rsn_ = told_rsn_ = applied_since_ack_ = 0;
  bytes_since_ack_ = 0;
  ack_owed_ = false;
  expected_send_msn_ = expected_read_msn_ = atomic_msn_ = 1;
  send_offset_ = write_bytes_ = 0;
  immediate_pending_ = dropping_ = rnr_nak_owed_ = ready_said_ = false;
  nak_ = {};
  bye_owed_ = peer_said_bye_ = false;
  unmanaged_ = peer_left_ = false;
  ready_owed_ = ready_expected_ = ready_read_ = ready_answer_ = may_send_ = false;
  rx_begin_ = rx_end_ = 0;
  segment_.kind = Segment::Kind::kNone;
  signaled_.store(sq_.tail(), std::memory_order_release);
  polled_.store(sq_.tail(), std::memory_order_release);
  agreed_ord_ = 0;
  agreed_ird_ = 0;
  // Not polled yet, and of no use any more: they would free places in the queue of the next
  // connection.
  config_.send_ring->Forget(config_.number);
  config_.receive_ring->Forget(config_.number);
  has_session_.store(false, std::memory_order_release);
  SetCause(absl::OkStatus());
  Detach();
  SetState(QpState::kReset);
}

void QueuePair::SetCause(const absl::Status& why) {
  std::lock_guard lock(cause_lock_);
  cause_ = why;
}

absl::Status QueuePair::cause() const {
  std::lock_guard lock(cause_lock_);
  return cause_;
}

Capabilities QueuePair::capabilities() const {
  const uint32_t f = has_session_.load(std::memory_order_acquire)
                         ? active_features_.load(std::memory_order_relaxed)
                         : FeaturesOf(config_.type);
  Capabilities c;
  c.immediate = (f & wire::kImmediate) != 0;
  c.atomics = (f & wire::kAtomics) != 0;
  c.global_atomics = c.atomics && !config_.hardships.device_atomics;
  c.rnr = (f & wire::kRnr) != 0;
  // Of an unreliable connection it says that the peer is through with a message, applied or not.
  c.remote_completion = (f & wire::kAcknowledge) != 0 && !unreliable();
  c.send_with_invalidate = c.refusal_reasons = !unreliable();
  c.unreliable_connection = unreliable();
  c.memory_windows = c.unguessable_keys = true;
  c.lazy_registration = c.peer_counters = c.responder_events = c.own_peer_known = true;
  c.out_of_band = c.out_of_band_handshake = true;
  c.queue_pair_rights = c.traffic_class = true;
  return c;
}

QpCounters QueuePair::counters() const {
  QpCounters c;
  c.sends_posted = sends_posted_.load(std::memory_order_relaxed);
  c.receives_posted = own_receives_ != nullptr ? own_receives_->counters().posted : 0;
  c.send_completions = count_.send_completions;
  c.receive_completions = count_.receive_completions;
  c.bytes_sent = count_.bytes_sent;
  c.bytes_received = count_.bytes_received;
  c.send_calls = count_.send_calls;
  c.receive_calls = count_.receive_calls;
  c.acks_sent = count_.acks_sent;
  c.acks_received = count_.acks_received;
  c.rnr_naks_sent = count_.rnr_naks_sent;
  c.rnr_naks_received = count_.rnr_naks_received;
  c.remote_reads = count_.remote_reads;
  c.remote_writes = count_.remote_writes;
  c.remote_atomics = count_.remote_atomics;
  c.protection_errors = count_.protection_errors;
  c.dropped_no_receive = count_.dropped_no_receive;
  c.dropped_other = count_.dropped_other;
  return c;
}

}  // namespace verbena::engine
