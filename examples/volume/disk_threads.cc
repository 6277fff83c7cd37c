// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "examples/volume/disk.h"

namespace verbena::volume {
namespace {

int64_t Do(const DiskOperation& operation) {
  const auto offset = static_cast<off_t>(operation.offset);
  switch (operation.kind) {
    case DiskOperation::Kind::kRead:
      return pread(operation.fd, operation.memory, operation.bytes, offset);
    case DiskOperation::Kind::kWrite:
      return pwrite(operation.fd, operation.memory, operation.bytes, offset);
    case DiskOperation::Kind::kSync:
      return fdatasync(operation.fd);
    case DiskOperation::Kind::kPunch:
      return fallocate(operation.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                       static_cast<off_t>(operation.bytes));
  }
  return 0;
}

class ThreadDisk final : public Disk {
 public:
  explicit ThreadDisk(Workers& workers) : workers_(workers) {}
  const char* name() const override { return "threads"; }
  void Submit(DiskOperation& operation) override {
    workers_.Post([&operation] {
      const int64_t result = Do(operation);
      operation.Complete(result < 0 ? -errno : static_cast<int>(result));
    });
  }

 private:
  Workers& workers_;
};

}  // namespace

std::unique_ptr<Disk> OpenThreads(Workers& workers) {
  return std::make_unique<ThreadDisk>(workers);
}

absl::Status DiskError(int result, const std::string& what) {
  const absl::Status status = absl::ErrnoToStatus(-result, what);
  switch (-result) {
    case EROFS:
    case EPERM:
      return absl::PermissionDeniedError(status.message());
    case EIO:
      return absl::DataLossError(status.message());
    default:
      return status;
  }
}

}  // namespace verbena::volume
