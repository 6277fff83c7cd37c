// SPDX-License-Identifier: Apache-2.0
//
// The Terminate message (RFC 5040 4.8, opcode 7) and its error numbers. Body:
//
//   layer 4 bits, type 4 bits | code 8 | M D R, 13 reserved bits        always
//   DDP Segment Length 2 | DDP header 14 or 18                          if M, D
//   Read Request 28                                                     if R
//
// The kernel's siw, on little-endian hosts, emits the nibbles of byte 0 exchanged and the flags in
// the low bits of byte 2. DecodeTerminate understands both; EncodeTerminate emits the RFC's order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "fallback/wire/bytes.h"

namespace verbena::wire {

struct TerminateError {
  uint8_t layer = 0;
  uint8_t type = 0;
  uint8_t code = 0;
  friend constexpr bool operator==(const TerminateError&, const TerminateError&) = default;
};

enum TerminateLayer : uint8_t { kLayerRdmap = 0, kLayerDdp = 1, kLayerMpa = 2 };
enum RdmapErrorType : uint8_t { kRdmapCatastrophic = 0, kRemoteProtection = 1, kRemoteOp = 2 };
enum DdpErrorType : uint8_t { kDdpCatastrophic = 0, kTaggedBuffer = 1, kUntaggedBuffer = 2 };

namespace error {  // {layer, type, code}
// RFC 5040 4.8. Layer 0 type 1 is about the source of a read, an atomic's target, or an
// invalidation.
inline constexpr TerminateError kRdmapCatastrophic{0, 0, 0x00};
inline constexpr TerminateError kReadStag{0, 1, 0x00};
inline constexpr TerminateError kReadBounds{0, 1, 0x01};
inline constexpr TerminateError kAccess{0, 1, 0x02};
inline constexpr TerminateError kReadStagNotAssociated{0, 1, 0x03};
inline constexpr TerminateError kReadWrap{0, 1, 0x04};
inline constexpr TerminateError kCannotInvalidate{0, 1, 0x09};
inline constexpr TerminateError kRdmapVersion{0, 2, 0x05};
inline constexpr TerminateError kUnexpectedOpcode{0, 2, 0x06};
inline constexpr TerminateError kStreamCatastrophic{0, 2, 0x07};  // RFC 7306 8.2: misaligned atomic
inline constexpr TerminateError kGlobalCatastrophic{0, 2, 0x08};
inline constexpr TerminateError kUnspecified{0, 2, 0xff};
// RFC 5041 7.2: the target of a write or a read response; the untagged queues.
inline constexpr TerminateError kDdpCatastrophic{1, 0, 0x00};
inline constexpr TerminateError kStag{1, 1, 0x00};
inline constexpr TerminateError kBounds{1, 1, 0x01};
inline constexpr TerminateError kStagNotAssociated{1, 1, 0x02};
inline constexpr TerminateError kWrap{1, 1, 0x03};
inline constexpr TerminateError kTaggedVersion{1, 1, 0x04};
inline constexpr TerminateError kQueueNumber{1, 2, 0x01};
inline constexpr TerminateError kNoBuffer{1, 2, 0x02};
inline constexpr TerminateError kMsn{1, 2, 0x03};
inline constexpr TerminateError kMessageOffset{1, 2, 0x04};
inline constexpr TerminateError kTooLong{1, 2, 0x05};
inline constexpr TerminateError kUntaggedVersion{1, 2, 0x06};
// RFC 5044 8, RFC 6581 8.
inline constexpr TerminateError kTcpLost{2, 0, 0x01};
inline constexpr TerminateError kCrc{2, 0, 0x02};
inline constexpr TerminateError kFpdu{2, 0, 0x03};
inline constexpr TerminateError kMpaFrame{2, 0, 0x04};
inline constexpr TerminateError kMpaCatastrophic{2, 0, 0x05};
inline constexpr TerminateError kInsufficientIrd{2, 0, 0x06};
inline constexpr TerminateError kNoMatchingRtr{2, 0, 0x07};
}  // namespace error

// What a check found, and how to tell the peer. True if there is something.
struct Fault {
  const char* why = nullptr;
  TerminateError error;
  explicit constexpr operator bool() const { return why != nullptr; }
};

// Never null; "unknown error" for numbers that no RFC assigns.
const char* TerminateText(uint8_t layer, uint8_t type, uint8_t code);
inline const char* TerminateText(TerminateError e) {
  return TerminateText(e.layer, e.type, e.code);
}
bool IsAssigned(TerminateError e);

struct TerminateControl {
  uint8_t layer_type = 0;  // layer in 0xf0, type in 0x0f
  uint8_t code = 0;
  uint8_t flags = 0;
  uint8_t reserved = 0;
};
static_assert(WireStruct<TerminateControl> && sizeof(TerminateControl) == 4);
static_assert(offsetof(TerminateControl, code) == 1 && offsetof(TerminateControl, flags) == 2);

inline constexpr uint8_t kTermLengthValid = 0x80;  // M
inline constexpr uint8_t kTermDdpHeader = 0x40;    // D
inline constexpr uint8_t kTermReadRequest = 0x20;  // R
inline constexpr size_t kMaxTerminateBody = 4 + 2 + 18 + 28;

struct Terminate {
  TerminateError error;
  // Decode only: byte 0 has two legal readings and byte 2 does not decide. `error` is the RFC's,
  // `other` is siw's; report both.
  bool ambiguous = false;
  TerminateError other;
  bool truncated = false;       // decode only: the flags promise more than there is
  uint16_t segment_length = 0;  // of the offending DDP segment
  // Empty, or the offending header without ULPDU_Length (14 or 18 B), and its Read Request (28 B).
  // Borrowed: on decode they point into the message.
  std::span<const std::byte> ddp_header;
  std::span<const std::byte> read_request;
};

// Returns the bytes written, 0 if `out` is too small or the headers have other sizes than those.
size_t EncodeTerminate(const Terminate& terminate, std::span<std::byte> out);

// Fails only if there is no control word: what a dying peer says is read as far as it goes.
absl::StatusOr<Terminate> DecodeTerminate(std::span<const std::byte> body);

}  // namespace verbena::wire
