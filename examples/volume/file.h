// SPDX-License-Identifier: Apache-2.0
// An open file, and what makes changes of a folder last.
#pragma once

#include <cerrno>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

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

// For this process alone, on the open file: the kernel lets go of it when the last I/O on that has
// ended, which of a server that was killed may be after its process is gone. So others wait.
// FailedPrecondition: somebody had it until then.
absl::Status LockFile(const File& file, const std::string& path, absl::Time until);

// errno as a status: see DiskError.
absl::Status Failed(const std::string& what);

// Names that were made, changed or removed in there are so on the disk.
absl::Status SyncFolder(const std::string& folder);

}  // namespace verbena::volume
