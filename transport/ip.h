// SPDX-License-Identifier: Apache-2.0
// An IP address as sixteen bytes, which is what a GID is too.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace verbena {

// IPv6, or IPv4 as ::ffff:10.0.0.1 (RFC 4291 2.5.5.2).
using Ip = std::array<uint8_t, 16>;

inline constexpr size_t kMappedBytes = 12;
inline constexpr uint8_t kMapped[kMappedBytes] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool IsV4(const Ip& ip);
bool IsLinkLocal(const Ip& ip);            // RFC 3927, RFC 4291 2.5.6
int CommonBits(const Ip& a, const Ip& b);  // leading ones that are equal

}  // namespace verbena
