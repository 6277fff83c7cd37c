// SPDX-License-Identifier: Apache-2.0
#include "examples/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace file_copy {
namespace {

absl::Status Failed(const char* what, const std::string& path, int error) {
  return absl::InternalError(absl::StrCat(what, " ", path, ": ", strerror(error)));
}

}  // namespace

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Failed("open", path, errno);
  struct stat status {};
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(fd);
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  return Map(fd, path, static_cast<uint64_t>(status.st_size), false);
}

absl::StatusOr<MappedFile> MappedFile::Create(const std::string& path, uint64_t size) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return Failed("create", path, errno);
  const int error = size == 0 ? 0 : posix_fallocate(fd, 0, static_cast<off_t>(size));
  if (error != 0) {
    close(fd);
    unlink(path.c_str());
    return Failed(absl::StrCat("reserve ", size, " bytes for").c_str(), path, error);
  }
  return Map(fd, path, size, true);
}

absl::StatusOr<MappedFile> MappedFile::Map(int fd, const std::string& path, uint64_t size,
                                           bool writable) {
  void* memory = nullptr;
  if (size > 0) {
    memory = mmap(nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
  }
  const int error = errno;
  close(fd);  // the mapping holds the file
  if (memory == MAP_FAILED) return Failed("map", path, error);
  return MappedFile(static_cast<std::byte*>(memory), size, writable);
}

void MappedFile::Populate(uint64_t offset, uint64_t length) const {
#ifdef MADV_POPULATE_WRITE
  if (offset >= size_) return;
  (void)madvise(memory_ + offset, std::min(length, size_ - offset),
                writable_ ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
#endif
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)),
      size_(other.size_),
      writable_(other.writable_) {}

MappedFile::~MappedFile() {
  if (memory_ != nullptr) munmap(memory_, size_);
}

}  // namespace file_copy
