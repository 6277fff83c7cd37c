// SPDX-License-Identifier: Apache-2.0
// The unit that volumes are made of, and its CRC32C. Both ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace verbena::volume {

inline constexpr uint64_t kBlock = 4096;  // bytes; what O_DIRECT asks for on every file system

// One call moves at most so much: 1024 CRCs, so that request and response are still short messages.
inline constexpr uint64_t kMostBytes = uint64_t{4} << 20;
// Of one trim, which writes nothing but CRCs.
inline constexpr uint64_t kMostTrim = uint64_t{1} << 30;
// A volume; its sums take 1/512 of it.
inline constexpr uint64_t kMostVolume = uint64_t{1} << 44;

inline constexpr uint32_t kZeroCrc = 0x98f94189;  // of a block of zeros

uint32_t BlockCrc(const std::byte* block);
// `bytes` is a whole number of blocks.
std::vector<uint32_t> BlockCrcs(std::span<const std::byte> bytes);

// DataLoss naming the first block of `bytes`, which begin at `offset`, that is not as its CRC says.
// InvalidArgument: not one CRC a block.
absl::Status CheckBlocks(uint64_t offset, std::span<const std::byte> bytes,
                         std::span<const uint32_t> crcs);

// InvalidArgument: not whole blocks, none, or more than `most`. OutOfRange: not inside of `size`.
absl::Status CheckRange(uint64_t offset, uint64_t bytes, uint64_t size, uint64_t most);

}  // namespace verbena::volume
