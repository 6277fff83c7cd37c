// SPDX-License-Identifier: Apache-2.0
#include "examples/volume/block.h"

#include <isa-l/crc.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace verbena::volume {

uint32_t BlockCrc(const std::byte* block) {
  // ISA-L takes a mutable pointer that it does not write through, and leaves the ones to the
  // caller.
  auto* data = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(block));
  return ~crc32_iscsi(data, kBlock, ~uint32_t{0});
}

std::vector<uint32_t> BlockCrcs(std::span<const std::byte> bytes) {
  std::vector<uint32_t> crcs(bytes.size() / kBlock);
  for (size_t i = 0; i < crcs.size(); ++i) crcs[i] = BlockCrc(bytes.data() + i * kBlock);
  return crcs;
}

absl::Status CheckBlocks(uint64_t offset, std::span<const std::byte> bytes,
                         std::span<const uint32_t> crcs) {
  if (bytes.size() % kBlock != 0 || crcs.size() != bytes.size() / kBlock) {
    return absl::InvalidArgumentError(
        absl::StrCat(crcs.size(), " CRCs for ", bytes.size(), " bytes; one for each 4096"));
  }
  for (size_t i = 0; i < crcs.size(); ++i) {
    const uint32_t found = BlockCrc(bytes.data() + i * kBlock);
    if (found == crcs[i]) continue;
    return absl::DataLossError(absl::StrFormat("the block at byte %u has CRC32C %08x, not %08x",
                                               offset + i * kBlock, found, crcs[i]));
  }
  return absl::OkStatus();
}

absl::Status CheckRange(uint64_t offset, uint64_t bytes, uint64_t size, uint64_t most) {
  if (offset % kBlock != 0 || bytes % kBlock != 0 || bytes == 0 || bytes > most) {
    return absl::InvalidArgumentError(
        absl::StrCat(bytes, " bytes at ", offset,
                     ": both have to be multiples of 4096, the first 4096 to ", most));
  }
  if (offset > size || bytes > size - offset) {
    return absl::OutOfRangeError(
        absl::StrCat(bytes, " bytes at ", offset, " of a volume of ", size));
  }
  return absl::OkStatus();
}

}  // namespace verbena::volume
