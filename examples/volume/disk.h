// SPDX-License-Identifier: Apache-2.0
// Reads, writes and syncs of files that nobody blocks for: io_uring where the kernel has it, else
// threads. Any thread.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "examples/volume/go_on.h"
#include "examples/volume/workers.h"
#include "rpc/task.h"

namespace verbena::volume {

class Disk;

// co_await it: bytes, or -errno. It may go on on the disk's own thread.
class DiskOperation {
 public:
  enum class Kind : uint8_t { kRead, kWrite, kSync, kPunch };  // kSync: fdatasync

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> caller);
  int await_resume() const noexcept { return result_; }

  void Complete(int result) {  // the disk's
    result_ = result;
    GoOn(suspension_);
  }

  const Kind kind;
  const int fd;
  std::byte* const memory;
  const uint64_t offset;
  const uint64_t bytes;

 private:
  friend class Disk;
  DiskOperation(Disk& disk, Kind what, int file, std::byte* at, uint64_t from, uint64_t length)
      : kind(what), fd(file), memory(at), offset(from), bytes(length), disk_(disk) {}
  Disk& disk_;
  rpc::Suspension suspension_;
  int result_ = 0;
};

class Disk {
 public:
  virtual ~Disk() = default;  // when nothing runs
  virtual const char* name() const = 0;
  // `operation` is completed once, on any thread, perhaps at once.
  virtual void Submit(DiskOperation& operation) = 0;

  DiskOperation Read(int fd, uint64_t offset, std::span<std::byte> into) {
    return {*this, DiskOperation::Kind::kRead, fd, into.data(), offset, into.size()};
  }
  DiskOperation Write(int fd, uint64_t offset, std::span<const std::byte> from) {
    auto* source = const_cast<std::byte*>(from.data());  // a write only reads it
    return {*this, DiskOperation::Kind::kWrite, fd, source, offset, from.size()};
  }
  DiskOperation Sync(int fd) { return {*this, DiskOperation::Kind::kSync, fd, nullptr, 0, 0}; }
  DiskOperation Punch(int fd, uint64_t offset, uint64_t bytes) {
    return {*this, DiskOperation::Kind::kPunch, fd, nullptr, offset, bytes};
  }
};

inline bool DiskOperation::await_suspend(std::coroutine_handle<> caller) {
  disk_.Submit(*this);
  return suspension_.Suspend(caller);
}

// Null, and `why`, where the kernel has no io_uring or does not let this process have one.
std::unique_ptr<Disk> OpenUring(absl::Status* why);
std::unique_ptr<Disk> OpenThreads(Workers& workers);

// A result below 0 as a status: RESOURCE_EXHAUSTED for a full disk, PERMISSION_DENIED for what is
// read-only, DATA_LOSS for what the device could not do.
absl::Status DiskError(int result, const std::string& what);

}  // namespace verbena::volume
