// SPDX-License-Identifier: Apache-2.0
#include "transport/ip.h"

#include <algorithm>
#include <bit>
#include <iterator>

namespace verbena {

bool IsV4(const Ip& ip) { return std::equal(std::begin(kMapped), std::end(kMapped), ip.begin()); }

bool IsLinkLocal(const Ip& ip) {
  if (IsV4(ip)) return ip[kMappedBytes] == 169 && ip[kMappedBytes + 1] == 254;
  return ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80;
}

int CommonBits(const Ip& a, const Ip& b) {
  int bits = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const int same = std::countl_zero(static_cast<uint8_t>(a[i] ^ b[i]));
    bits += same;
    if (same < 8) break;
  }
  return bits;
}

}  // namespace verbena
