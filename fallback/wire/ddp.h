// SPDX-License-Identifier: Apache-2.0
//
// FPDU framing (RFC 5044 4) and the DDP headers (RFC 5041 4). Each header begins with MPA's
// ULPDU_Length, because the two are always read and written together:
//
//   ULPDU_Length 2 | DDP + RDMAP header 14 or 18 | payload | pad 0..3 | CRC32c 4
//
// Both headers, and every body that follows one, are multiples of 4: the pad depends on the payload
// alone. What the RDMAP byte means, and which headers are legal, stands in rdmap.h.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "fallback/wire/bytes.h"

namespace verbena::wire {

// DDP control byte, RFC 5041 4.1: T | L | 4 reserved bits | version 2 bits. Reserved bits are sent
// as zero and not checked when received.
inline constexpr uint8_t kTagged = 0x80;
inline constexpr uint8_t kLast = 0x40;
inline constexpr uint8_t kDdpVersionMask = 0x03;
inline constexpr uint8_t kDdpVersion = 0x01;

// Queues of the untagged model. 0..2 are RFC 5040 4.1's, 3 is RFC 7306 10.2's; 15 is ours.
inline constexpr uint32_t kSendQueue = 0;
inline constexpr uint32_t kReadRequestQueue = 1;  // and atomic requests
inline constexpr uint32_t kTerminateQueue = 2;
inline constexpr uint32_t kAtomicResponseQueue = 3;
inline constexpr uint32_t kControlQueue = 15;  // docs/decisions/0004-control-messages.md

struct TaggedHeader {
  Be16 length;  // ULPDU_Length: everything after itself but pad and CRC
  uint8_t ddp = kTagged | kDdpVersion;
  uint8_t rdmap = 0;
  Be32 stag;
  Be64 tagged_offset;
};
static_assert(WireStruct<TaggedHeader> && sizeof(TaggedHeader) == 16);
static_assert(offsetof(TaggedHeader, length) == 0 && offsetof(TaggedHeader, ddp) == 2);
static_assert(offsetof(TaggedHeader, rdmap) == 3 && offsetof(TaggedHeader, stag) == 4);
static_assert(offsetof(TaggedHeader, tagged_offset) == 8);

struct UntaggedHeader {
  Be16 length;
  uint8_t ddp = kDdpVersion;
  uint8_t rdmap = 0;
  Be32 ulp;  // RDMAP: the STag to invalidate; own peers also: immediate, control word; else 0
  Be32 queue_number;
  Be32 msn;             // counts messages of its queue, from 1
  Be32 message_offset;  // of this segment in its message
};
static_assert(WireStruct<UntaggedHeader> && sizeof(UntaggedHeader) == 20);
static_assert(offsetof(UntaggedHeader, length) == 0 && offsetof(UntaggedHeader, ddp) == 2);
static_assert(offsetof(UntaggedHeader, rdmap) == 3 && offsetof(UntaggedHeader, ulp) == 4);
static_assert(offsetof(UntaggedHeader, queue_number) == 8 && offsetof(UntaggedHeader, msn) == 12);
static_assert(offsetof(UntaggedHeader, message_offset) == 16);

inline constexpr uint32_t kLengthSize = 2;     // of ULPDU_Length
inline constexpr uint32_t kCrcSize = 4;        // there even when CRC is off, RFC 5044 4.4
inline constexpr uint32_t kMaxUlpdu = 0xffff;  // what the field holds: received ones
inline constexpr uint32_t kMinMulpdu = 128;    // RFC 5044 3, of those that are sent
inline constexpr uint32_t kMaxMulpdu = 64768;
inline constexpr uint32_t kTaggedUlpdu = sizeof(TaggedHeader) - kLengthSize;      // without payload
inline constexpr uint32_t kUntaggedUlpdu = sizeof(UntaggedHeader) - kLengthSize;  // without payload
inline constexpr uint32_t kMaxTaggedPayload = kMaxUlpdu - kTaggedUlpdu;
inline constexpr uint32_t kMaxUntaggedPayload = kMaxUlpdu - kUntaggedUlpdu;

// The first 4 bytes tell which header it is; both have at least 16.
inline bool IsTagged(uint8_t ddp) { return (ddp & kTagged) != 0; }
inline uint32_t HeaderSize(uint8_t ddp) {
  return IsTagged(ddp) ? sizeof(TaggedHeader) : sizeof(UntaggedHeader);
}

constexpr uint32_t PadBytes(uint32_t payload) { return (0u - payload) & 3u; }

// On TCP: header (with ULPDU_Length), payload, pad, CRC.
constexpr uint32_t FpduSize(uint32_t header, uint32_t payload) {
  return header + payload + PadBytes(payload) + kCrcSize;
}
// The same from a received ULPDU_Length. The pad completes length field + ULPDU to 4.
constexpr uint32_t FpduSizeOfUlpdu(uint32_t ulpdu_length) {
  return kLengthSize + ulpdu_length + PadBytes(kLengthSize + ulpdu_length) + kCrcSize;
}

// Bytes after the header that are payload. Only for a header that Invalid() has passed.
inline uint32_t PayloadSize(const TaggedHeader& h) { return h.length - kTaggedUlpdu; }
inline uint32_t PayloadSize(const UntaggedHeader& h) { return h.length - kUntaggedUlpdu; }

// The largest payload whose FPDU fits one TCP segment. RFC 5044 4.5 gives
// MULPDU = EMSS - (6 + EMSS mod 4) without markers, within the bounds of RFC 5044 3; the header
// comes off that. An FPDU of the least spans segments if they are smaller still.
constexpr uint32_t MaxPayloadForMss(uint32_t mss, uint32_t header) {
  const uint32_t overhead = kLengthSize + kCrcSize + mss % 4;
  const uint32_t mulpdu = mss > overhead ? mss - overhead : 0;
  return std::clamp(mulpdu, kMinMulpdu, kMaxMulpdu) - (header - kLengthSize);
}

}  // namespace verbena::wire
