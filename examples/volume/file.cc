// SPDX-License-Identifier: Apache-2.0
#include "examples/volume/file.h"

#include <fcntl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "examples/volume/disk.h"

namespace verbena::volume {

File::~File() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<File> OpenFile(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC, 0644);
  if (fd < 0) return Failed(absl::StrCat("open ", path));
  return File(fd);
}

absl::Status Failed(const std::string& what) { return DiskError(-errno, what); }

absl::Status SyncFolder(const std::string& folder) {
  auto opened = OpenFile(folder, O_RDONLY | O_DIRECTORY);
  if (!opened.ok()) return opened.status();
  if (fsync(opened->fd()) != 0) return Failed(absl::StrCat("fsync ", folder));
  return absl::OkStatus();
}

}  // namespace verbena::volume
