// SPDX-License-Identifier: Apache-2.0
//
// MPA's CRC32c (RFC 5044 4.4; the iSCSI digest of RFC 3720): Castagnoli, reflected, begun with and
// finally xored with all ones. It covers ULPDU_Length to the end of the pad, and may be computed in
// pieces:  WireCrc(Crc32c(Crc32c(kCrcBegin, header), payload_and_pad)).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fallback/wire/bytes.h"

namespace verbena::wire {

inline constexpr uint32_t kCrcBegin = 0xffffffff;
uint32_t Crc32c(uint32_t running, std::span<const std::byte> bytes);
constexpr uint32_t Crc32cFinish(uint32_t running) { return ~running; }

// The trailer as it stands on the wire: least significant byte first, unlike every other field
// (RFC 3720 B.4: 32 zero bytes give aa 36 91 8a). Store() and Load() of bytes.h move it.
inline Le32 WireCrc(uint32_t running) { return Crc32cFinish(running); }

}  // namespace verbena::wire
