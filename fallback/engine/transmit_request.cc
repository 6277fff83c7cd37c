// SPDX-License-Identifier: Apache-2.0
// Our own requests: when the next one may start, and its FPDUs.
#include <algorithm>
#include <cstring>

#include "fallback/engine/guarded_copy.h"
#include "fallback/engine/queue_pair.h"

namespace verbena::engine {

using wire::RdmapByte;
using wire::TaggedHeader;
using wire::UntaggedHeader;

inline bool QueuePair::MayStart(const SendEntry& e) const {
  if (rnr_.waiting || rnr_.resume_owed) return false;
  if (rnr_.probing && next_rsn_ != rnr_.rsn) return false;  // the refused one goes alone
  if (state() != QpState::kRts && Halted()) return false;
  if (Has(e.flags, SendFlags::kFence) && ReadsOfTheProgram()) return false;
  if (!IsRead(e.opcode) || session_.ord == 0) return true;
  return ReadMayGo();
}

// In SQD what has begun goes on.
bool QueuePair::Halted() const {
  const QpState now = state();
  return now == QpState::kSqe || (now == QpState::kSqd && cursor_ >= begun_);
}

// A ready frame that is a read takes a place at the peer like any other.
bool QueuePair::ReadMayGo() const {
  return orq_.count + (ready_answer_ ? 1 : 0) < std::min(session_.ord, kMaxDepth);
}

// What a fence waits for: not for reads that stand for an acknowledgement.
bool QueuePair::ReadsOfTheProgram() const {
  for (uint32_t i = 0; i < orq_.count; ++i) {
    if (!orq_.at(i).confirms) return true;
  }
  return false;
}

// Appends one FPDU. False: nothing may go now.
bool QueuePair::AppendRequest() {
  while (cursor_ != sq_.tail()) {
    SendEntry& e = sq_.at(cursor_);
    if (!cursor_started_) {
      if (!MayStart(e)) return false;
      if (e.failure == WcStatus::kSuccess && IsLocal(e.opcode)) {
        if (!e.done) RunLocal(e);  // done: it ran before a refusal sent us back
        if (e.failure == WcStatus::kSuccess) {
          e.done = true;
          ++cursor_;
          Retire();
          continue;
        }
      }
      // RFC 6581 9.1: the peer takes no reads at all, as it said when it connected.
      if (IsRead(e.opcode) && session_.ord == 0) [[unlikely]] {
        e.failure = WcStatus::kRemoteInvalidRequest;
      }
      if (e.failure == WcStatus::kSuccess) Begin(e);
    }
    if (e.failure == WcStatus::kSuccess && AppendDataSegment(e)) return true;
    // It failed here: everything before it completes first, then it, then the rest is flushed.
    if (sq_.head() != cursor_) return false;
    if (unreliable()) {
      StopSends(e.failure);
    } else {
      FailOldest(e.failure, absl::FailedPreconditionError(WcStatusText(e.failure)));
    }
    return false;
  }
  return false;
}

inline void QueuePair::Begin(SendEntry& e) {
  e.rsn = next_rsn_++;
  e.send_msn = send_msn_;
  e.read_msn = read_msn_;
  begun_ = std::max(begun_, cursor_ + 1);
  cursor_started_ = true;
  cursor_offset_ = 0;
  cursor_immediate_ = false;
}

inline void QueuePair::AdvanceCursor() {
  sq_.at(cursor_).end = left_ + batch_.unsent();
  ++cursor_;
  cursor_started_ = false;
}

// What is framed must be there: this end copies it, or the send call fails in the middle of an FPDU
// that has a header already.
bool QueuePair::Readable(const Translation& where, uint32_t n) {
  return !where.region->guarded || GuardedProbe(where.host, n);
}

template <typename Use>
bool QueuePair::WalkPayload(uint32_t offset, uint32_t n, Use use) {
  for (const Sge* sge = sq_.sges(cursor_); n > 0; ++sge) {  // n is within their sum
    if (offset >= sge->length) {
      offset -= sge->length;
      continue;
    }
    const uint32_t part = std::min(sge->length - offset, n);
    const Translation t = config_.keys->Check(
        ReachOf(sge->key, sge->address + offset, part, Access::kLocalRead), &source_region_);
    if (!t.ok() || !use(t, part)) return false;
    n -= part;
    offset = 0;
  }
  return true;
}

inline bool QueuePair::CopyPayload(const SendEntry& e, uint32_t offset, uint32_t n, std::byte* to) {
  if (e.is_inline) {
    std::copy_n(sq_.inline_data(cursor_) + offset, n, to);
    return true;
  }
  return WalkPayload(offset, n, [&](const Translation& t, uint32_t part) {
    if (t.region->guarded) [[unlikely]] {
      if (!GuardedRead(to, t.host, part)) return false;
    } else {
      std::memcpy(to, t.host, part);
    }
    to += part;
    return true;
  });
}

int QueuePair::Pieces(uint32_t offset, uint32_t n, Piece* out) {
  int count = 0;
  const bool there = WalkPayload(offset, n, [&](const Translation& t, uint32_t part) {
    out[count++] = {t.host, part};
    return Readable(t, part);
  });
  return there ? count : -1;
}

// Own peers: this request is worth an acknowledgement soon.
inline uint8_t QueuePair::AckBit(const SendEntry& e) const {
  if (!session_.features.has(wire::kAcknowledge)) return 0;
  const bool half_full = outstanding() * 2 > sq_.max_wr();
  return e.signaled || Has(e.flags, SendFlags::kFence) || half_full ? wire::kAckRequest : 0;
}

bool QueuePair::AppendDataSegment(SendEntry& e) {
  if (IsRead(e.opcode)) {
    if (e.opcode == Opcode::kRead) {
      AppendReadRequest(e);
    } else {
      AppendAtomicRequest(e);
    }
    AdvanceCursor();
    return true;
  }
  if (cursor_immediate_) {
    AppendImmediate(e);
    AdvanceCursor();
    return true;
  }
  const bool send = IsSend(e.opcode);
  const uint32_t header = send ? sizeof(UntaggedHeader) : sizeof(TaggedHeader);
  const uint32_t n = std::min(SegmentSize(e.length, header), e.length - cursor_offset_);
  Piece pieces[kMaxSge];
  int count = 0;
  if (n > kCopyLimit && !e.is_inline) {
    count = Pieces(cursor_offset_, n, pieces);
  } else if (!CopyPayload(e, cursor_offset_, n, PlaceOfPayload(header))) {
    count = -1;
  }
  if (count < 0) {
    e.failure = WcStatus::kLocalProtectionError;
    return false;
  }
  const bool last = cursor_offset_ + n == e.length;
  const bool solicited = Has(e.flags, SendFlags::kSolicited);
  const std::span<const Piece> outside(pieces, static_cast<size_t>(count));
  if (send) {
    UntaggedHeader h;
    wire::Opcode op = solicited ? wire::Opcode::kSendSolicited : wire::Opcode::kSend;
    if (e.opcode == Opcode::kSendWithInvalidate) {
      op = solicited ? wire::Opcode::kSendSolicitedInvalidate : wire::Opcode::kSendInvalidate;
    }
    h.rdmap = RdmapByte(op);
    if (e.opcode == Opcode::kSendWithImm) h.rdmap |= wire::kWithImmediate;
    if (e.opcode != Opcode::kSend) h.ulp = e.immediate_or_key;
    h.msn = send_msn_;
    h.message_offset = cursor_offset_;
    if (last) {
      h.ddp |= wire::kLast;
      h.rdmap |= AckBit(e);
      ++send_msn_;
    }
    AppendFpdu(h, n, outside);
  } else {
    TaggedHeader h;
    h.rdmap = RdmapByte(wire::Opcode::kWrite);
    h.stag = e.remote_key;
    h.tagged_offset = e.remote_address + cursor_offset_;
    const bool immediate = e.opcode == Opcode::kWriteWithImm;
    if (immediate) h.rdmap |= wire::kWithImmediate;
    if (last) {
      h.ddp |= wire::kLast;
      if (!immediate) h.rdmap |= AckBit(e);
    }
    AppendFpdu(h, n, outside);
    if (last && immediate) {
      cursor_immediate_ = true;
      return true;
    }
  }
  cursor_offset_ += n;
  if (last) AdvanceCursor();
  return true;
}

void QueuePair::AppendImmediate(SendEntry& e) {
  UntaggedHeader h;
  h.rdmap = RdmapByte(Has(e.flags, SendFlags::kSolicited) ? wire::Opcode::kImmediateSolicited
                                                          : wire::Opcode::kImmediate);
  h.rdmap |= AckBit(e);
  h.msn = send_msn_++;
  wire::Immediate body;
  body.value = e.immediate_or_key;
  AppendWhole(h, wire::AsBytes(body));
}

// The sink of the answer is a key of its own, good for this read only and for nothing else: no
// region of the application is ever exposed to be read into (RFC 5040 4.4 asks for an STag).
void QueuePair::AppendReadRequest(SendEntry& e) {
  OutboundRead out;
  out.position = cursor_;
  out.sink = ++next_sink_;
  orq_.Push(out);
  asked_rsn_ = e.rsn;  // its answer comes behind all before it
  UntaggedHeader h;
  h.rdmap = RdmapByte(wire::Opcode::kReadRequest);
  h.queue_number = wire::kReadRequestQueue;
  h.msn = read_msn_++;
  wire::ReadRequest body;
  body.sink_stag = out.sink;
  body.size = e.length;
  body.source_stag = e.remote_key;
  body.source_offset = e.remote_address;
  AppendWhole(h, wire::AsBytes(body));
}

// A plain peer acknowledges nothing, but answers a read only when all before it is applied
// (RFC 5040 5.5). One read stands for many requests: it goes when no request can go now, and every
// so many. Not inside a message, and not beyond ORD: then the answer of another read wakes us.
bool QueuePair::ConfirmationDue() const {
  const uint32_t framed = next_rsn_ - 1;
  if (closing_ || cursor_started_ || framed == asked_rsn_ || !ReadMayGo()) return false;
  return cursor_ == sq_.tail() || framed - asked_rsn_ >= kConfirmEveryRequests ||
         !MayStart(sq_.at(cursor_));
}

void QueuePair::AppendConfirmation() {
  OutboundRead out;
  out.sink = ++next_sink_;
  out.confirms = true;
  out.confirmed = asked_rsn_ = next_rsn_ - 1;
  orq_.Push(out);
  UntaggedHeader h;
  h.rdmap = RdmapByte(wire::Opcode::kReadRequest);
  h.queue_number = wire::kReadRequestQueue;
  h.msn = read_msn_++;
  wire::ReadRequest body;
  body.sink_stag = out.sink;
  if (session_.lent.has_value()) {
    body.size = kLentSize;
    body.source_stag = session_.lent->key;
    body.source_offset = session_.lent->address;
  }
  AppendWhole(h, wire::AsBytes(body));
}

void QueuePair::AppendAtomicRequest(SendEntry& e) {
  OutboundRead out;
  out.position = cursor_;
  out.sink = ++next_sink_;
  orq_.Push(out);
  UntaggedHeader h;
  h.rdmap = RdmapByte(wire::Opcode::kAtomicRequest);
  h.queue_number = wire::kReadRequestQueue;  // RFC 7306 5: one sequence with reads
  h.msn = read_msn_++;
  const wire::AtomicRequest body =
      e.opcode == Opcode::kFetchAdd
          ? wire::MakeFetchAdd(out.sink, e.remote_key, e.remote_address, e.compare_add)
          : wire::MakeCompareSwap(out.sink, e.remote_key, e.remote_address, e.compare_add, e.swap);
  AppendWhole(h, wire::AsBytes(body));
}

bool QueuePair::RunLocal(SendEntry& e) {
  if (e.opcode == Opcode::kBindWindow) {
    BindWindow(e);
  } else if (!Invalidate(e.immediate_or_key)) {
    e.failure = WcStatus::kWindowBindError;
  }
  return e.failure == WcStatus::kSuccess;
}

// IBTA 10.6.7.2: a free window, or one of type 1, which may be bound anew, or to nothing; the same
// domain, inside the region, with its consent, never more than it allows.
void QueuePair::BindWindow(SendEntry& e) {
  Region& w = *e.window;
  Region& r = *e.region;
  const uint64_t address = e.compare_add;
  const uint64_t length = e.swap;
  const bool nothing = w.type_1 && length == 0;
  const bool inside = length > 0 && address >= r.first && length <= r.length &&
                      address - r.first <= r.length - length;
  const bool writes =
      (e.bind_access & (Access::kRemoteWrite | Access::kRemoteAtomic)) != Access::kLocalRead;
  std::lock_guard lock(w.binding);
  if (w.domain != config_.domain || r.domain != config_.domain ||
      !r.alive.load(std::memory_order_acquire) || !(inside || nothing) ||
      !Allows(r.access, Access::kWindowBind) ||
      (writes && !Allows(r.access, Access::kLocalWrite)) || (w.bound.load() && !w.type_1)) {
    e.failure = WcStatus::kWindowBindError;
    return;
  }
  if (w.bound.load()) ReleaseWindow(config_.keys, &w);
  if (nothing) return;
  w.key = e.immediate_or_key;
  w.access = e.bind_access;
  w.guarded = bool{r.guarded};
  w.first = e.remote_address;
  w.length = length;
  w.host = r.host + (address - r.first);
  w.bound_qp = config_.number;
  w.parent = &r;
  w.bound.store(true);
  r.windows.fetch_add(1);
  if (config_.keys->Insert(&w)) return;
  ReleaseWindow(config_.keys, &w);
  e.failure = WcStatus::kWindowBindError;
}

// Only windows, and only those bound through this queue pair (IBTA 10.6.7.2.6).
bool QueuePair::Invalidate(uint32_t key) {
  Region* w = config_.keys->Find(key);
  if (w == nullptr || !w->window || w->type_1 || w->domain != config_.domain ||
      w->bound_qp != config_.number) {
    return false;
  }
  ReleaseWindow(config_.keys, w);
  return true;
}

}  // namespace verbena::engine
