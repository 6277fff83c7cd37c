// SPDX-License-Identifier: Apache-2.0
// What goes out: control messages first, then answers to the peer and requests of ours in turn. All
// of it is framed into one batch, which one send call takes.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "fallback/engine/queue_pair.h"
#include "fallback/wire/crc32c.h"

namespace verbena::engine {

using wire::Opcode;
using wire::RdmapByte;
using wire::TaggedHeader;
using wire::UntaggedHeader;

namespace {

// RFC 5040 4.8, Figure 10: which errors name the segment, and which a Read Request in it. Errors
// of MPA and catastrophes name none.
void Blame(std::span<const std::byte> segment, wire::Terminate* terminate) {
  const wire::TerminateError e = terminate->error;
  if (segment.empty() || e.layer == wire::kLayerMpa || e.type == wire::kRdmapCatastrophic) return;
  terminate->segment_length = wire::Load<wire::Be16>(segment.data());
  segment = segment.subspan(wire::kLengthSize);
  const size_t header = std::min<size_t>(
      segment.size(),
      wire::IsTagged(static_cast<uint8_t>(segment[0])) ? wire::kTaggedUlpdu : wire::kUntaggedUlpdu);
  terminate->ddp_header = segment.first(header);
  if (e.layer == wire::kLayerRdmap && e.type == wire::kRemoteProtection) {
    terminate->read_request = segment.subspan(header);
  }
}

}  // namespace

std::span<const iovec> QueuePair::Gather(bool idle, Nanos) {
  if (!connected_ || send_dead_) return {};
  if (!batch_.empty()) return batch_.Vectors();
  if (finished_ || (!may_send_ && !ready_owed_)) return {};
  if (OwesAtMostAcknowledgement() && (!owes() || !AcknowledgementIsDue(idle))) return {};
  batch_.Clear();
  bool ack = false;
  AppendOwed(idle, &ack);
  const size_t alone = batch_.unsent();
  AppendWork(idle);
  if (closing_) AppendFarewell();
  if (ack) {
    if (!AcknowledgementIsDue(idle) && batch_.unsent() == alone &&
        alone == wire::FpduSize(sizeof(UntaggedHeader), 0)) {
      batch_.Clear();  // it rides on what the application sends next, or goes at the next idle poll
      return {};
    }
    ack_owed_ = false;
    told_rsn_ = applied_rsn_;
    applied_since_ack_ = 0;
    bytes_since_ack_ = 0;
    count_.acks_sent.Add();
  }
  batch_rsn_ = next_rsn_ - (cursor_started_ ? 2 : 1);
  return batch_.Vectors();
}

void QueuePair::AppendOwed(bool idle, bool* ack) {
  if (ready_owed_) {
    ready_owed_ = false;
    TaggedHeader h;  // zero length, STag and TO unchecked: RFC 6581 9.2
    if (session_.ready_frame == ReadyFrame::kSend) {
      UntaggedHeader u;
      u.ddp |= wire::kLast;
      u.rdmap = RdmapByte(Opcode::kSend);
      u.msn = send_msn_++;
      AppendFpdu(u, 0, {});
    } else if (session_.ready_frame == ReadyFrame::kRead) {
      UntaggedHeader u;
      u.rdmap = RdmapByte(Opcode::kReadRequest);
      u.queue_number = wire::kReadRequestQueue;
      u.msn = read_msn_++;
      ready_answer_ = true;
      AppendWhole(u, wire::AsBytes(wire::ReadRequest{}));
    } else if (session_.ready_frame == ReadyFrame::kWrite) {
      h.ddp |= wire::kLast;
      h.rdmap = RdmapByte(Opcode::kWrite);
      AppendFpdu(h, 0, {});
    }
    may_send_ = true;
  }
  if (rnr_nak_owed_) {
    rnr_nak_owed_ = false;
    ready_said_ = false;
    AppendControlMessage(
        {wire::ControlType::kRnrNak, wire::NakCode::kNone, applied_rsn_ + 1, min_rnr_timer_});
    count_.rnr_naks_sent.Add();
    told_rsn_ = applied_rsn_;  // it acknowledges what came before
  }
  if (dropping_ && !ready_said_ && !receives_->empty()) {
    ready_said_ = true;
    AppendControlMessage({wire::ControlType::kReady, wire::NakCode::kNone, applied_rsn_ + 1, 0});
  }
  if (rnr_.resume_owed) {
    rnr_.resume_owed = false;
    rnr_.probing = !unreliable();
    AppendControlMessage({wire::ControlType::kResume, wire::NakCode::kNone, rnr_.rsn, 0});
  }
  // An idle target says how far it got, asked or not: something at the other end may wait for
  // requests that nobody wanted signalled. The request bit asks for an answer when it is not idle.
  if (told_rsn_ != applied_rsn_ && (ack_owed_ || (idle && irq_.count == 0) || closing_) &&
      session_.features.has(wire::kAcknowledge)) {
    AppendControlMessage({wire::ControlType::kAck, wire::NakCode::kNone, applied_rsn_, 0});
    *ack = true;
  }
}

void QueuePair::AppendWork(bool idle) {
  const bool late = config_.hardships.late_answers && !idle && !closing_;
  // Not at the hand-shake: many connections never send, and none sends from memory before this.
  if (session_.crc && (irq_.count > 0 || cursor_ != sq_.tail()) && !batch_.PrepareCopies())
      [[unlikely]] {
    return StreamLost("no memory to send from");
  }
  int responses = 0;
  while (batch_.HasRoom()) {
    if (irq_.count > 0 && !late && responses < kResponsesPerRequest) {
      AppendResponse();
      ++responses;
    } else if (session_.confirm && ConfirmationDue()) {
      AppendConfirmation();
    } else if (!closing_ && AppendRequest()) {
      responses = 0;
    } else if (irq_.count > 0 && !late) {
      responses = 0;
    } else {
      return;
    }
  }
}

// The last words of a dying connection, after the answers to what came before the error.
void QueuePair::AppendFarewell() {
  if (send_dead_) return batch_.Clear();  // the stream was lost while this was gathered
  if (irq_.count > 0 || finished_ || !batch_.HasRoom()) return;
  if (nak_.owed) {
    nak_.owed = false;
    if (session_.features.has(wire::kAcknowledge)) {
      AppendControlMessage({wire::ControlType::kNak, nak_.code, nak_.rsn, 0}, nak_.text);
    }
    wire::Terminate terminate;
    terminate.error = nak_.error;
    Blame(nak_.segment, &terminate);
    std::byte body[wire::kMaxTerminateBody];
    const size_t n = wire::EncodeTerminate(terminate, body);
    UntaggedHeader h;
    h.rdmap = RdmapByte(Opcode::kTerminate);
    h.queue_number = wire::kTerminateQueue;
    h.msn = 1;
    AppendWhole(h, {body, n});
  } else if (bye_owed_ && session_.features.has(wire::kAcknowledge)) {
    AppendControlMessage({wire::ControlType::kBye, wire::NakCode::kNone, 0, 0});
  }
  bye_owed_ = false;
  finished_ = true;
}

void QueuePair::AppendControlMessage(const wire::Control& control, absl::string_view text) {
  const UntaggedHeader h = wire::MakeControl(control, static_cast<uint32_t>(text.size()));
  AppendWhole(h, {reinterpret_cast<const std::byte*>(text.data()), text.size()});
}

// A message of one FPDU whose body is ours.
template <typename Header>
void QueuePair::AppendWhole(Header header, std::span<const std::byte> body) {
  header.ddp |= wire::kLast;
  std::copy(body.begin(), body.end(), PlaceOfPayload(sizeof(Header)));
  AppendFpdu(header, static_cast<uint32_t>(body.size()), {});
}

template <typename Header>
void QueuePair::AppendFpdu(Header header, uint32_t length, std::span<const Piece> outside) {
  header.length = static_cast<uint16_t>(sizeof(Header) - wire::kLengthSize + length);
  const uint32_t pad = wire::PadBytes(length);
  if (outside.empty()) [[likely]] {
    std::byte* const at = batch_.Append(wire::FpduSize(sizeof(Header), length));
    std::byte* const trailer = wire::Store(at, header) + length;
    std::memset(trailer, 0, wire::kCrcSize);
    std::memset(trailer + pad, 0, wire::kCrcSize);
    if (session_.crc) {
      const uint32_t crc = wire::Crc32c(wire::kCrcBegin, {at, trailer + pad});
      wire::Store(trailer + pad, wire::WireCrc(crc));
    }
    return;
  }
  wire::Store(batch_.Append(sizeof(Header)), header);
  uint32_t crc = wire::kCrcBegin;
  if (session_.crc) crc = wire::Crc32c(crc, wire::AsBytes(header));
  for (const Piece& p : outside) {
    if (session_.crc) {
      crc = wire::Crc32c(crc, {batch_.AppendCopy(p.host, p.length), p.length});
    } else {
      batch_.AppendExternal(p.host, p.length);
    }
  }
  std::byte* trailer = batch_.Append(pad + wire::kCrcSize);
  std::memset(trailer, 0, pad + wire::kCrcSize);
  if (session_.crc) {
    crc = wire::Crc32c(crc, {trailer, pad});
    wire::Store(trailer + pad, wire::WireCrc(crc));
  }
}

template void QueuePair::AppendFpdu(TaggedHeader, uint32_t, std::span<const Piece>);
template void QueuePair::AppendFpdu(UntaggedHeader, uint32_t, std::span<const Piece>);
template void QueuePair::AppendWhole(UntaggedHeader, std::span<const std::byte>);

// Equal segments in whole pages between own peers: a short last one would drop the receiver to its
// copying path. Foreign peers get what fits a TCP segment (RFC 5044 4.5).
uint32_t QueuePair::PartSize(uint32_t length, uint32_t header) const {
  const uint32_t max = session_.features.max_payload;
  if (max == 0) return wire::MaxPayloadForMss(session_.mss, header);
  const uint32_t segments = (length + max - 1) / max;
  const uint32_t even = (length + segments - 1) / segments;
  return std::min(max, (even + 4095) & ~4095u);
}

void QueuePair::AppendResponse() {
  InboundRead& read = irq_.front();
  if (read.atomic) {
    UntaggedHeader h;
    h.rdmap = RdmapByte(Opcode::kAtomicResponse);
    h.queue_number = wire::kAtomicResponseQueue;
    h.msn = read.msn;
    wire::AtomicResponse body;
    body.request_id = read.request_id;
    body.original = read.original;
    AppendWhole(h, wire::AsBytes(body));
    Answered(read.rsn);
    irq_.Pop();
    return;
  }
  const uint32_t n = std::min(SegmentSize(read.size, sizeof(TaggedHeader)), read.size - read.sent);
  Piece piece{nullptr, n};
  std::span<const Piece> outside;
  if (n > 0) {
    const Translation t =
        Check(read.source_stag, read.source_offset + read.sent, n, Access::kRemoteRead);
    if (!t.ok()) {  // the region died after the request was taken
      const InboundRead failed = read;
      irq_ = Ring<InboundRead>();
      RefuseAccess(failed.rsn, "read from", t.fault, failed.source_stag,
                   failed.source_offset + failed.sent, n);
      nak_.segment.clear();
      return;
    }
    if (!Readable(t, n)) {
      const uint32_t rsn = read.rsn;
      irq_ = Ring<InboundRead>();
      RefuseRequest(rsn, wire::NakCode::kRemoteOperation, wire::error::kUnspecified,
                    "the memory is registered and cannot be read: was its file truncated?",
                    std::nullopt);
      nak_.segment.clear();
      return;
    }
    piece.host = t.host;
    if (n > kCopyLimit) {
      outside = {&piece, 1};
    } else {
      std::copy_n(t.host, n, PlaceOfPayload(sizeof(TaggedHeader)));
    }
  }
  TaggedHeader h;
  if (read.sent + n == read.size) h.ddp |= wire::kLast;
  h.rdmap = RdmapByte(Opcode::kReadResponse);
  h.stag = read.sink_stag;
  h.tagged_offset = read.sink_offset + read.sent;
  AppendFpdu(h, n, outside);
  read.sent += n;
  if (read.sent != read.size) return;
  Answered(read.rsn);
  irq_.Pop();
}

// The answer tells the peer that everything up to this request was applied.
void QueuePair::Answered(uint32_t rsn) {
  if (wire::RsnBefore(told_rsn_, rsn)) told_rsn_ = rsn;
}

void QueuePair::Sent(size_t n) {
  count_.send_calls.Add();
  count_.bytes_sent.Add(n);
  left_ += n;
  batch_.Sent(n);
  if (batch_.empty() && connected_ && !session_.features.has(wire::kAcknowledge) &&
      !session_.confirm) {
    // A foreign peer acknowledges nothing: complete when TCP has it, as its own verbs do.
    acked_rsn_ = batch_rsn_;
    Retire();
  }
}

void QueuePair::SendFailed(int error) {
  if (error == EFAULT) {  // in the middle of an FPDU, perhaps: the stream cannot go on
    batch_.Clear();
    return StreamLost("memory that was being sent cannot be read");
  }
  // What the peer still had to say (a Terminate, above all) is read before a status is chosen.
  send_dead_ = true;
  batch_.Clear();
}

}  // namespace verbena::engine
