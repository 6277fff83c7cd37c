// SPDX-License-Identifier: Apache-2.0
// An open file, and what makes changes of a folder last.
#pragma once

#include <cerrno>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace verbena::volume {

class File {
 public:
  File() = default;
  explicit File(int fd) : fd_(fd) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~File();
  int fd() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

absl::StatusOr<File> OpenFile(const std::string& path, int flags);

// errno as a status: see DiskError.
absl::Status Failed(const std::string& what);

// Names that were made, changed or removed in there are so on the disk.
absl::Status SyncFolder(const std::string& folder);

}  // namespace verbena::volume
