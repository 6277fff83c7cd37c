// SPDX-License-Identifier: Apache-2.0
//
// MPA Request and Reply frames (RFC 5044 7.1.1, RFC 6581 6):
//
//   key 16 | M C R S, 4 reserved bits | revision 1 | PD_Length 2 | private data (PD_Length bytes)
//
// With S (revision 2) private data begins with IRD 2 | ORD 2, whose top bits carry A B C D.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"
#include "fallback/wire/bytes.h"

namespace verbena::wire {

inline constexpr std::string_view kMpaRequestKey = "MPA ID Req Frame";
inline constexpr std::string_view kMpaReplyKey = "MPA ID Rep Frame";
// Ours: a rendezvous. An iWARP stack hangs up on another key (RFC 5044 7.1.2), and its application
// sees nothing of it.
inline constexpr std::string_view kMpaAskKey = "MPA ID Ask Frame";
static_assert(kMpaRequestKey.size() == 16 && kMpaReplyKey.size() == 16 && kMpaAskKey.size() == 16);

struct MpaHeader {
  unsigned char key[16] = {};
  uint8_t flags = 0;
  uint8_t revision = 0;
  Be16 private_data_length;
};
static_assert(WireStruct<MpaHeader> && sizeof(MpaHeader) == 20);
static_assert(offsetof(MpaHeader, flags) == 16 && offsetof(MpaHeader, revision) == 17);
static_assert(offsetof(MpaHeader, private_data_length) == 18);

inline constexpr uint8_t kMpaMarkers = 0x80;   // M: send me markers
inline constexpr uint8_t kMpaCrc = 0x40;       // C: either side's wish turns CRC on
inline constexpr uint8_t kMpaReject = 0x20;    // R: in a Reply
inline constexpr uint8_t kMpaEnhanced = 0x10;  // S: RFC 6581

struct EnhancedWords {
  Be16 ird;
  Be16 ord;
};
static_assert(WireStruct<EnhancedWords> && sizeof(EnhancedWords) == 4);
static_assert(offsetof(EnhancedWords, ord) == 2);

inline constexpr uint16_t kMpaPeerToPeer = 0x8000;  // A, in ird
inline constexpr uint16_t kMpaRtrSend = 0x4000;     // B, in ird: zero-length Send
inline constexpr uint16_t kMpaRtrWrite = 0x8000;    // C, in ord: zero-length RDMA Write
inline constexpr uint16_t kMpaRtrRead = 0x4000;     // D, in ord: zero-length RDMA Read
inline constexpr uint16_t kMpaDepthMask = 0x3fff;
inline constexpr uint16_t kMpaDepthUnspecified =
    0x3fff;  // "don't negotiate this one", RFC 6581 9.1

// RFC 5044 7.1.1 allows 512 B of private data. siw and cxgb4 take 256, so that is what we send.
inline constexpr size_t kMpaMaxPrivateData = 512;
inline constexpr size_t kMpaMaxSentPrivateData = 256;
inline constexpr size_t kMpaMaxFrame = sizeof(MpaHeader) + kMpaMaxPrivateData;

struct MpaFrame {
  bool reply = false;
  bool ask = false;       // a Request that is only to be rejected
  bool rejected = false;  // replies only
  bool crc = false;
  bool markers = false;
  uint8_t revision = 2;  // 1 or 2
  // The rest down to ord counts only if enhanced, which needs revision 2.
  bool enhanced = false;
  bool peer_to_peer = false;
  bool rtr_send = false;
  bool rtr_write = false;
  bool rtr_read = false;
  uint16_t ird = 0;
  uint16_t ord = 0;
  // Without the enhanced words; with whatever record extension.h appended. Borrowed: after decode
  // it points into the input.
  std::span<const std::byte> private_data;
};

// Null while `prefix` (any length, also 0) may still become an MPA frame, else why it cannot, as in
// "this is an HTTP request". Call it on the first bytes, so that strangers are refused early.
const char* MpaKeyMismatch(std::span<const std::byte> prefix);

// Bytes of the whole frame, as far as `prefix` tells: 20 until the header is complete, then at
// most kMpaMaxFrame. An error if no frame can begin like this. Read until prefix.size() equals it,
// and not further: nothing may follow a frame before it is answered.
absl::StatusOr<size_t> MpaFrameSize(std::span<const std::byte> prefix);

// `bytes` is exactly one frame. The error names the byte and the RFC. Reserved flag bits are not
// checked (RFC 5044 7.1.1; siw sets 0x08 and echoes the others).
absl::StatusOr<MpaFrame> DecodeMpa(std::span<const std::byte> bytes);

// Returns the bytes written; 0, and nothing written, if `out` is too small or the frame breaks a
// rule above (private data beyond kMpaMaxSentPrivateData, ird > 0x3fff, enhanced in revision 1
// ...).
size_t EncodeMpa(const MpaFrame& frame, std::span<std::byte> out);

}  // namespace verbena::wire
