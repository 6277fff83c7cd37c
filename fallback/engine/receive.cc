// SPDX-License-Identifier: Apache-2.0
// The byte stream becomes FPDUs. Nothing is placed before its header has been checked; payload of
// any size is placed as it comes, large ones by the receive call itself; the last bytes of a write
// are stored last, after the CRC.
#include <algorithm>
#include <cstring>

#include "fallback/engine/guarded_copy.h"
#include "fallback/engine/queue_pair.h"
#include "fallback/wire/crc32c.h"

namespace verbena::engine {

using wire::Opcode;
using wire::TaggedHeader;
using wire::UntaggedHeader;

// Where the rest of the segment goes. Looked up once a segment, and again when keys have died
// since: a region may be deregistered between two receive calls of one message.
inline bool QueuePair::ResolveTargets() {
  const uint64_t version = config_.keys->version();
  if (segment_.version == version) return true;
  segment_.version = version;
  return LookUpTargets();
}

int QueuePair::ReceiveSpace(iovec* into, int max) {
  direct_ = 0;
  int count = 0;
  Segment& s = segment_;
  const uint32_t left = s.total - s.held - s.done;
  if (s.kind != Segment::Kind::kNone && s.kind != Segment::Kind::kDiscard &&
      left >= kDirectPlacement && available() == 0 && ResolveTargets()) {
    uint32_t want = left;
    for (int i = s.target; i < s.targets && want > 0 && count < max - 1; ++i) {
      iovec part = s.target_list[i];
      part.iov_len = std::min<size_t>(part.iov_len, want);
      want -= part.iov_len;
      into[count++] = part;
    }
    direct_ = left - want;
  }
  if (rx_begin_ == rx_end_) rx_begin_ = rx_end_ = 0;
  // Behind payload that is received in place come its trailer and the next header, whose payload
  // may be received in place as well. So no more than these is taken either where such a payload
  // ends, or the next one is expected to begin: a stream of large ones that is longer than the
  // buffer would otherwise be copied out of it until a boundary happens to fall right.
  const bool large = s.total >= kLargePayload;
  size_t most = kReceiveBuffer;
  if (direct_ > 0 || (large && s.kind == Segment::Kind::kNone)) {
    most = kBehindDirect;
  } else if (large && s.kind != Segment::Kind::kDiscard && left < kDirectPlacement) {
    most = left + kBehindDirect;
  }
  into[count++] = {rx_.get() + rx_end_, std::min(kReceiveBuffer - rx_end_, most)};
  return count;
}

void QueuePair::Received(size_t n, Nanos now) {
  count_.receive_calls.Add();
  count_.bytes_received.Add(n);
  if (direct_ > 0) {
    const uint32_t placed = static_cast<uint32_t>(std::min(n, direct_));
    SkipTargets(placed);
    n -= placed;
    direct_ = 0;
  }
  rx_end_ += n;
  // What was expected to follow the last payload counts for one call.
  if (segment_.kind == Segment::Kind::kNone) segment_.total = 0;
  Parse(now);
  if (closing_) may_send_ = true;  // the initiator has spoken: last words may go
  Retire();
  if (rx_begin_ == rx_end_) {
    rx_begin_ = rx_end_ = 0;
  } else if (rx_end_ > kReceiveBuffer / 2) {
    std::memmove(rx_.get(), input(), available());
    rx_end_ -= rx_begin_;
    rx_begin_ = 0;
  }
}

void QueuePair::Parse(Nanos now) {
  while (connected_ && !closing_ && ParseNext(now)) {
  }
  // A dying connection reads only to reach the end; what is here would fill the buffer for good,
  // and a receive call without room looks like the end of the stream.
  if (!connected_ || closing_) rx_begin_ = rx_end_ = 0;
}

// False: more bytes are needed, or the connection is dying.
inline bool QueuePair::ParseNext(Nanos now) {
  if (segment_.kind != Segment::Kind::kNone) return ContinueSegment(now);
  if (available() < 4) return false;
  const uint8_t ddp = static_cast<uint8_t>(input()[2]);
  if (available() < wire::HeaderSize(ddp)) return false;
  return wire::IsTagged(ddp) ? BeginTagged(now) : BeginUntagged(now);
}

inline void QueuePair::OpenSegment(Segment::Kind kind, uint8_t ddp, uint8_t rdmap, uint32_t header,
                                   uint32_t payload) {
  Segment& s = segment_;
  s.kind = kind;
  s.ddp = ddp;
  s.rdmap = rdmap;
  s.total = payload;
  s.done = 0;
  s.targets = s.target = 0;
  s.version = ~0ull;  // not looked up yet
  const bool tail = kind == Segment::Kind::kWrite && (ddp & wire::kLast) != 0;
  s.held = tail ? std::min<uint32_t>(payload, kPublishBytes) : 0;
  if (session_.crc) s.crc = wire::Crc32c(wire::kCrcBegin, {input(), header});
  rx_begin_ += header;
}

bool QueuePair::BeginTagged(Nanos now) {
  const TaggedHeader h = wire::Load<TaggedHeader>(input());
  if (const wire::Fault fault = wire::Invalid(h)) {
    ProtocolFault(fault);
    return false;
  }
  // RFC 6581 9.2: the ready frame is the initiator's first. It carries nothing, and so does the
  // answer if it is a read.
  const bool response = wire::OpcodeOf(h.rdmap) == Opcode::kReadResponse;
  bool& ready = response ? ready_answer_ : ready_expected_;
  const bool ready_frame = ready && wire::PayloadSize(h) == 0;
  ready_expected_ = false;
  if (ready_frame) {
    ready = false;
    OpenSegment(Segment::Kind::kDiscard, h.ddp, h.rdmap, sizeof(h), 0);
    return true;
  }
  if (response) {
    if (orq_.count > 0 && orq_.front().confirms) return TakeConfirmation(h);
    if (!BeginReadResponse(h)) return false;
    OpenSegment(Segment::Kind::kReadResponse, h.ddp, h.rdmap, sizeof(h), wire::PayloadSize(h));
    return true;
  }
  if (dropping_ || !BeginWrite(h)) {
    if (!dropping_) return false;
    OpenSegment(Segment::Kind::kDiscard, h.ddp, h.rdmap, sizeof(h), wire::PayloadSize(h));
    return true;
  }
  segment_.key = h.stag;
  segment_.address = h.tagged_offset;
  OpenSegment(Segment::Kind::kWrite, h.ddp, h.rdmap, sizeof(h), wire::PayloadSize(h));
  return (ResolveTargets() || Dropped()) && ContinueSegment(now);
}

bool QueuePair::BeginUntagged(Nanos now) {
  const UntaggedHeader h = wire::Load<UntaggedHeader>(input());
  if (const wire::Fault fault = wire::Invalid(h)) {
    ProtocolFault(fault);
    return false;
  }
  const Opcode op = wire::OpcodeOf(h.rdmap);
  const uint32_t payload = wire::PayloadSize(h);
  if (ready_expected_) {
    ready_expected_ = false;
    ready_read_ = op == Opcode::kReadRequest;
    if (op == Opcode::kSend && session_.ready_frame == ReadyFrame::kSend && payload == 0 &&
        (h.ddp & wire::kLast) != 0 && h.msn == expected_send_msn_) {
      ++expected_send_msn_;
      OpenSegment(Segment::Kind::kDiscard, h.ddp, h.rdmap, sizeof(h), 0);
      return true;
    }
  }
  if (op >= Opcode::kSend && op <= Opcode::kSendSolicitedInvalidate) {
    if (dropping_ || !BeginSend(h)) {
      if (!dropping_) return false;
      OpenSegment(Segment::Kind::kDiscard, h.ddp, h.rdmap, sizeof(h), payload);
      return true;
    }
    segment_.address = h.message_offset;
    OpenSegment(Segment::Kind::kSend, h.ddp, h.rdmap, sizeof(h), payload);
    return (payload == 0 || ResolveTargets()) && ContinueSegment(now);
  }
  // Everything else is one small FPDU, handled when it is there as a whole.
  const size_t size = wire::FpduSize(sizeof(h), payload);
  if (size > kReceiveBuffer / 2) {
    ProtocolFault({"a Terminate of this length cannot be", wire::error::kFpdu});
    return false;
  }
  if (available() < size) return false;
  if (session_.crc && !CheckCrc(input(), size)) return false;
  HeardFromPeer();
  HandleMessage(h, input() + sizeof(h), now);
  rx_begin_ += size;
  return true;
}

bool QueuePair::CheckCrc(const std::byte* fpdu, size_t size) {
  const uint32_t crc = wire::Crc32c(wire::kCrcBegin, {fpdu, size - wire::kCrcSize});
  if (wire::Load<wire::Le32>(fpdu + size - wire::kCrcSize) == wire::WireCrc(crc)) return true;
  ProtocolFault({"the CRC of an FPDU is wrong", wire::error::kCrc});
  return false;
}

bool QueuePair::ContinueSegment(Nanos now) {
  Segment& s = segment_;
  const uint32_t body = s.total - s.held - s.done;
  if (body > 0) {
    const uint32_t n = static_cast<uint32_t>(std::min<size_t>(available(), body));
    if (n > 0 && s.kind != Segment::Kind::kDiscard && !ResolveTargets()) {
      return Dropped() && ContinueSegment(now);
    }
    if (s.kind == Segment::Kind::kDiscard) {
      if (session_.crc) s.crc = wire::Crc32c(s.crc, {input(), n});
      s.done += n;
    } else if (n > 0 && !Place(input(), n)) {
      PlacementFailed();
      if (!Dropped()) return false;
      rx_begin_ += n;
      return ContinueSegment(now);
    }
    rx_begin_ += n;
    if (n < body) return false;
  }
  const uint32_t pad = wire::PadBytes(s.total);
  const size_t rest = s.held + pad + wire::kCrcSize;
  if (available() < rest) return false;
  if (session_.crc) {
    s.crc = wire::Crc32c(s.crc, {input(), s.held + pad});
    if (wire::Load<wire::Le32>(input() + s.held + pad) != wire::WireCrc(s.crc)) {
      ProtocolFault({"the CRC of an FPDU is wrong", wire::error::kCrc});
      return false;
    }
  }
  if (s.held > 0) {
    if (!ResolveTargets()) {
      if (!Dropped()) return false;
    } else if (!PublishHeld(input(), s.held)) {
      PlacementFailed();
      if (!Dropped()) return false;
    }
  }
  rx_begin_ += rest;
  HeardFromPeer();
  FinishSegment(now);
  return true;
}

void QueuePair::FinishSegment(Nanos) {
  switch (segment_.kind) {
    case Segment::Kind::kWrite:
      FinishWrite();
      break;
    case Segment::Kind::kSend:
      FinishSend();
      break;
    case Segment::Kind::kReadResponse:
      FinishReadResponse();
      break;
    case Segment::Kind::kDiscard:
      if (dropping_ && unreliable()) FinishDroppedSegment();
      break;
    case Segment::Kind::kNone:
      break;
  }
  segment_.kind = Segment::Kind::kNone;
}

bool QueuePair::LookUpTargets() {
  Segment& s = segment_;
  s.targets = s.target = 0;
  s.guarded = false;
  if (s.kind == Segment::Kind::kSend) {
    return LookUpEntries(current_.sges, current_.sge_count, config_.receive_domain);
  }
  if (s.kind == Segment::Kind::kReadResponse) {
    const uint64_t position = orq_.front().position;
    return LookUpEntries(sq_.sges(position), sq_.at(position).sge_count, config_.domain);
  }
  const uint32_t left = s.total - s.done;
  if (left == 0) return true;  // zero length: nothing is checked (IBTA 9.7.4.1.3)
  const Translation t = config_.keys->Check(
      ReachOf(s.key, s.address + s.done, left, Access::kRemoteWrite), &target_region_);
  if (!t.ok()) [[unlikely]] {
    RefuseAccess(applied_rsn_ + 1, "write to", t.fault, s.key, s.address + s.done, left);
    return false;
  }
  if (s.done == 0) t.region->writes.fetch_add(1, std::memory_order_relaxed);
  s.guarded = t.region->guarded;
  s.target_list[s.targets++] = {t.host, left};
  return true;
}

bool QueuePair::LookUpEntries(const Sge* sge, uint32_t count, uint32_t domain) {
  Segment& s = segment_;
  uint64_t offset = s.address + s.done;
  uint32_t want = s.total - s.done;
  for (uint32_t i = 0; i < count && want > 0; ++i, ++sge) {
    if (offset >= sge->length) {
      offset -= sge->length;
      continue;
    }
    const uint32_t n = static_cast<uint32_t>(std::min<uint64_t>(sge->length - offset, want));
    const Translation t = config_.keys->Check(
        {sge->key, domain, config_.number, Access::kLocalWrite, sge->address + offset, n},
        &target_region_);
    if (!t.ok()) [[unlikely]] {
      return RefuseTarget(t.fault);
    }
    s.guarded |= t.region->guarded;
    s.target_list[s.targets++] = {t.host, n};
    want -= n;
    offset = 0;
  }
  return true;
}

bool QueuePair::RefuseTarget(AccessFault fault) {
  const std::string text =
      std::string("a local buffer to receive into cannot be used: ") + AccessFaultText(fault);
  if (segment_.kind == Segment::Kind::kSend) {
    RefuseRequest(applied_rsn_ + 1, wire::NakCode::kRemoteOperation, wire::error::kUnspecified,
                  text, std::nullopt, WcStatus::kLocalProtectionError);
  } else {
    FailRead(WcStatus::kLocalProtectionError, absl::InvalidArgumentError(text));
  }
  return false;
}

inline bool QueuePair::Place(const std::byte* from, uint32_t n) {
  Segment& s = segment_;
  if (session_.crc) s.crc = wire::Crc32c(s.crc, {from, n});
  s.done += n;
  while (n > 0) {
    iovec& t = s.target_list[s.target];
    const uint32_t part = static_cast<uint32_t>(std::min<size_t>(n, t.iov_len));
    if (!s.guarded) {
      std::memcpy(t.iov_base, from, part);
    } else if (!GuardedWrite(static_cast<std::byte*>(t.iov_base), from, part)) {
      return false;
    }
    from += part;
    n -= part;
    t.iov_base = static_cast<std::byte*>(t.iov_base) + part;
    t.iov_len -= part;
    if (t.iov_len == 0) ++s.target;
  }
  return true;
}

// A receive call has filled the next n bytes of the targets.
void QueuePair::SkipTargets(uint32_t n) {
  Segment& s = segment_;
  s.done += n;
  while (n > 0) {
    iovec& t = s.target_list[s.target];
    const uint32_t part = static_cast<uint32_t>(std::min<size_t>(n, t.iov_len));
    if (session_.crc) s.crc = wire::Crc32c(s.crc, {static_cast<std::byte*>(t.iov_base), part});
    n -= part;
    t.iov_base = static_cast<std::byte*>(t.iov_base) + part;
    t.iov_len -= part;
    if (t.iov_len == 0) ++s.target;
  }
}

// Programs poll the last bytes of a write. They appear at once where they are an aligned word, else
// the very last byte appears after all others; either with release order, so that who sees it sees
// the whole message.
bool QueuePair::PublishHeld(const std::byte* from, uint32_t n) {
  Segment& s = segment_;
  std::byte* to = static_cast<std::byte*>(s.target_list[s.target].iov_base);
  s.done += n;
  if (s.guarded) return GuardedWrite(to, from, n);
  if (n == sizeof(uint64_t) && reinterpret_cast<uintptr_t>(to) % sizeof(uint64_t) == 0) {
    uint64_t word;
    std::memcpy(&word, from, sizeof(word));
    __atomic_store_n(reinterpret_cast<uint64_t*>(to), word, __ATOMIC_RELEASE);
    return true;
  }
  std::memcpy(to, from, n - 1);
  __atomic_store_n(reinterpret_cast<uint8_t*>(to + n - 1), static_cast<uint8_t>(from[n - 1]),
                   __ATOMIC_RELEASE);
  return true;
}

// IBTA 9.7.4.1.6: the target could not finish the request.
void QueuePair::PlacementFailed() {
  const std::string text =
      "the memory is registered and cannot be written: was its file truncated?";
  const Segment::Kind kind = segment_.kind;
  if (kind == Segment::Kind::kReadResponse) {
    return FailRead(WcStatus::kLocalProtectionError, absl::DataLossError(text));
  }
  RefuseRequest(
      applied_rsn_ + 1, wire::NakCode::kRemoteOperation, wire::error::kUnspecified, text,
      std::nullopt,
      kind == Segment::Kind::kSend ? WcStatus::kLocalProtectionError : WcStatus::kSuccess);
}

}  // namespace verbena::engine
