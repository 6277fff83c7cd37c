// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/peer.h"

#include <algorithm>
#include <string>

#include "fallback/wire/crc32c.h"

namespace verbena::fuzz {

using engine::Bytes;
using engine::MakeFpdu;
using engine::SendHeader;
using engine::UntaggedOf;
using engine::WriteHeader;
using engine::operator+;

namespace {

// Bytes that differ from what was there, and from those of other steps.
Bytes Payload(size_t size, uint8_t seed) { return Bytes(size, static_cast<std::byte>(seed | 1)); }

// Sizes around the places where the engine turns: nothing, words, the direct placement, segments.
uint32_t Size(uint16_t from) {
  static constexpr uint32_t kSizes[] = {0, 1, 7, 8, 9, 64, 511, 1500, 4095, 4104, 4200, 6000};
  return (from & 0x80) == 0 ? kSizes[(from >> 8) % std::size(kSizes)] : from % 6001;
}

// Where in an area: its start, a little behind, or close to its end, before and beyond.
uint64_t Offset(uint16_t from) {
  switch (from & 3) {
    case 0:
      return 0;
    case 1:
      return (from >> 2) & ~7u;
    case 2:
      return from >> 2;
    default:
      return static_cast<uint64_t>(static_cast<int16_t>(from) >> 2);
  }
}

template <typename Header>
void SetLast(Header* h, bool last) {
  if (!last) h->ddp &= static_cast<uint8_t>(~wire::kLast);
}

}  // namespace

Step::Step(Input* input)
    : kind(input->Byte()),
      a(input->Byte()),
      b(input->Byte()),
      c(static_cast<uint16_t>(input->Number(2))),
      d(static_cast<uint16_t>(input->Number(2))),
      damage(input->Byte()),
      where(input->Byte()),
      mask(input->Byte()),
      more(static_cast<uint8_t>(input->Number(2))) {}

void Peer::Count() { requests_.push_back(next_); }

uint32_t Peer::Key(uint8_t choice) const {
  const int i = choice % (kAreas + 2);
  if (i == kAreas) return subject_.window_key();
  return i < kAreas ? subject_.key(static_cast<Area>(i)) : 0x1234;
}

uint64_t Peer::At(uint8_t choice) const {
  const int i = choice % (kAreas + 2);
  if (i == kAreas) return subject_.at(Area::kLendable) + 512;  // the window's first byte
  return subject_.at(i < kAreas ? static_cast<Area>(i) : Area::kWritable);
}

Bytes Peer::ReadyFrame() {
  if (subject_.session().initiator) return {};
  switch (subject_.session().ready_frame) {
    case engine::ReadyFrame::kWrite:
      return MakeFpdu(WriteHeader(0, 0), {}, crc());
    case engine::ReadyFrame::kRead:
      return MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, next_.read_msn++),
                      wire::AsBytes(wire::ReadRequest{}), crc());
    case engine::ReadyFrame::kSend:
      return MakeFpdu(SendHeader(next_.send_msn++), {}, crc());
    case engine::ReadyFrame::kNone:
      break;
  }
  return {};
}

Bytes Peer::Say(const Step& step) {
  if (const uint32_t refused = subject_.TakeRefused(); refused != 0) {
    refused_ = refused;
    if (refused < requests_.size()) {
      next_ = requests_[refused];
      requests_.resize(refused);
    }
  }
  switch (step.kind % 16) {
    case 0:
    case 1:
    case 2:
      return Damaged(Write(step), step);
    case 3:
    case 4:
    case 5:
      return Damaged(Send(step), step);
    case 6:
      return Damaged(ReadRequest(step), step);
    case 7:
      return Damaged(Atomic(step), step);
    case 8:
    case 9:
    case 10:
      return Damaged(Answer(step), step);
    case 11:
    case 12:
    case 13:
      return Damaged(Control(step), step);
    case 14:
      return Damaged(Terminate(step), step);
    default:
      return Damaged(Immediate(step), step);
  }
}

