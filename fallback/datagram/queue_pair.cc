// SPDX-License-Identifier: Apache-2.0
#include "fallback/datagram/queue_pair.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "fallback/engine/guarded_copy.h"
#include "transport/state_table.h"

namespace verbena::datagram {

using engine::Translation;

QueuePair::QueuePair(const Config& config)
    : config_(config),
      sq_(config.limits.max_send_wr, config.limits.max_send_sge, config.limits.max_inline),
      frames_(new Frame[kBatch]),
      own_receives_(config.shared_receives != nullptr
                        ? nullptr
                        : std::make_unique<engine::ReceiveQueue>(config.limits.max_receive_wr,
                                                                 config.limits.max_receive_sge)),
      receives_(config.shared_receives != nullptr ? config.shared_receives : own_receives_.get()) {}

// --- sends

// Memory that may vanish (a mapped file) is not what a system call is given: one bad page would
// cost the other packets of the call.
int QueuePair::Pieces(uint64_t position, Frame* frame) {
  const Entry& e = sq_.at(position);
  int count = 1;
  if (e.is_inline) {
    frame->pieces[count++] = {sq_.inline_data(position), e.length};
    return count;
  }
  const Sge* sge = sq_.sges(position);
  for (uint32_t i = 0; i < e.sge_count; ++i, ++sge) {
    if (sge->length == 0) continue;
    const Translation t = config_.keys->Check({.key = sge->key,
                                               .domain = config_.domain,
                                               .queue_pair = config_.number,
                                               .needed = Access::kLocalRead,
                                               .address = sge->address,
                                               .length = sge->length},
                                              &source_region_);
    if (!t.ok()) return -1;
    if (t.region->guarded && !engine::GuardedProbe(t.host, sge->length)) return -1;
    frame->pieces[count++] = {t.host, sge->length};
  }
  return count;
}

std::span<const Parcel> QueuePair::Gather() {
  if (state() != QpState::kRts) return {};
  size_t n = 0;
  for (uint64_t at = sq_.head(); at != sq_.tail() && n < kBatch; ++at, ++n) {
    const Entry& e = sq_.at(at);
    Frame& frame = frames_[n];
    const int count = Pieces(at, &frame);
    if (count < 0) {
      if (n == 0) FailSend();
      break;  // once those before it have gone
    }
    wire::Datagram d;
    d.source = config_.number;
    d.destination = e.to.group ? kGroupNumber : e.qp_number;
    // Only a queue pair may own a Q_Key with the highest bit, a "controlled" one (IBTA 3.5.3).
    d.qkey = (e.qkey & kOwnQkey) != 0 ? qkey_.load(std::memory_order_relaxed) : e.qkey;
    if (e.has_immediate) d.immediate = e.immediate;
    d.solicited = e.solicited;
    frame.header = wire::EncodeDatagram(d);
    frame.pieces[0] = {&frame.header, sizeof(frame.header)};
    parcels_[n] = {.to = e.to,
                   .port = e.to.group ? kGroupPort : PortOf(e.qp_number),
                   .pieces = std::span(frame.pieces).first(static_cast<size_t>(count))};
  }
  return std::span(parcels_).first(n);
}

void QueuePair::Sent(size_t parcels) {
  for (; parcels > 0; --parcels) {
    const uint64_t head = sq_.head();
    Complete(sq_.at(head), WcStatus::kSuccess);
    sq_.Retire(head + 1);
  }
}

void QueuePair::Complete(const Entry& e, WcStatus status) {
  send_completions_.Add();
  if (!e.signaled && status == WcStatus::kSuccess) return;
  WorkCompletion wc;
  wc.id = e.id;
  wc.status = status;
  wc.opcode = WcOpcode::kSend;
  wc.qp_number = config_.number;
  // The caller retires it next: its place is free when the program has polled it.
  const uint64_t position = sq_.head() + 1;
  signaled_.store(position, std::memory_order_release);
  config_.send_ring->Push(wc, false, &polled_, position);
}

// IBTA 10.3.1.6: the send queue stops, and the receive queue goes on.
void QueuePair::FailSend() {
  SetCause(absl::InvalidArgumentError(
      absl::StrCat("qp 0x", absl::Hex(config_.number),
                   ": a send names local memory that its key does not allow to read. Modify it to "
                   "RTS to go on")));
  SetState(QpState::kSqe);
  const uint64_t head = sq_.head();
  Complete(sq_.at(head), WcStatus::kLocalProtectionError);
  sq_.Retire(head + 1);
  FlushSends();
}

void QueuePair::CountSendCall(size_t bytes) {
  send_calls_.Add();
  bytes_sent_.Add(bytes);
}

// --- receives

void QueuePair::Received(std::span<const std::byte> packet, const wire::PacketFacts& facts,
                         bool to_group) {
  bytes_received_.Add(packet.size());
  const QpState state = this->state();
  const bool receives = state == QpState::kRtr || state == QpState::kRts ||
                        state == QpState::kSqd || state == QpState::kSqe;
  const std::optional<wire::Datagram> d = wire::DecodeDatagram(packet);
  if (!receives || !d || d->destination != (to_group ? kGroupNumber : config_.number)) {
    return dropped_other_.Add();
  }
  if (d->qkey != qkey_.load(std::memory_order_relaxed)) return dropped_qkey_.Add();
  const std::span<const std::byte> payload = packet.subspan(sizeof(wire::DatagramHeader));
  const auto length = static_cast<uint32_t>(wire::kGrhSize + payload.size());
  if (!TakeReceive(length)) return dropped_no_receive_.Add();
  if (!Scatter(wire::MakeGrh(facts), payload)) {
    SetState(QpState::kErr);  // who sees the completion may ask for the state at once
    FailReceive(WcStatus::kLocalProtectionError);
    return EnterError(absl::InvalidArgumentError(
        "a receive names local memory that its key does not allow to write"));
  }
  WorkCompletion wc;
  wc.opcode = WcOpcode::kReceive;
  wc.length = length;
  wc.has_grh = true;
  wc.source_qp = d->source;
  wc.has_immediate = d->immediate.has_value();
  wc.immediate_or_key = d->immediate.value_or(0);
  CompleteReceive(wc, d->solicited);
}

bool QueuePair::TakeReceive(uint32_t length) {
  bool limit = false;
  const auto taken = receives_->TakeFor(length, &current_, &limit);
  if (limit) config_.surroundings->OnSharedLimit();
  return taken == engine::ReceiveQueue::Taken::kYes;
}

bool QueuePair::Scatter(std::span<const std::byte> grh, std::span<const std::byte> payload) {
  for (uint32_t i = 0; i < current_.sge_count && !(grh.empty() && payload.empty()); ++i) {
    const Sge& sge = current_.sges[i];
    uint64_t room = std::min<uint64_t>(sge.length, grh.size() + payload.size());
    if (room == 0) continue;
    const Translation t = config_.keys->Check({.key = sge.key,
                                               .domain = config_.receive_domain,
                                               .queue_pair = config_.number,
                                               .needed = Access::kLocalWrite,
                                               .address = sge.address,
                                               .length = room},
                                              &target_region_);
    if (!t.ok()) return false;
    std::byte* to = t.host;
    for (std::span<const std::byte>* from : {&grh, &payload}) {
      const size_t n = std::min<size_t>(room, from->size());
      if (n == 0) continue;
      if (t.region->guarded) {
        if (!engine::GuardedWrite(to, from->data(), n)) return false;
      } else {
        std::memcpy(to, from->data(), n);
      }
      to += n;
      room -= n;
      *from = from->subspan(n);
    }
  }
  return true;
}

void QueuePair::CompleteReceive(WorkCompletion& wc, bool solicited) {
  wc.id = current_.id;
  wc.qp_number = config_.number;
  receive_completions_.Add();
  config_.receive_ring->Push(wc, solicited);
}

void QueuePair::FailReceive(WcStatus status) {
  WorkCompletion wc;
  wc.opcode = WcOpcode::kReceive;
  wc.status = status;
  CompleteReceive(wc, true);
}

// --- states

absl::Status QueuePair::Modify(const QpModify& change) {
  const QpState from = state();
  const QpState to = change.state.value_or(from);
  if (absl::Status s = provider::CheckModify(from, change, QpType::kUd); !s.ok()) return s;
  if (change.qkey) qkey_.store(*change.qkey, std::memory_order_relaxed);
  if (to == from) return absl::OkStatus();
  switch (to) {
    case QpState::kErr:
      EnterError(absl::OkStatus());
      break;
    case QpState::kReset:
      Reset();
      break;
    case QpState::kSqd:
      SetState(to);
      ReportDrained();  // nothing is ever half sent
      break;
    case QpState::kRts:
      SetCause(absl::OkStatus());  // of an SQE that is over
      drained_reported_.store(false, std::memory_order_relaxed);
      SetState(to);
      break;
    default:
      SetState(to);
  }
  return absl::OkStatus();
}

void QueuePair::ReportDrained() {
  drained_reported_.store(true, std::memory_order_relaxed);
  config_.surroundings->OnEvent(EventType::kSendQueueDrained, absl::OkStatus());
}

void QueuePair::Fail(const absl::Status& why) {
  config_.surroundings->OnEvent(EventType::kQpFatal, why);
  EnterError(why);
}

void QueuePair::EnterError(const absl::Status& why) {
  SetCause(why);
  SetState(QpState::kErr);
  FlushPosted();
  if (config_.shared_receives != nullptr) {
    config_.surroundings->OnEvent(EventType::kLastWqeReached, absl::OkStatus());
  }
}

void QueuePair::FlushPosted() {
  const QpState now = state();
  if (now != QpState::kErr && now != QpState::kSqe) return;
  FlushSends();
  if (now == QpState::kErr) FlushReceives();
}

void QueuePair::FlushSends() {
  for (uint64_t head = sq_.head(); head != sq_.tail(); ++head) {
    Complete(sq_.at(head), WcStatus::kFlushed);
    sq_.Retire(head + 1);
  }
}

void QueuePair::FlushReceives() {
  if (own_receives_ == nullptr) return;
  bool limit = false;
  while (own_receives_->Take(&current_, &limit)) FailReceive(WcStatus::kFlushed);
}

// No completion is made: RESET forgets (IBTA 10.3.1).
void QueuePair::Reset() {
  SetState(QpState::kReset);
  sq_.Retire(sq_.tail());
  if (own_receives_ != nullptr) own_receives_->Clear();
  signaled_.store(sq_.tail(), std::memory_order_release);
  polled_.store(sq_.tail(), std::memory_order_release);
  config_.send_ring->Forget(config_.number);
  config_.receive_ring->Forget(config_.number);
  qkey_.store(0, std::memory_order_relaxed);
  drained_reported_.store(false, std::memory_order_relaxed);
  SetCause(absl::OkStatus());
}

void QueuePair::SetCause(const absl::Status& why) {
  std::lock_guard lock(cause_lock_);
  cause_ = why;
}

absl::Status QueuePair::cause() const {
  std::lock_guard lock(cause_lock_);
  return cause_;
}

QpAttributes QueuePair::Query() const {
  QpAttributes out;
  out.state = state();
  out.type = QpType::kUd;
  out.limits = config_.limits;
  out.qp_number = config_.number;
  out.qkey = qkey_.load(std::memory_order_relaxed);
  out.send_outstanding = static_cast<uint32_t>(outstanding());
  out.draining = out.state == QpState::kSqd && !drained_reported_.load(std::memory_order_relaxed);
  return out;
}

QpCounters QueuePair::counters() const {
  QpCounters c;
  c.sends_posted = sends_posted_.load(std::memory_order_relaxed);
  c.receives_posted = own_receives_ != nullptr ? own_receives_->counters().posted : 0;
  c.send_completions = send_completions_;
  c.receive_completions = receive_completions_;
  c.bytes_sent = bytes_sent_;
  c.bytes_received = bytes_received_;
  c.send_calls = send_calls_;
  c.receive_calls = receive_calls_;
  c.dropped_no_receive = dropped_no_receive_;
  c.dropped_qkey = dropped_qkey_;
  c.dropped_other = dropped_other_;
  return c;
}

}  // namespace verbena::datagram
