// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/test_fpdu.h"

#include "absl/strings/str_cat.h"
#include "fallback/wire/crc32c.h"

namespace verbena::engine {

namespace {

template <typename Header>
Bytes Make(Header h, std::span<const std::byte> payload, bool crc) {
  if (h.length == 0) {
    h.length = static_cast<uint16_t>(sizeof(Header) - wire::kLengthSize + payload.size());
  }
  Bytes out(wire::FpduSize(sizeof(Header), static_cast<uint32_t>(payload.size())));
  std::byte* at = wire::Store(out.data(), h);
  std::copy(payload.begin(), payload.end(), at);
  if (crc) {
    const size_t covered = out.size() - wire::kCrcSize;
    wire::Store(out.data() + covered,
                wire::WireCrc(wire::Crc32c(wire::kCrcBegin, {out.data(), covered})));
  }
  return out;
}

std::string NameOf(const Fpdu& f) {
  switch (f.opcode()) {
    case wire::Opcode::kWrite:
      return "Write";
    case wire::Opcode::kReadRequest:
      return "Read";
    case wire::Opcode::kReadResponse:
      return "Data";
    case wire::Opcode::kSend:
      return "Send";
    case wire::Opcode::kSendSolicited:
      return "Send!";
    case wire::Opcode::kSendInvalidate:
      return "SendInv";
    case wire::Opcode::kSendSolicitedInvalidate:
      return "SendInv!";
    case wire::Opcode::kTerminate:
      return "Terminate";
    case wire::Opcode::kImmediate:
      return "Imm";
    case wire::Opcode::kImmediateSolicited:
      return "Imm!";
    case wire::Opcode::kAtomicRequest:
      return "Atomic";
    case wire::Opcode::kAtomicResponse:
      return "Original";
    case wire::Opcode::kControl: {
      const wire::Control c = wire::ReadControl(f.untagged);
      return absl::StrCat(wire::ControlName(c.type), "(", c.rsn, ")");
    }
  }
  return "?";
}

}  // namespace

Bytes MakeFpdu(wire::TaggedHeader h, std::span<const std::byte> payload, bool crc) {
  return Make(h, payload, crc);
}
Bytes MakeFpdu(wire::UntaggedHeader h, std::span<const std::byte> payload, bool crc) {
  return Make(h, payload, crc);
}
Bytes MakeControlFpdu(const wire::Control& control, std::string_view text, bool crc) {
  return Make(wire::MakeControl(control, static_cast<uint32_t>(text.size())),
              std::as_bytes(std::span(text)), crc);
}

wire::TaggedHeader WriteHeader(uint32_t stag, uint64_t offset, uint8_t extra) {
  wire::TaggedHeader h;
  h.ddp |= wire::kLast;
  h.rdmap = wire::RdmapByte(wire::Opcode::kWrite) | extra;
  h.stag = stag;
  h.tagged_offset = offset;
  return h;
}

wire::UntaggedHeader UntaggedOf(wire::Opcode opcode, uint32_t msn) {
  wire::UntaggedHeader h;
  h.ddp |= wire::kLast;
  h.rdmap = wire::RdmapByte(opcode);
  h.queue_number = wire::kOpcodeRules[static_cast<int>(opcode)].queue;
  h.msn = msn;
  return h;
}

wire::UntaggedHeader SendHeader(uint32_t msn, uint32_t offset, uint8_t extra) {
  wire::UntaggedHeader h = UntaggedOf(wire::Opcode::kSend, msn);
  h.rdmap |= extra;
  h.message_offset = offset;
  return h;
}

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::vector<Fpdu> ParseFpdus(std::span<const std::byte> stream) {
  std::vector<Fpdu> out;
  while (stream.size() >= wire::FpduSize(sizeof(wire::TaggedHeader), 0)) {
    Fpdu f;
    f.size = wire::FpduSizeOfUlpdu(wire::Load<wire::Be16>(stream.data()));
    if (f.size > stream.size()) break;
    f.ddp = static_cast<uint8_t>(stream[2]);
    f.rdmap = static_cast<uint8_t>(stream[3]);
    uint32_t payload = 0;
    if (wire::IsTagged(f.ddp)) {
      f.tagged = wire::Load<wire::TaggedHeader>(stream.data());
      payload = wire::PayloadSize(f.tagged);
    } else {
      f.untagged = wire::Load<wire::UntaggedHeader>(stream.data());
      payload = wire::PayloadSize(f.untagged);
    }
    const auto body = stream.subspan(wire::HeaderSize(f.ddp), payload);
    f.payload.assign(body.begin(), body.end());
    const size_t covered = f.size - wire::kCrcSize;
    f.crc_is_right = wire::Load<wire::Le32>(stream.data() + covered) ==
                     wire::WireCrc(wire::Crc32c(wire::kCrcBegin, stream.first(covered)));
    stream = stream.subspan(f.size);
    out.push_back(std::move(f));
  }
  return out;
}

std::string TraceOf(std::span<const std::byte> stream) {
  std::string out;
  for (const Fpdu& f : ParseFpdus(stream)) {
    absl::StrAppend(&out, out.empty() ? "" : " ", NameOf(f));
    if ((f.ddp & wire::kLast) == 0) out += "~";
    if ((f.rdmap & wire::kAckRequest) != 0) out += "*";
    if ((f.rdmap & wire::kWithImmediate) != 0) out += "#";
  }
  return out;
}

}  // namespace verbena::engine