// One message in one or more segments, with or without an Immediate behind it.
Bytes Peer::Write(const Step& s) {
  Bytes out;
  Count();
  const uint32_t size = Size(s.d);
  const uint32_t parts = s.b % 4 == 3 ? 2 + s.b / 64 : 1;
  const bool immediate = (s.b & 4) != 0;
  uint64_t at = At(s.a) + Offset(s.c);
  for (uint32_t i = 0; i < parts; ++i) {
    const uint32_t n = i + 1 < parts ? size / parts : size - i * (size / parts);
    wire::TaggedHeader h = WriteHeader(Key(s.a), at, immediate ? wire::kWithImmediate : 0);
    if ((s.b & 8) != 0) h.rdmap |= wire::kAckRequest;
    SetLast(&h, i + 1 == parts && s.more != 1);
    out = out + MakeFpdu(h, Payload(n, s.more), crc());
    at += n;
  }
  if (immediate && (s.b & 16) != 0) out = out + Immediate(s);
  return out;
}

Bytes Peer::Send(const Step& s) {
  static constexpr wire::Opcode kKinds[] = {wire::Opcode::kSend, wire::Opcode::kSendSolicited,
                                            wire::Opcode::kSendInvalidate,
                                            wire::Opcode::kSendSolicitedInvalidate};
  Bytes out;
  Count();
  const uint32_t size = Size(s.d);
  const uint32_t parts = s.b % 4 == 3 ? 2 + s.b / 64 : 1;
  for (uint32_t i = 0, at = 0; i < parts; ++i) {
    const uint32_t n = i + 1 < parts ? size / parts : size - at;
    wire::UntaggedHeader h = SendHeader(next_.send_msn, at);
    h.rdmap = wire::RdmapByte(kKinds[(s.a >> 4) % 4]);
    if ((s.b & 4) != 0) h.rdmap |= wire::kWithImmediate;
    if ((s.b & 8) != 0) h.rdmap |= wire::kAckRequest;
    h.ulp = (s.b & 16) != 0 ? s.c : subject_.window_key();
    SetLast(&h, i + 1 == parts && s.more != 1);
    out = out + MakeFpdu(h, Payload(n, s.more), crc());
    at += n;
  }
  ++next_.send_msn;
  return out;
}

Bytes Peer::Immediate(const Step& s) {
  wire::Immediate body;
  body.value = s.c;
  const auto op = (s.b & 32) != 0 ? wire::Opcode::kImmediateSolicited : wire::Opcode::kImmediate;
  return MakeFpdu(UntaggedOf(op, next_.send_msn++), wire::AsBytes(body), crc());
}

Bytes Peer::ReadRequest(const Step& s) {
  Bytes out;
  for (int i = 0; i <= s.b % 4; ++i) {
    Count();
    wire::ReadRequest body;
    body.sink_stag = s.more;
    body.sink_offset = s.more;
    body.size = Size(s.d);
    const uint8_t area = s.a % 2 == 0 ? static_cast<uint8_t>(Area::kReadable) : s.a / 2;
    body.source_stag = Key(area);
    body.source_offset = At(area) + Offset(s.c);
    out = out + MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, next_.read_msn++),
                         wire::AsBytes(body), crc());
  }
  return out;
}

Bytes Peer::Atomic(const Step& s) {
  Count();
  const uint8_t area = s.a % 2 == 0 ? static_cast<uint8_t>(Area::kAtomic) : s.a / 2;
  const uint64_t at = At(area) + Offset(s.c);
  const wire::AtomicRequest body = (s.b & 1) != 0
                                       ? wire::MakeFetchAdd(s.more, Key(area), at, s.d)
                                       : wire::MakeCompareSwap(s.more, Key(area), at, s.d, s.c);
  return MakeFpdu(UntaggedOf(wire::Opcode::kAtomicRequest, next_.read_msn++), wire::AsBytes(body),
                  crc());
}

