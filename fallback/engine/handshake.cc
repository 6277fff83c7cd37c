// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/handshake.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "fallback/engine/note.h"
#include "fallback/wire/crc32c.h"
#include "fallback/wire/ddp.h"
#include "fallback/wire/extension.h"
#include "fallback/wire/rdmap.h"
#include "fallback/wire/terminate.h"

namespace verbena::engine {

namespace {

constexpr uint32_t kFeatures =
    wire::kAcknowledge | wire::kRnr | wire::kImmediate | wire::kAtomics | wire::kLargeFpdu;

wire::Record MakeRecord(uint8_t role, const Require& require, QpType type) {
  wire::Record r;
  r.role = role;
  r.features = FeaturesOf(type);
  if (type == QpType::kUc) r.required = wire::kUnreliable;
  if (require.atomics) r.required |= wire::kAtomics;
  if (require.immediate) r.required |= wire::kImmediate;
  if (require.rnr) r.required |= wire::kRnr;
  if (require.remote_completion) r.required |= wire::kAcknowledge;
  return r;
}

std::string ToText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The application's bytes with our record behind them.
std::vector<std::byte> WithRecord(const std::string& data, const wire::Record& record) {
  std::vector<std::byte> out(data.size() + sizeof(wire::RecordBytes));
  std::copy_n(reinterpret_cast<const std::byte*>(data.data()), data.size(), out.begin());
  wire::AppendRecord(record, std::span(out).subspan(data.size()));
  return out;
}

std::vector<std::byte> Encode(const wire::MpaFrame& frame) {
  std::vector<std::byte> out(wire::kMpaMaxFrame);
  out.resize(wire::EncodeMpa(frame, out));
  return out;
}

uint16_t Depth(uint32_t n) { return static_cast<uint16_t>(std::clamp<uint32_t>(n, 1, kMaxDepth)); }

// A depth that the peer does not negotiate is not negotiated (RFC 6581 9.1).
uint16_t InKind(uint16_t theirs, uint32_t ours) {
  return theirs == wire::kMpaDepthUnspecified ? theirs : static_cast<uint16_t>(ours);
}

// A Terminate as the first and last FPDU of this end. With C set by the peer its CRC counts.
std::vector<std::byte> Parting(wire::TerminateError error, bool crc) {
  wire::Terminate terminate;
  terminate.error = error;
  std::byte body[wire::kMaxTerminateBody];
  const size_t n = wire::EncodeTerminate(terminate, body);
  wire::UntaggedHeader h;
  h.ddp |= wire::kLast;
  h.rdmap = wire::RdmapByte(wire::Opcode::kTerminate);
  h.queue_number = wire::kTerminateQueue;
  h.msn = 1;
  h.length = static_cast<uint16_t>(sizeof(h) - wire::kLengthSize + n);
  std::vector<std::byte> out(wire::FpduSize(sizeof(h), static_cast<uint32_t>(n)));
  std::copy_n(body, n, wire::Store(out.data(), h));
  if (crc) {
    const size_t covered = out.size() - wire::kCrcSize;
    const uint32_t value = wire::Crc32c(wire::kCrcBegin, std::span(out).first(covered));
    wire::Store(out.data() + covered, wire::WireCrc(value));
  }
  return out;
}

// Reads prove what a plain peer does not say (Session::confirm), if it takes any.
absl::Status SettleForeign(const Offer& mine, Session* s) {
  s->confirm = mine.require.remote_completion;
  const uint32_t proven = s->ord > 0 ? wire::kAcknowledge : 0;
  const uint32_t lacks = MakeRecord(0, mine.require, mine.type).required & ~proven;
  if (lacks == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("this end requires ", wire::FeatureName(lacks & -lacks),
                   ", and the peer is a plain iWARP one without it"));
}

absl::StatusOr<wire::Negotiated> SettleOwn(uint8_t role, const Offer& mine,
                                           const wire::Record& theirs) {
  const QpType type = (theirs.features & wire::kUnreliable) != 0 ? QpType::kUc : QpType::kRc;
  if (type != mine.type) {
    return absl::FailedPreconditionError(
        absl::StrCat("this end's queue pair is of type ", QpTypeName(mine.type),
                     ", and the peer's of type ", QpTypeName(type), "; make both of one type"));
  }
  absl::StatusOr<wire::Negotiated> n =
      wire::Negotiate(MakeRecord(role, mine.require, mine.type), theirs);
  if (!n.ok()) return absl::FailedPreconditionError(n.status().message());
  return n;
}

}  // namespace

uint32_t FeaturesOf(QpType type) {
  return type == QpType::kUc ? (kFeatures & ~(wire::kRnr | wire::kAtomics)) | wire::kUnreliable
                             : kFeatures;
}

absl::StatusOr<bool> FrameReader::Received(size_t n) {
  have_ += n;
  absl::StatusOr<size_t> size = wire::MpaFrameSize(frame());
  if (!size.ok()) return size.status();
  want_ = *size;
  return have_ >= sizeof(wire::MpaHeader) && have_ == want_;
}

std::vector<std::byte> EncodeRequest(const Offer& mine) {
  wire::Record record = MakeRecord(wire::kRoleRequest, mine.require, mine.type);
  std::string before = mine.private_data;
  if (mine.rendezvous) {
    record.features |= wire::kRendezvous;
    record.required |= wire::kRendezvous;
  }
  if (!mine.note.empty()) {
    record.features |= wire::kNote;
    record.required |= wire::kNote;  // who does not know it would take it for the application's
    before += EncodeNote(mine.note);
  }
  if (mine.out_of_band) {
    record.features |= wire::kOutOfBand;
    record.required |= wire::kOutOfBand;
  }
  const std::vector<std::byte> data = WithRecord(before, record);
  wire::MpaFrame f;
  f.ask = mine.rendezvous;
  f.revision = mine.revision;
  if (mine.revision == 2) {
    f.enhanced = f.peer_to_peer = f.rtr_write = f.rtr_read = true;
    f.ird = Depth(mine.responder_resources);
    f.ord = Depth(mine.initiator_depth);
  }
  f.private_data = data;
  return Encode(f);
}

absl::StatusOr<PeerRequest> DecodeRequest(std::span<const std::byte> bytes) {
  absl::StatusOr<wire::MpaFrame> f = wire::DecodeMpa(bytes);
  if (!f.ok()) return f.status();
  if (f->reply) return absl::InvalidArgumentError("an MPA Reply where a Request was due");
  if (f->markers) {
    return absl::UnimplementedError("the peer asks for MPA markers, which are not supported");
  }
  PeerRequest out;
  out.frame = *f;
  std::span<const std::byte> application = f->private_data;
  if (auto found = wire::FindRecord(f->private_data, wire::kRoleRequest)) {
    out.own_peer = true;
    out.record = found->record;
    application = found->application;
    out.rendezvous = (out.record.required & wire::kRendezvous) != 0;
    if ((out.record.features & wire::kNote) != 0) out.note = TakeNote(&application);
    out.out_of_band = (out.record.required & wire::kOutOfBand) != 0;
    out.record.features &= ~(wire::kNote | wire::kOutOfBand);
    out.record.required &= ~(wire::kNote | wire::kOutOfBand);
  } else {
    out.lent = TakeLentBytes(&application);
  }
  if (out.rendezvous != f->ask) {
    return absl::InvalidArgumentError(
        "a rendezvous is what both the key and the record's feature say, and here it is one alone");
  }
  out.private_data = ToText(application);
  out.frame.private_data = {};
  return out;
}

absl::StatusOr<Session> Agree(const PeerRequest& peer, const Offer& mine) {
  Session s;
  s.initiator = false;
  s.crc = peer.frame.crc;
  s.ord = Depth(mine.initiator_depth);
  s.ird = Depth(mine.responder_resources);
  // RFC 6581 9.1: neither end sends more than the other takes. 0x3fff, "not negotiated", is beyond
  // every depth of ours.
  if (peer.frame.enhanced) {
    s.ord = std::min<uint32_t>(s.ord, peer.frame.ird);
    s.ird = std::min<uint32_t>(s.ird, peer.frame.ord);
    if (peer.frame.peer_to_peer) {
      s.ready_frame = peer.frame.rtr_write  ? ReadyFrame::kWrite
                      : peer.frame.rtr_read ? ReadyFrame::kRead
                      : peer.frame.rtr_send ? ReadyFrame::kSend
                                            : ReadyFrame::kWrite;  // it names none: 9.2
      // That Read is one in flight, whatever the peer wants later; irdma leaves if we say none.
      if (s.ready_frame == ReadyFrame::kRead) s.ird = std::max(s.ird, 1u);
    }
  }
  if (!peer.own_peer) {
    s.lent = peer.lent;
    if (absl::Status lack = SettleForeign(mine, &s); !lack.ok()) return lack;
    return s;
  }
  const auto settled = SettleOwn(wire::kRoleReply, mine, peer.record);
  if (!settled.ok()) return settled.status();
  s.features = *settled;
  return s;
}

std::vector<std::byte> EncodeReply(const PeerRequest& peer, const Offer& mine, const Session& s) {
  std::vector<std::byte> data;
  if (peer.own_peer) {
    data = WithRecord(mine.private_data, MakeRecord(wire::kRoleReply, mine.require, mine.type));
  } else {
    data.assign(
        reinterpret_cast<const std::byte*>(mine.private_data.data()),
        reinterpret_cast<const std::byte*>(mine.private_data.data()) + mine.private_data.size());
  }
  wire::MpaFrame f;
  f.reply = true;
  f.crc = s.crc;
  f.revision = peer.frame.revision;
  f.enhanced = peer.frame.enhanced;
  f.peer_to_peer = s.ready_frame != ReadyFrame::kNone;
  f.rtr_write = s.ready_frame == ReadyFrame::kWrite;
  f.rtr_read = s.ready_frame == ReadyFrame::kRead;
  f.rtr_send = s.ready_frame == ReadyFrame::kSend;
  f.ird = InKind(peer.frame.ord, s.ird);
  f.ord = InKind(peer.frame.ird, s.ord);
  f.private_data = data;
  return Encode(f);
}

std::vector<std::byte> EncodeReject(const PeerRequest& peer, const std::string& private_data) {
  wire::MpaFrame f;
  f.reply = f.rejected = true;
  f.revision = peer.frame.revision;
  f.enhanced = peer.frame.enhanced;
  std::vector<std::byte> data(private_data.size());
  std::copy_n(reinterpret_cast<const std::byte*>(private_data.data()), data.size(), data.begin());
  if (peer.own_peer) data = WithRecord(private_data, MakeRecord(wire::kRoleReply, {}, QpType::kRc));
  f.private_data = data;
  return Encode(f);
}

std::vector<std::byte> EncodeRefusal(std::span<const std::byte> frame, const absl::Status& why) {
  const absl::StatusOr<wire::MpaFrame> f = wire::DecodeMpa(frame);
  if (!f.ok() || f->reply) return {};
  PeerRequest peer;
  peer.frame = *f;
  return EncodeReject(peer, std::string(why.message()));
}

absl::StatusOr<PeerReply> DecodeReply(std::span<const std::byte> bytes, const Offer& mine) {
  absl::StatusOr<wire::MpaFrame> f = wire::DecodeMpa(bytes);
  if (!f.ok()) return f.status();
  if (!f->reply) return absl::InvalidArgumentError("an MPA Request where a Reply was due");
  PeerReply out;
  out.rejected = f->rejected;
  std::span<const std::byte> application = f->private_data;
  auto found = wire::FindRecord(f->private_data, wire::kRoleReply);
  if (found) {
    out.own_peer = true;
    application = found->application;
  }
  const std::optional<LentBytes> lent = found ? std::nullopt : TakeLentBytes(&application);
  out.private_data = ToText(application);
  if (out.rejected) return out;
  if (mine.rendezvous) {
    return absl::FailedPreconditionError("the peer accepted what is only to be rejected");
  }
  if (f->markers) {
    return absl::UnimplementedError("the peer asks for MPA markers, which are not supported");
  }
  Session& s = out.session;
  s.initiator = true;
  s.crc = f->crc;
  s.ord = Depth(mine.initiator_depth);
  s.ird = Depth(mine.responder_resources);
  if (f->enhanced) {
    s.ord = std::min<uint32_t>(s.ord, f->ird);
    // RFC 6581 9.1: at least what the responder wants, also beyond what was offered, as long as
    // there are places for that many.
    if (f->ord > kMaxDepth && f->ord != wire::kMpaDepthUnspecified) {
      out.refused = absl::ResourceExhaustedError(
          absl::StrCat("the peer wants ", f->ord, " reads in flight, more than the ", kMaxDepth,
                       " that this end has (RFC 6581 9.1)"));
      out.parting = Parting(wire::error::kInsufficientIrd, f->crc);
      return out;
    }
    s.ird = f->ord == wire::kMpaDepthUnspecified ? s.ird : f->ord;
    if (f->peer_to_peer) {  // it names exactly one; WRITE if it names both
      if (!f->rtr_write && !f->rtr_read) {
        out.refused = absl::UnimplementedError(
            "the peer names no ready-to-receive frame of those on offer, Write and Read (RFC 6581 "
            "9.2)");
        out.parting = Parting(wire::error::kNoMatchingRtr, f->crc);
        return out;
      }
      s.ready_frame = f->rtr_write ? ReadyFrame::kWrite : ReadyFrame::kRead;
    }
  }
  if (!found) {
    s.lent = lent;
    if (absl::Status lack = SettleForeign(mine, &s); !lack.ok()) return lack;
    return out;
  }
  const auto settled = SettleOwn(wire::kRoleRequest, mine, found->record);
  if (!settled.ok()) return settled.status();
  s.features = *settled;
  return out;
}

}  // namespace verbena::engine
