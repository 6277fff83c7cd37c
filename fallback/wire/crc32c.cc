// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace verbena::wire {

uint32_t Crc32c(uint32_t running, std::span<const std::byte> bytes) {
  // ISA-L takes an int length and a mutable pointer that it does not write through. Its value is
  // the running one: the caller sets the initial ones and the final xor.
  constexpr size_t kMaxPiece = size_t{1} << 30;
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(bytes.size(), kMaxPiece));
    auto* data = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(piece.data()));
    running = crc32_iscsi(data, static_cast<int>(piece.size()), running);
    bytes = bytes.subspan(piece.size());
  }
  return running;
}

}  // namespace verbena::wire