// Of the oldest question: as it should be, in pieces or at once, or of what was not asked.
Bytes Peer::Answer(const Step& s) {
  auto& questions = subject_.questions();
  Question q = questions.empty() ? Question{(s.b & 1) != 0, s.c, s.d, 0} : questions.front();
  if (q.atomic != ((s.b & 64) != 0)) {
    if (!questions.empty()) questions.pop_front();
    wire::AtomicResponse body;
    body.request_id = q.sink;
    body.original = s.c;
    return MakeFpdu(UntaggedOf(wire::Opcode::kAtomicResponse, answer_msn_++), wire::AsBytes(body),
                    crc());
  }
  const uint32_t left = std::min<uint32_t>(q.size - q.done, wire::kMaxTaggedPayload);
  const uint32_t n = (s.b & 2) != 0 ? std::min(left, Size(s.d)) : left;
  wire::TaggedHeader h = WriteHeader(q.sink, q.done);
  h.rdmap = wire::RdmapByte(wire::Opcode::kReadResponse);
  SetLast(&h, n == left);
  if (!questions.empty()) {
    questions.front().done += n;
    if (n == left) questions.pop_front();
  }
  return MakeFpdu(h, Payload(n, s.more), crc());
}

Bytes Peer::Control(const Step& s) {
  using wire::ControlType;
  static constexpr ControlType kTypes[] = {
      ControlType::kAck,    ControlType::kAck,   ControlType::kAck, ControlType::kRnrNak,
      ControlType::kResume, ControlType::kReady, ControlType::kNak, ControlType::kBye};
  wire::Control c;
  c.type = kTypes[s.a % std::size(kTypes)];
  std::string text;
  static constexpr int kOff[] = {1, -1, 2, -2, 3, 100, -100, 1 << 30};
  const uint32_t off = s.b % 8 >= 6 ? static_cast<uint32_t>(kOff[s.b / 32]) : 0;
  switch (c.type) {
    case ControlType::kAck:
      c.rsn = subject_.sent_rsn() + off;
      break;
    case ControlType::kRnrNak:
      c.rsn = subject_.sent_rsn() + off;
      c.value = s.c % 33;
      break;
    case ControlType::kResume:
      c.rsn = refused_ + off;
      break;
    case ControlType::kReady:
      c.rsn = subject_.sent_rsn() + off;
      break;
    case ControlType::kNak:
      c.rsn = subject_.sent_rsn() + off;
      c.code = static_cast<wire::NakCode>(s.c % 6);
      text.assign(s.d % 130, 'n');
      break;
    case ControlType::kBye:
      break;
  }
  return engine::MakeControlFpdu(c, text, crc());
}

Bytes Peer::Terminate(const Step& s) {
  wire::UntaggedHeader h = UntaggedOf(wire::Opcode::kTerminate, 1);
  Bytes body = Payload(s.b % 60, s.more);
  if (body.size() > 2) {
    body[0] = static_cast<std::byte>(s.c >> 8);
    body[2] = static_cast<std::byte>(s.c);
  }
  return MakeFpdu(h, body, crc());
}

// A wrong byte, a wrong length, a cut; with the CRC of what it then is, or the one of before.
Bytes Peer::Damaged(Bytes fpdu, const Step& s) const {
  if (s.damage % 8 != 7 || fpdu.empty()) return fpdu;
  const size_t at = s.where % std::min<size_t>(fpdu.size(), 80);
  if ((s.damage & 0x10) != 0) {
    fpdu.resize(fpdu.size() - std::min<size_t>(fpdu.size(), s.where));
    return fpdu;
  }
  fpdu[at] ^= static_cast<std::byte>(s.mask);
  if ((s.damage & 0x20) != 0 && crc() && fpdu.size() >= 24) {
    const size_t covered = fpdu.size() - wire::kCrcSize;
    wire::Store(fpdu.data() + covered,
                wire::WireCrc(wire::Crc32c(wire::kCrcBegin, {fpdu.data(), covered})));
  }
  return fpdu;
}

}  // namespace verbena::fuzz
