// SPDX-License-Identifier: Apache-2.0
// Memory that is registered for as long as it lives.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "transport/access.h"
#include "transport/memory.h"
#include "transport/protection_domain.h"

namespace verbena::tool {

// Zeroed pages. Movable; the bytes stay where they are. The protection domain must outlive it.
class Buffer {
 public:
  Buffer() = default;
  static absl::StatusOr<Buffer> Make(ProtectionDomain& pd, size_t size, Access access);

  std::span<std::byte> bytes() const { return {memory_.get(), size_}; }
  const MemoryRegion& region() const { return region_; }
  Sge slice(uint64_t offset, uint32_t length) const { return region_.slice(offset, length); }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  size_t size_ = 0;
  MemoryRegion region_;  // after the memory: it goes first
};

}  // namespace verbena::tool
