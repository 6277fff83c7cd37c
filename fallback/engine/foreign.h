// SPDX-License-Identifier: Apache-2.0
// What a Verbena end on an iWARP device says behind its private data (docs/wire.md, "On an iWARP
// device"): where a peer may read eight bytes, to learn that all before that read was applied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace verbena::engine {

struct LentBytes {
  uint64_t address = 0;
  uint32_t key = 0;
  friend bool operator==(const LentBytes&, const LentBytes&) = default;
};
inline constexpr uint32_t kLentSize = 8;  // bytes there

// Takes it off the end of `private_data`.
std::optional<LentBytes> TakeLentBytes(std::span<const std::byte>* private_data);

}  // namespace verbena::engine
