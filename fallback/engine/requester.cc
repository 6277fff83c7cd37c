// SPDX-License-Identifier: Apache-2.0
// What the peer says about our requests: applied, answered, refused for now, failed.
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fallback/engine/guarded_copy.h"
#include "fallback/engine/queue_pair.h"

namespace verbena::engine {

using wire::RsnBefore;

namespace {

constexpr const char* kOtherSink = "a read response to another key than the request named";
constexpr const char* kOtherBytes = "a read response with other bytes than were asked for";

WcStatus StatusOf(wire::NakCode code) {
  switch (code) {
    case wire::NakCode::kRemoteAccess:
      return WcStatus::kRemoteAccessError;
    case wire::NakCode::kRemoteOperation:
      return WcStatus::kRemoteOperationError;
    default:
      return WcStatus::kRemoteInvalidRequest;
  }
}

// A Terminate names a layer's error, not a request (RFC 5040 4.8).
WcStatus StatusOf(const wire::TerminateError& e) {
  if (e == wire::error::kNoBuffer) return WcStatus::kRnrRetryExceeded;
  if (e.layer == wire::kLayerMpa) return WcStatus::kRetryExceeded;
  const bool access = (e.layer == wire::kLayerRdmap && e.type == wire::kRemoteProtection) ||
                      (e.layer == wire::kLayerDdp && e.type == wire::kTaggedBuffer);
  if (access) return WcStatus::kRemoteAccessError;
  const bool request = e.layer == wire::kLayerDdp && e.type == wire::kUntaggedBuffer;
  return request ? WcStatus::kRemoteInvalidRequest : WcStatus::kRemoteOperationError;
}

}  // namespace

bool QueuePair::IsDone(const SendEntry& e) const {
  return IsLocal(e.opcode) || IsRead(e.opcode) ? e.done : !RsnBefore(acked_rsn_, e.rsn);
}

// Completions come in posting order, whatever the order of the answers.
void QueuePair::Retire() {
  uint64_t head = sq_.head();
  while (head != cursor_ && IsDone(sq_.at(head))) {
    Complete(sq_.at(head), WcStatus::kSuccess);
    sq_.Retire(++head);
  }
  if (state() == QpState::kSqd && head >= begun_ && !cursor_started_ && !drained_reported_) {
    drained_reported_ = true;
    config_.observer->OnEvent(EventType::kSendQueueDrained, absl::OkStatus());
  }
}

void QueuePair::Complete(SendEntry& e, WcStatus status, uint32_t vendor_error) {
  count_.send_completions.Add();
  if (e.opcode == Opcode::kBindWindow) {
    e.window->pending.fetch_sub(1);
    e.region->pending.fetch_sub(1);
  }
  if (!e.signaled && status == WcStatus::kSuccess) return;
  WorkCompletion wc;
  wc.id = e.id;
  wc.status = status;
  wc.opcode = CompletionOf(e.opcode);
  wc.length = IsRead(e.opcode) ? e.length : 0;
  wc.qp_number = config_.number;
  wc.vendor_error = vendor_error;
  // The caller retires it next: its place is free when the program has polled it.
  const uint64_t position = sq_.head() + 1;
  signaled_.store(position, std::memory_order_release);
  config_.send_ring->Push(wc, false, &polled_, position);
}

// A completion gives the request's memory back to the program, so its last byte must have left:
// else a peer that reads nothing and acknowledges everything is sent what the program put there
// next. And what a failed send call has left here was not applied, whatever the peer says.
bool QueuePair::HasLeft(uint32_t rsn) {
  if (batch_.empty() && !send_dead_) return true;
  for (uint64_t position = sq_.head(); position != cursor_; ++position) {
    const SendEntry& e = sq_.at(position);
    if (!IsLocal(e.opcode) && e.rsn == rsn) return e.end <= left_;
  }
  return true;
}

bool QueuePair::HandleAck(uint32_t rsn) {
  const uint32_t end = next_rsn_ - (cursor_started_ ? 1 : 0);  // first request not fully framed
  if (RsnBefore(rsn, acked_rsn_) || !RsnBefore(rsn, end) || (rsn != acked_rsn_ && !HasLeft(rsn))) {
    ProtocolFault({"an acknowledgement of a request that was not sent", wire::error::kUnspecified});
    return false;
  }
  if (rsn != acked_rsn_) rnr_.left = rnr_retry_;  // progress
  acked_rsn_ = rsn;
  if (rnr_.probing && !RsnBefore(rsn, rnr_.rsn)) rnr_.probing = false;
  return true;
}

void QueuePair::HandleRnrNak(const wire::Control& control, Nanos now) {
  const uint32_t n = control.rsn;
  uint64_t position = sq_.head();
  const uint64_t end = cursor_ + (cursor_started_ ? 1 : 0);
  for (; position != end; ++position) {
    const SendEntry& e = sq_.at(position);
    if (!IsLocal(e.opcode) && e.rsn == n) break;
  }
  const bool takes_receive = position != end && (IsSend(sq_.at(position).opcode) ||
                                                 sq_.at(position).opcode == Opcode::kWriteWithImm);
  if (!takes_receive || RsnBefore(n, acked_rsn_ + 1) || rnr_.waiting) {
    ProtocolFault({"a request refused that takes no receive", wire::error::kUnspecified});
    return;
  }
  count_.rnr_naks_received.Add();
  if (n - 1 != acked_rsn_ && !HandleAck(n - 1)) return;  // all before it were applied
  Rewind(position);
  rnr_.probing = rnr_.resume_owed = false;
  if (rnr_.left == 0) {
    // It fails when it is the oldest: reads before it may still be answered.
    sq_.at(position).failure = WcStatus::kRnrRetryExceeded;
    return;
  }
  if (rnr_.left != 7) --rnr_.left;
  rnr_.waiting = true;
  rnr_.rsn = n;
  rnr_.deadline = now + Nanos{wire::RnrTimerUs(control.value)} * 1000;
}

// Everything from `position` on was dropped by the peer, and is to be sent again.
void QueuePair::Rewind(uint64_t position) {
  const SendEntry& e = sq_.at(position);
  cursor_ = position;
  cursor_started_ = cursor_immediate_ = false;
  cursor_offset_ = 0;
  next_rsn_ = e.rsn;
  send_msn_ = e.send_msn;
  read_msn_ = e.read_msn;
  while (orq_.count > 0 && orq_.at(orq_.count - 1).position >= position) --orq_.count;
}

void QueuePair::Tick(Nanos now) {
  if (rnr_.waiting && now >= rnr_.deadline) {
    rnr_.waiting = false;
    rnr_.deadline = kNever;
    rnr_.resume_owed = true;
  }
}

void QueuePair::HandleNak(const wire::Control& control, absl::string_view text) {
  const uint32_t end = next_rsn_ - (cursor_started_ ? 1 : 0);
  if (RsnBefore(acked_rsn_, control.rsn - 1) && RsnBefore(control.rsn - 1, end)) {
    if (!HandleAck(control.rsn - 1)) return;
    Retire();
  }
  const uint64_t id = sq_.head() != sq_.tail() ? sq_.at(sq_.head()).id : 0;
  FailOldest(StatusOf(control.code),
             absl::AbortedError(absl::StrCat("the peer refused request ", id, ": ",
                                             wire::NakText(control.code), text.empty() ? "" : ": ",
                                             text)));
}

// The request whose segment came back in a Terminate; null: none, or none of those without an
// answer. The header has no ULPDU_Length, and is the peer's to write: it chooses, and proves
// nothing. A read is known by what it asked for, if that came back: siw gives the number of one
// that it refuses while it answers as its size (Linux 6.1, siw_qp.c siw_send_terminate).
const SendEntry* QueuePair::Meant(const wire::Terminate& terminate) {
  const std::span<const std::byte> header = terminate.ddp_header;
  if (header.empty()) return nullptr;
  std::optional<wire::ReadRequest> asked;
  if (!terminate.read_request.empty()) {
    asked = wire::Load<wire::ReadRequest>(terminate.read_request.data());
  }
  const bool tagged = wire::IsTagged(static_cast<uint8_t>(header[0]));
  const auto word = [&](size_t at) { return uint32_t{wire::Load<wire::Be32>(&header[at])}; };
  const uint64_t offset = tagged ? uint64_t{wire::Load<wire::Be64>(&header[6])} : 0;
  const uint64_t end = cursor_ + (cursor_started_ ? 1 : 0);
  for (uint64_t position = sq_.head(); position != end; ++position) {
    const SendEntry& e = sq_.at(position);
    bool this_one;
    if (tagged) {
      this_one = e.opcode == Opcode::kWrite && e.remote_key == word(2) &&
                 offset - e.remote_address <= e.length;
    } else if (IsRead(e.opcode) && word(6) == wire::kReadRequestQueue) {
      this_one = !asked.has_value() ? e.read_msn == word(10)
                                    : !e.done && e.remote_key == asked->source_stag &&
                                          e.remote_address == asked->source_offset;
    } else {
      this_one = IsSend(e.opcode) && word(6) == wire::kSendQueue && e.send_msn == word(10);
    }
    if (this_one) return &e;
  }
  return nullptr;
}

void QueuePair::HandleTerminate(std::span<const std::byte> body) {
  const absl::StatusOr<wire::Terminate> t = wire::DecodeTerminate(body);
  if (!t.ok()) return FailOldest(WcStatus::kRemoteOperationError, t.status());
  // Peers work in order (RFC 5040 5.5): all before the one that it means was applied. Verbena ends
  // have said so in a NAK.
  if (const SendEntry* e = session_.confirm ? Meant(*t) : nullptr;
      e != nullptr && wire::RsnBefore(acked_rsn_, e->rsn - 1)) {
    if (!HandleAck(e->rsn - 1)) return;
    Retire();
  }
  FailOldest(StatusOf(t->error),
             absl::AbortedError(absl::StrCat(
                 "the peer terminated the stream: ", wire::TerminateText(t->error),
                 t->ambiguous ? " (or: " : "", t->ambiguous ? wire::TerminateText(t->other) : "",
                 t->ambiguous ? ")" : "")));
}

// Fails the read or atomic that is being answered. That it is answered proves that everything
// before it was applied.
void QueuePair::FailRead(WcStatus status, const absl::Status& why) {
  if (orq_.count > 0 && !orq_.front().confirms) {
    const uint32_t before = sq_.at(orq_.front().position).rsn - 1;
    if (RsnBefore(acked_rsn_, before) && !HandleAck(before)) return;
  }
  FailOldest(status, why);
}

// What is not the answer that was asked for: the request fails, and the peer is told (RFC 5040 7.1,
// RFC 5041 7.1).
void QueuePair::RefuseAnswer(wire::TerminateError error, const char* why) {
  std::vector<std::byte> segment = SegmentToBlame();
  FailRead(WcStatus::kBadResponse, absl::DataLossError(why));
  if (nak_.owed) return;  // it was no answer to what had left, even
  nak_.owed = true;
  nak_.rsn = applied_rsn_ + 1;
  nak_.code = wire::NakCode::kProtocol;
  nak_.error = error;
  nak_.text = why;
  nak_.segment = std::move(segment);
}

// The answer to a read that stands in for an acknowledgement: small, and its bytes are nobody's.
bool QueuePair::TakeConfirmation(const wire::TaggedHeader& h) {
  const OutboundRead& out = orq_.front();
  const uint32_t payload = wire::PayloadSize(h);
  const uint32_t asked = session_.lent.has_value() ? kLentSize : 0;
  // Of an answer without bytes STag and offset are not looked at (RFC 5041 5.2).
  if (asked > 0 && h.stag != out.sink) {
    RefuseAnswer(wire::error::kStag, kOtherSink);
    return false;
  }
  if ((asked > 0 && h.tagged_offset != 0) || (h.ddp & wire::kLast) == 0 || payload != asked) {
    RefuseAnswer(wire::error::kBounds, kOtherBytes);
    return false;
  }
  const size_t size = wire::FpduSize(sizeof(h), payload);
  if (available() < size) return false;
  if (session_.crc && !CheckCrc(input(), size)) return false;
  rx_begin_ += size;
  const uint32_t rsn = out.confirmed;
  orq_.Pop();
  return !wire::RsnBefore(acked_rsn_, rsn) || HandleAck(rsn);
}

bool QueuePair::BeginReadResponse(const wire::TaggedHeader& h) {
  if (orq_.count == 0) {
    ProtocolFault({"a read response that nobody asked for", wire::error::kStag});
    return false;
  }
  const OutboundRead& out = orq_.front();
  const SendEntry& e = sq_.at(out.position);
  const uint32_t payload = wire::PayloadSize(h);
  const bool last = (h.ddp & wire::kLast) != 0;
  // Of an answer without bytes STag and offset are not looked at (RFC 5041 5.2).
  if (e.opcode != Opcode::kRead || (e.length > 0 && h.stag != out.sink)) {
    RefuseAnswer(wire::error::kStag, kOtherSink);
    return false;
  }
  if ((e.length > 0 && h.tagged_offset != out.received) || payload > e.length - out.received ||
      last != (out.received + payload == e.length)) {
    RefuseAnswer(wire::error::kBounds, kOtherBytes);
    return false;
  }
  if (config_.hardships.poison && out.received == 0) [[unlikely]] {
    Poison(sq_.sges(out.position), e.sge_count, config_.domain, 0, e.length);
  }
  segment_.address = out.received;
  return true;
}

void QueuePair::FinishReadResponse() {
  OutboundRead& out = orq_.front();
  out.received += segment_.total;
  SendEntry& e = sq_.at(out.position);
  if (out.received != e.length) return;
  // The peer works in order: whatever came before the read has been applied.
  if (RsnBefore(acked_rsn_, e.rsn) && !HandleAck(e.rsn)) return;
  e.done = true;
  orq_.Pop();
}

void QueuePair::HandleAtomicResponse(const wire::UntaggedHeader&, const std::byte* body) {
  const auto answer = wire::Load<wire::AtomicResponse>(body);
  // A read that stands for an acknowledgement has no entry.
  SendEntry* e =
      orq_.count > 0 && !orq_.front().confirms ? &sq_.at(orq_.front().position) : nullptr;
  if (e == nullptr || e->opcode == Opcode::kRead || answer.request_id != orq_.front().sink) {
    return RefuseAnswer(wire::error::kUnspecified,
                        "an answer to an atomic operation that was not asked for");
  }
  const uint64_t original = answer.original;
  const std::byte* from = reinterpret_cast<const std::byte*>(&original);
  const Sge* sge = sq_.sges(orq_.front().position);
  for (uint32_t i = 0; i < e->sge_count; ++i, ++sge) {
    if (sge->length == 0) continue;
    const Translation t = Check(sge->key, sge->address, sge->length, Access::kLocalWrite);
    if (!t.ok()) {
      FailRead(WcStatus::kLocalProtectionError,
               absl::InvalidArgumentError(
                   absl::StrCat("the buffer for an atomic's result: ", AccessFaultText(t.fault))));
      return;
    }
    if (!t.region->guarded) {
      std::memcpy(t.host, from, sge->length);
    } else if (!GuardedWrite(t.host, from, sge->length)) {
      FailRead(WcStatus::kLocalProtectionError,
               absl::DataLossError("the buffer for an atomic's result cannot be written: was its "
                                   "file truncated?"));
      return;
    }
    from += sge->length;
  }
  if (RsnBefore(acked_rsn_, e->rsn) && !HandleAck(e->rsn)) return;
  e->done = true;
  orq_.Pop();
}

}  // namespace verbena::engine
