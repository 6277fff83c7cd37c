// SPDX-License-Identifier: Apache-2.0
// A file as memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace file_copy {

// Owns the mapping; the file itself stays.
class MappedFile {
 public:
  // Maps a file that exists, for reading.
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  // Makes `path`, or empties it, and reserves `size` bytes on the disk, so that a full disk is an
  // error here and not a SIGBUS later.
  static absl::StatusOr<MappedFile> Create(const std::string& path, uint64_t size);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  // Brings pages in many at a time, which costs a quarter of the faults that it saves. Clipped to
  // the file; a kernel that cannot (before 5.14) leaves it to the faults.
  void Populate(uint64_t offset, uint64_t length) const;

  // Empty for an empty file.
  std::span<std::byte> bytes() const { return {memory_, size_}; }

 private:
  MappedFile(std::byte* memory, uint64_t size, bool writable)
      : memory_(memory), size_(size), writable_(writable) {}
  static absl::StatusOr<MappedFile> Map(int fd, const std::string& path, uint64_t size,
                                        bool writable);

  std::byte* memory_ = nullptr;
  uint64_t size_ = 0;
  bool writable_ = false;
};

}  // namespace file_copy
