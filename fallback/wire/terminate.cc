// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/terminate.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "fallback/wire/ddp.h"

namespace verbena::wire {
namespace {

struct Row {
  TerminateError error;
  const char* text;
};

// The IANA registry "RDDP" (RFC 6580), in its order.
constexpr Row kAssigned[] = {
    {error::kReadStag, "RDMAP: invalid STag"},
    {error::kReadBounds, "RDMAP: base or bounds violation"},
    {error::kAccess, "RDMAP: access rights violation"},
    {error::kReadStagNotAssociated, "RDMAP: STag not associated with this stream"},
    {error::kReadWrap, "RDMAP: tagged offset wraps"},
    {error::kCannotInvalidate, "RDMAP: STag cannot be invalidated"},
    {{0, 1, 0xff}, "RDMAP: unspecified remote protection error"},
    {error::kRdmapVersion, "RDMAP: invalid version"},
    {error::kUnexpectedOpcode, "RDMAP: unexpected opcode"},
    {error::kStreamCatastrophic, "RDMAP: catastrophic error of this stream"},
    {error::kGlobalCatastrophic, "RDMAP: catastrophic error, global"},
    {{0, 2, 0x09}, "RDMAP: STag cannot be invalidated"},
    {error::kUnspecified, "RDMAP: unspecified remote operation error"},
    {error::kDdpCatastrophic, "DDP: local catastrophic error"},
    {error::kStag, "DDP tagged buffer: invalid STag"},
    {error::kBounds, "DDP tagged buffer: base or bounds violation"},
    {error::kStagNotAssociated, "DDP tagged buffer: STag not associated with this stream"},
    {error::kWrap, "DDP tagged buffer: tagged offset wraps"},
    {error::kTaggedVersion, "DDP tagged buffer: invalid version"},
    {error::kQueueNumber, "DDP untagged buffer: invalid queue number"},
    {error::kNoBuffer, "DDP untagged buffer: no receive buffer available"},
    {error::kMsn, "DDP untagged buffer: message sequence number out of range"},
    {error::kMessageOffset, "DDP untagged buffer: invalid message offset"},
    {error::kTooLong, "DDP untagged buffer: message longer than the buffer"},
    {error::kUntaggedVersion, "DDP untagged buffer: invalid version"},
    {error::kTcpLost, "MPA: TCP connection closed, terminated or lost"},
    {error::kCrc, "MPA: CRC mismatch"},
    {error::kFpdu, "MPA: marker and ULPDU length disagree"},
    {error::kMpaFrame, "MPA: invalid Request or Reply frame"},
    {error::kMpaCatastrophic, "MPA: local catastrophic error"},
    {error::kInsufficientIrd, "MPA: insufficient IRD resources"},
    {error::kNoMatchingRtr, "MPA: no matching RTR option"},
};

const char* AssignedText(TerminateError e) {
  // 0x0/0x0 is "local catastrophic" with every code.
  if (e.layer == kLayerRdmap && e.type == kRdmapCatastrophic) {
    return "RDMAP: local catastrophic error";
  }
  for (const Row& row : kAssigned) {
    if (row.error == e) return row.text;
  }
  return nullptr;
}

constexpr uint8_t kRfcFlags = kTermLengthValid | kTermDdpHeader | kTermReadRequest;
constexpr uint8_t kSiwLength = 0x01;
constexpr uint8_t kSiwDdpHeader = 0x02;
constexpr uint8_t kSiwReadRequest = 0x04;
constexpr uint8_t kSiwFlags = kSiwLength | kSiwDdpHeader | kSiwReadRequest;

uint8_t RfcFlagsOfSiw(uint8_t flags) {
  return static_cast<uint8_t>((flags & kSiwLength ? kTermLengthValid : 0) |
                              (flags & kSiwDdpHeader ? kTermDdpHeader : 0) |
                              (flags & kSiwReadRequest ? kTermReadRequest : 0));
}

// Chooses between the two readings of byte 0; returns the flags in the RFC's places.
uint8_t ReadControlWord(const TerminateControl& word, Terminate& out) {
  const uint8_t high = word.layer_type >> 4;
  const uint8_t low = word.layer_type & 0x0f;
  const TerminateError rfc{high, low, word.code};
  const TerminateError siw{low, high, word.code};
  const bool rfc_flags = (word.flags & kRfcFlags) != 0;
  const bool siw_flags = (word.flags & kSiwFlags) != 0;
  out.error = rfc;
  if (rfc_flags) return word.flags & kRfcFlags;  // low bits are reserved then: not checked
  if (siw_flags) {
    out.error = siw;
    return RfcFlagsOfSiw(word.flags);
  }
  // No flags at all. If only one reading is an assigned number it is that one.
  if (rfc == siw) return 0;
  if (IsAssigned(rfc) == IsAssigned(siw)) {
    out.ambiguous = true;
    out.other = siw;
  } else if (IsAssigned(siw)) {
    out.error = siw;
  }
  return 0;
}

}  // namespace

bool IsAssigned(TerminateError e) { return AssignedText(e) != nullptr; }

const char* TerminateText(uint8_t layer, uint8_t type, uint8_t code) {
  const char* text = AssignedText({layer, type, code});
  return text != nullptr ? text : "unknown error";
}

size_t EncodeTerminate(const Terminate& terminate, std::span<std::byte> out) {
  const size_t ddp = terminate.ddp_header.size();
  const size_t read = terminate.read_request.size();
  if (ddp != 0 && ddp != kTaggedUlpdu && ddp != kUntaggedUlpdu) return 0;
  if (read != 0 && (read != 28 || ddp == 0)) return 0;  // RFC 5040 4.8: R only with D
  const size_t size = sizeof(TerminateControl) + (ddp != 0 ? sizeof(Be16) + ddp + read : 0);
  if (out.size() < size) return 0;

  TerminateControl word;
  word.layer_type =
      static_cast<uint8_t>(terminate.error.layer << 4 | (terminate.error.type & 0x0f));
  word.code = terminate.error.code;
  if (ddp != 0) word.flags = kTermLengthValid | kTermDdpHeader;
  if (read != 0) word.flags |= kTermReadRequest;
  std::byte* at = Store(out.data(), word);
  if (ddp != 0) {
    at = Store(at, Be16(terminate.segment_length));
    at = std::copy(terminate.ddp_header.begin(), terminate.ddp_header.end(), at);
    std::copy(terminate.read_request.begin(), terminate.read_request.end(), at);
  }
  return size;
}

absl::StatusOr<Terminate> DecodeTerminate(std::span<const std::byte> body) {
  if (body.size() < sizeof(TerminateControl)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Terminate of ", body.size(), " bytes has no control word (RFC 5040 4.8: 4 bytes)"));
  }
  Terminate out;
  const uint8_t flags = ReadControlWord(Load<TerminateControl>(body.data()), out);
  body = body.subspan(sizeof(TerminateControl));
  // Takes `size` bytes, or none and says so: what came is used as far as it goes.
  auto take = [&](size_t size) {
    if (body.size() < size) {
      out.truncated = true;
      body = {};
      return body;
    }
    const auto taken = body.first(size);
    body = body.subspan(size);
    return taken;
  };
  if ((flags & (kTermLengthValid | kTermDdpHeader)) != 0) {
    if (const auto length = take(sizeof(Be16)); !length.empty()) {
      out.segment_length = Load<Be16>(length.data());
    }
  }
  if ((flags & kTermDdpHeader) != 0) {
    const bool tagged = !body.empty() && IsTagged(static_cast<uint8_t>(body[0]));
    out.ddp_header = take(tagged ? kTaggedUlpdu : kUntaggedUlpdu);
  }
  if ((flags & kTermReadRequest) != 0) out.read_request = take(28);
  return out;
}

}  // namespace verbena::wire
