// SPDX-License-Identifier: Apache-2.0
#include "examples/volume/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
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

absl::Status LockFile(const File& file, const std::string& path, absl::Time until) {
  constexpr absl::Duration kAgain = absl::Milliseconds(10);  // to wait in flock() has no end
  while (flock(file.fd(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return Failed(absl::StrCat("lock ", path));
    if (absl::Now() >= until) {
      return absl::FailedPreconditionError(absl::StrCat(path, ": another server has this volume"));
    }
    absl::SleepFor(kAgain);
  }
  return absl::OkStatus();
}

absl::Status Failed(const std::string& what) { return DiskError(-errno, what); }

absl::Status SyncFolder(const std::string& folder) {
  auto opened = OpenFile(folder, O_RDONLY | O_DIRECTORY);
  if (!opened.ok()) return opened.status();
  if (fsync(opened->fd()) != 0) return Failed(absl::StrCat("fsync ", folder));
  return absl::OkStatus();
}

}  // namespace verbena::volume
