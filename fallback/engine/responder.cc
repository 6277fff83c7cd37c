// SPDX-License-Identifier: Apache-2.0
// What the peer asks of us: writes, sends, reads, atomics. Each is checked before a byte is placed;
// a request that finds no receive is refused for now, one that breaks a rule ends the connection;
// an unreliable one drops both.
#include <array>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "fallback/engine/queue_pair.h"

namespace verbena::engine {

using wire::NakCode;

// RFC 5044 7.1.2: the initiator has spoken, a whole FPDU.
void QueuePair::MaySend() {
  may_send_ = true;
  config_.observer->OnEvent(EventType::kEstablished, absl::OkStatus());
}

void QueuePair::HandleMessage(const wire::UntaggedHeader& h, const std::byte* body, Nanos now) {
  const uint32_t payload = wire::PayloadSize(h);
  const bool control = session_.features.has(wire::kAcknowledge);
  switch (wire::OpcodeOf(h.rdmap)) {
    case wire::Opcode::kReadRequest:
      if (unreliable() && !ready_read_) break;
      if (!dropping_) HandleReadRequest(h, body);
      return;
    case wire::Opcode::kAtomicRequest:
      if (!dropping_) HandleAtomicRequest(h, body);
      return;
    case wire::Opcode::kImmediate:
    case wire::Opcode::kImmediateSolicited:
      if (!dropping_ || unreliable()) HandleImmediate(h, body);
      return;
    case wire::Opcode::kAtomicResponse:
      if (session_.features.has(wire::kAtomics)) return HandleAtomicResponse(h, body);
      break;
    case wire::Opcode::kTerminate:
      return HandleTerminate({body, payload});
    case wire::Opcode::kControl:
      if (control) {
        const wire::Control c = wire::ReadControl(h);
        if (const wire::Fault fault = wire::Invalid(c, payload)) return ProtocolFault(fault);
        return HandleControl(c, {reinterpret_cast<const char*>(body), payload}, now);
      }
      break;
    default:
      break;
  }
  ProtocolFault({"an opcode that was not negotiated", wire::error::kUnexpectedOpcode});
}

void QueuePair::HandleControl(const wire::Control& c, absl::string_view text, Nanos now) {
  const bool rnr = c.type == wire::ControlType::kRnrNak || c.type == wire::ControlType::kReady ||
                   c.type == wire::ControlType::kResume;
  if (unreliable() && c.type == wire::ControlType::kResume) return HandleAbandoned(c.rsn);
  if (rnr && !session_.features.has(wire::kRnr)) {
    return ProtocolFault(
        {"a control message that was not negotiated", wire::error::kUnexpectedOpcode});
  }
  switch (c.type) {
    case wire::ControlType::kAck:
      count_.acks_received.Add();
      HandleAck(c.rsn);
      return;
    case wire::ControlType::kRnrNak:
      return HandleRnrNak(c, now);
    case wire::ControlType::kReady:
      if (rnr_.waiting && c.rsn == rnr_.rsn) {
        rnr_.deadline = now;
        Tick(now);
      }
      return;
    case wire::ControlType::kResume:
      if (!dropping_ || rnr_nak_owed_ || c.rsn != applied_rsn_ + 1) {
        return ProtocolFault(
            {"a Resume of a request that was not refused", wire::error::kUnspecified});
      }
      dropping_ = false;
      return;
    case wire::ControlType::kNak:
      return HandleNak(c, text);
    case wire::ControlType::kBye:
      peer_said_bye_ = true;
      if (unmanaged_) return PeerLeft();
      return EnterError(absl::OkStatus(), false);
  }
}

// What the queue pair is not set up for at all is an invalid request, before any key is looked at
// (IBTA 9.7.4.1.2).
bool QueuePair::AllowedHere(Access kind, const char* what) {
  if (Allows(access_, kind)) return true;
  RefuseRequest(applied_rsn_ + 1, NakCode::kRemoteInvalidRequest, wire::error::kUnexpectedOpcode,
                absl::StrCat("the queue pair takes no remote ", what), EventType::kQpRequestError);
  return false;
}

// IBTA 9.7.2: 2^31 bytes. Nothing that counts a message's bytes may wrap.
bool QueuePair::RefuseLength(WcStatus receive) {
  RefuseRequest(applied_rsn_ + 1, NakCode::kRemoteInvalidRequest, wire::error::kUnspecified,
                absl::StrCat("a message longer than ", kMaxMessage, " bytes"),
                EventType::kQpRequestError, receive);
  return false;
}

bool QueuePair::BeginWrite(const wire::TaggedHeader& h) {
  if (immediate_pending_) {
    ProtocolFault(
        {"a Write where its predecessor's Immediate was due", wire::error::kUnexpectedOpcode});
    return false;
  }
  return AllowedHere(Access::kRemoteWrite, "writes") &&
         ShortEnough(uint64_t{write_bytes_} + wire::PayloadSize(h));
}

void QueuePair::FinishWrite() {
  write_bytes_ += segment_.total;
  if ((segment_.ddp & wire::kLast) == 0) return;
  count_.remote_writes.Add();
  if ((segment_.rdmap & wire::kWithImmediate) != 0 && session_.features.has(wire::kImmediate)) {
    immediate_pending_ = true;
    return;
  }
  const uint32_t bytes = write_bytes_;
  write_bytes_ = 0;
  Applied(segment_.rdmap, bytes);
}

bool QueuePair::TakeReceive() {
  if (receiving_) return true;
  bool limit = false;
  receiving_ = receives_->Take(&current_, &limit);
  if (limit) config_.observer->OnSharedLimit();
  return receiving_;
}

// RNR (IBTA 9.7.5.2.8): not an error. Requests are dropped from here on, answers still flow, until
// the peer resumes with this one (docs/decisions/0004-control-messages.md).
void QueuePair::RefuseForLackOfReceive() {
  if (unreliable()) return Drop(&count_.dropped_no_receive);
  if (!session_.features.has(wire::kRnr)) {
    ProtocolFault({"a message found no receive posted", wire::error::kNoBuffer});
    return;
  }
  dropping_ = rnr_nak_owed_ = true;
  immediate_pending_ = false;
  write_bytes_ = 0;
}

bool QueuePair::RefuseForShortReceive() {
  RefuseRequest(
      applied_rsn_ + 1, NakCode::kRemoteInvalidRequest, wire::error::kTooLong,
      absl::StrCat("a message longer than the receive posted for it (", current_.length, " bytes)"),
      EventType::kQpRequestError, WcStatus::kLocalLengthError);
  return false;
}

bool QueuePair::BeginSend(const wire::UntaggedHeader& h) {
  if (h.msn != expected_send_msn_ || immediate_pending_) {
    ProtocolFault({"a Send out of sequence", wire::error::kMsn});
    return false;
  }
  if (h.message_offset != send_offset_) {
    ProtocolFault({"a Send segment at a wrong offset", wire::error::kMessageOffset});
    return false;
  }
  if (!TakeReceive()) {
    RefuseForLackOfReceive();
    return false;
  }
  segment_.key = h.ulp;
  const uint64_t total = uint64_t{send_offset_} + wire::PayloadSize(h);
  if (total > current_.length) [[unlikely]] {
    return RefuseForShortReceive();
  }
  if (!ShortEnough(total, WcStatus::kLocalLengthError)) return false;
  if (config_.hardships.poison) [[unlikely]] {
    Poison(current_.sges, current_.sge_count, config_.receive_domain, send_offset_,
           wire::PayloadSize(h));
  }
  return true;
}

void QueuePair::FinishSend() {
  send_offset_ += segment_.total;
  if ((segment_.ddp & wire::kLast) == 0) return;
  const wire::Opcode op = wire::OpcodeOf(segment_.rdmap);
  const bool invalidate =
      op == wire::Opcode::kSendInvalidate || op == wire::Opcode::kSendSolicitedInvalidate;
  WorkCompletion wc;
  wc.opcode = WcOpcode::kReceive;
  wc.length = send_offset_;
  wc.immediate_or_key = segment_.key;
  wc.has_invalidated = invalidate;
  wc.has_immediate = !invalidate && (segment_.rdmap & wire::kWithImmediate) != 0 &&
                     session_.features.has(wire::kImmediate);
  if (!wc.has_immediate && !invalidate) wc.immediate_or_key = 0;
  if (invalidate && (unreliable() || !Invalidate(segment_.key))) [[unlikely]] {
    return RefuseInvalidation();
  }
  ++expected_send_msn_;
  send_offset_ = 0;
  CompleteReceive(
      wc, op == wire::Opcode::kSendSolicited || op == wire::Opcode::kSendSolicitedInvalidate);
  Applied(segment_.rdmap, wc.length);
}

void QueuePair::RefuseInvalidation() {
  if (unreliable()) {
    return ProtocolFault(
        {"a Send with Invalidate on an unreliable connection", wire::error::kUnexpectedOpcode});
  }
  RefuseRequest(
      applied_rsn_ + 1, NakCode::kRemoteAccess, wire::error::kCannotInvalidate,
      absl::StrFormat("key 0x%x names no window that this queue pair's peer may invalidate",
                      segment_.key),
      EventType::kQpAccessError, WcStatus::kLocalProtectionError);
}

void QueuePair::HandleImmediate(const wire::UntaggedHeader& h, const std::byte* body) {
  if (!session_.features.has(wire::kImmediate) || !immediate_pending_) {
    return ProtocolFault({"an Immediate that follows no Write", wire::error::kUnexpectedOpcode});
  }
  const bool inside = unreliable() ? send_offset_ != 0 : receiving_;
  if (h.msn != expected_send_msn_ || inside) {
    return ProtocolFault({"an Immediate out of sequence", wire::error::kMsn});
  }
  if (dropping_ || !TakeReceive()) {
    if (!dropping_) RefuseForLackOfReceive();
    if (!unreliable()) return;
    ++expected_send_msn_;
    EndMessage();
    return Applied(h.rdmap, 0);
  }
  ++expected_send_msn_;
  WorkCompletion wc;
  wc.opcode = WcOpcode::kReceiveWriteWithImm;
  wc.length = write_bytes_;
  wc.has_immediate = true;
  wc.immediate_or_key = wire::Load<wire::Immediate>(body).value;
  immediate_pending_ = false;
  write_bytes_ = 0;
  CompleteReceive(wc, wire::OpcodeOf(h.rdmap) == wire::Opcode::kImmediateSolicited);
  Applied(h.rdmap, wc.length);
}

bool QueuePair::AcceptReadClass(const wire::UntaggedHeader& h) {
  if (h.msn != expected_read_msn_) {
    ProtocolFault({"a Read or atomic request out of sequence", wire::error::kMsn});
    return false;
  }
  if (irq_.count >= session_.ird || irq_.count >= kMaxDepth) {
    RefuseRequest(
        applied_rsn_ + 1, NakCode::kRemoteInvalidRequest, wire::error::kStreamCatastrophic,
        absl::StrCat("more reads and atomics in flight than the ", session_.ird, " agreed on"),
        EventType::kQpRequestError);
    return false;
  }
  ++expected_read_msn_;
  return true;
}

void QueuePair::HandleReadRequest(const wire::UntaggedHeader& h, const std::byte* body) {
  const auto request = wire::Load<wire::ReadRequest>(body);
  const uint32_t size = request.size;
  const bool ready_frame = std::exchange(ready_read_, false) && size == 0;
  if (!AcceptReadClass(h)) return;
  if (!ready_frame && !(AllowedHere(Access::kRemoteRead, "reads") && ShortEnough(size))) return;
  InboundRead read;
  read.sink_stag = request.sink_stag;
  read.sink_offset = request.sink_offset;
  read.source_stag = request.source_stag;
  read.source_offset = request.source_offset;
  read.size = size;
  read.rsn = applied_rsn_ + 1;
  if (size > 0) {  // zero length: nothing is checked
    const Translation t = Check(read.source_stag, read.source_offset, size, Access::kRemoteRead);
    if (!t.ok()) {
      return RefuseAccess(read.rsn, "read from", t.fault, read.source_stag, read.source_offset,
                          size);
    }
    t.region->reads.fetch_add(1, std::memory_order_relaxed);
  }
  if (ready_frame) read.rsn = applied_rsn_;
  irq_.Push(read);
  if (ready_frame) return;  // RFC 6581 9.2: no request of the application's
  count_.remote_reads.Add();
  Applied(0, 0);  // the answer acknowledges
}

void QueuePair::HandleAtomicRequest(const wire::UntaggedHeader& h, const std::byte* body) {
  if (!session_.features.has(wire::kAtomics)) {
    return ProtocolFault(
        {"an atomic request that was not negotiated", wire::error::kUnexpectedOpcode});
  }
  const auto request = wire::Load<wire::AtomicRequest>(body);
  if (!AcceptReadClass(h) || !AllowedHere(Access::kRemoteAtomic, "atomics")) return;
  const uint32_t rsn = applied_rsn_ + 1;
  if (const wire::Fault fault = wire::Invalid(request)) {
    return RefuseRequest(rsn, NakCode::kRemoteInvalidRequest, fault.error, fault.why,
                         EventType::kQpRequestError);
  }
  const uint64_t address = request.tagged_offset;
  const Translation t = Check(request.stag, address, sizeof(uint64_t), Access::kRemoteAtomic);
  if (!t.ok()) {
    return RefuseAccess(rsn, "operate on", t.fault, request.stag, address, sizeof(uint64_t));
  }
  if (reinterpret_cast<uintptr_t>(t.host) % sizeof(uint64_t) != 0) {
    return RefuseRequest(rsn, NakCode::kRemoteInvalidRequest, wire::error::kStreamCatastrophic,
                         "an atomic operation on an address that is no multiple of 8",
                         EventType::kQpRequestError);
  }
  if (!Readable(t, sizeof(uint64_t))) {
    return RefuseRequest(rsn, NakCode::kRemoteOperation, wire::error::kUnspecified,
                         "the memory is registered and not there: was its file truncated?",
                         std::nullopt);
  }
  // Sequentially consistent on the CPU's own terms: atomic against its programs too.
  std::atomic_ref<uint64_t> target(*reinterpret_cast<uint64_t*>(t.host));
  InboundRead answer;
  answer.atomic = true;
  answer.request_id = request.request_id;
  answer.rsn = rsn;
  answer.msn = atomic_msn_++;
  const bool add = (request.operation & wire::kAtomicCodeMask) == wire::kFetchAdd;
  if (config_.hardships.device_atomics) {
    answer.original = OperateAsDevice(target, add, request.operand, request.compare);
  } else if (add) {
    answer.original = target.fetch_add(request.operand);
  } else {
    uint64_t expected = request.compare;
    target.compare_exchange_strong(expected, request.operand);
    answer.original = expected;
  }
  t.region->atomics.fetch_add(1, std::memory_order_relaxed);
  count_.remote_atomics.Add();
  irq_.Push(answer);
  Applied(0, 0);
}

void QueuePair::Applied(uint8_t rdmap, uint64_t bytes) {
  ++applied_rsn_;
  ++applied_since_ack_;
  bytes_since_ack_ += bytes;
  if ((rdmap & wire::kAckRequest) != 0 && session_.features.has(wire::kAcknowledge)) {
    ack_owed_ = true;
  }
}

void QueuePair::CompleteReceive(WorkCompletion& wc, bool solicited) {
  wc.id = current_.id;
  wc.qp_number = config_.number;
  receiving_ = false;
  count_.receive_completions.Add();
  config_.receive_ring->Push(wc, solicited);
}

void QueuePair::FailReceive(WcStatus status) {
  WorkCompletion wc;
  wc.opcode = WcOpcode::kReceive;
  wc.status = status;
  CompleteReceive(wc, true);
}

void QueuePair::RefuseAccess(uint32_t rsn, const char* what, AccessFault fault, uint32_t key,
                             uint64_t address, uint64_t length) {
  const bool write = what[0] == 'w';
  wire::TerminateError error = write ? wire::error::kStag : wire::error::kReadStag;
  if (fault == AccessFault::kBounds)
    error = write ? wire::error::kBounds : wire::error::kReadBounds;
  if (fault == AccessFault::kWrap) error = write ? wire::error::kWrap : wire::error::kReadWrap;
  if (fault == AccessFault::kDomain) {
    error = write ? wire::error::kStagNotAssociated : wire::error::kReadStagNotAssociated;
  }
  // RFC 5041 7 has no code for access rights of a tagged buffer; siw says "invalid STag" as well.
  if (fault == AccessFault::kAccess && !write) error = wire::error::kAccess;
  RefuseRequest(rsn, NakCode::kRemoteAccess, error,
                absl::StrFormat("%s key 0x%x at 0x%x, %d bytes: %s", what, key, address, length,
                                AccessFaultText(fault)),
                EventType::kQpAccessError);
}

void QueuePair::RefuseRequest(uint32_t rsn, NakCode code, wire::TerminateError error,
                              const std::string& text, std::optional<EventType> event,
                              WcStatus receive) {
  // An answer that was still due may fail, too: of two requests the earlier one has the reason.
  if (closing_ && !(nak_.owed && wire::RsnBefore(rsn, nak_.rsn))) return;
  count_.protection_errors.Add();
  // IBTA 9.9.3: a fault of this end's receive (class A) ends the queue pair, also an unreliable
  // one, which tells its peer nothing but that; one of the peer's request ends that request.
  const bool own_fault = receive == WcStatus::kLocalProtectionError;
  const bool silent = unreliable() && code != NakCode::kProtocol;
  if (silent && !own_fault) {
    return Drop(receive == WcStatus::kLocalLengthError ? &count_.dropped_no_receive
                                                       : &count_.dropped_other);
  }
  nak_.owed = !silent;
  nak_.rsn = rsn;
  nak_.code = code;
  nak_.error = error;
  nak_.text = text.substr(0, wire::kMaxControlText);
  nak_.segment.clear();
  if (closing_) return;
  nak_.segment = SegmentToBlame();
  const absl::Status why =
      absl::AbortedError(absl::StrCat("a request of the peer was refused: ", text));
  Retire();
  // Who sees the event or a completion may ask for the cause and the state at once.
  SetCause(why);
  SetState(QpState::kErr);
  if (event.has_value()) config_.observer->OnEvent(*event, why);
  if (receive != WcStatus::kSuccess) FailReceive(receive);
  EnterError(why, silent, true);
}

// Of a message that is handled whole it still stands in the buffer.
std::vector<std::byte> QueuePair::SegmentToBlame() const {
  const Segment& s = segment_;
  std::array<std::byte, sizeof(wire::UntaggedHeader)> rebuilt;
  const std::byte* from = input();
  size_t size = wire::HeaderSize(s.ddp);
  if (s.kind == Segment::Kind::kWrite) {
    wire::TaggedHeader h;
    h.length = static_cast<uint16_t>(wire::kTaggedUlpdu + s.total);
    h.ddp = s.ddp;
    h.rdmap = s.rdmap;
    h.stag = s.key;
    h.tagged_offset = s.address;
    wire::Store(rebuilt.data(), h);
    from = rebuilt.data();
  } else if (s.kind == Segment::Kind::kSend) {
    wire::UntaggedHeader h;
    h.length = static_cast<uint16_t>(wire::kUntaggedUlpdu + s.total);
    h.ddp = s.ddp;
    h.rdmap = s.rdmap;
    h.ulp = s.key;
    h.msn = expected_send_msn_;
    h.message_offset = static_cast<uint32_t>(s.address);
    wire::Store(rebuilt.data(), h);
    from = rebuilt.data();
  } else if (s.kind == Segment::Kind::kNone && available() >= sizeof(wire::TaggedHeader)) {
    size = wire::HeaderSize(static_cast<uint8_t>(from[2]));
    if (available() < size) return {};
    // A fault of the header may come to light before the body is there.
    const bool read = wire::OpcodeOf(static_cast<uint8_t>(from[3])) == wire::Opcode::kReadRequest;
    if (read && available() - size >= sizeof(wire::ReadRequest)) size += sizeof(wire::ReadRequest);
  } else {
    return {};
  }
  return {from, from + size};
}

void QueuePair::ProtocolFault(const wire::Fault& fault) {
  RefuseRequest(applied_rsn_ + 1, NakCode::kProtocol, fault.error, fault.why,
                EventType::kQpRequestError);
}

}  // namespace verbena::engine
