// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/buffer.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace verbena::tool {

absl::StatusOr<Buffer> Buffer::Make(ProtectionDomain& pd, size_t size, Access access) {
  constexpr size_t kPage = 4096;
  Buffer buffer;
  const size_t pages = (size + kPage - 1) / kPage * kPage;  // aligned_alloc(3) wants a multiple
  buffer.memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kPage, pages)));
  if (buffer.memory_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("allocate ", size, " bytes: no memory. Use a smaller size or window."));
  }
  memset(buffer.memory_.get(), 0, pages);
  buffer.size_ = size;
  absl::StatusOr<MemoryRegion> region = pd.Register(buffer.bytes(), access);
  if (!region.ok()) return region.status();
  buffer.region_ = *std::move(region);
  return buffer;
}

}  // namespace verbena::tool
