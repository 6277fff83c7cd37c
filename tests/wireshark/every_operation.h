// SPDX-License-Identifier: Apache-2.0
// What every_operation does, for those who count it.
#pragma once

#include <cstdint>

namespace verbena::wireshark {

inline constexpr uint32_t kLarge = 1 << 20;
inline constexpr uint32_t kMedium = 100'000;
inline constexpr uint32_t kWriteAndReadSizes[] = {0, 5, kLarge};  // one write and one read each
inline constexpr uint32_t kImmediate = 0xcafe0001;                // and the two after it
inline constexpr uint64_t kAdded = 7;
inline constexpr uint64_t kSwapped = 9;
// Messages to a peer before the one that finds no receive: four Sends; three with an immediate.
inline constexpr uint32_t kPlainReceives = 4;
inline constexpr uint32_t kOwnReceives = kPlainReceives + 3;

}  // namespace verbena::wireshark
