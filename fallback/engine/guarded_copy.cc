// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/guarded_copy.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

namespace verbena::engine {

namespace {

// Where a sandbox forbids these calls on the process itself, the memory is trusted after all.
bool Forbidden(ssize_t result) { return result < 0 && (errno == EPERM || errno == ENOSYS); }

}  // namespace

bool GuardedWrite(std::byte* to, const std::byte* from, size_t n) {
  const iovec ours{const_cast<std::byte*>(from), n};
  const iovec theirs{to, n};
  const ssize_t done = process_vm_writev(getpid(), &ours, 1, &theirs, 1, 0);
  if (Forbidden(done)) {
    std::memcpy(to, from, n);
    return true;
  }
  return done == static_cast<ssize_t>(n);
}

bool GuardedRead(std::byte* to, const std::byte* from, size_t n) {
  const iovec ours{to, n};
  const iovec theirs{const_cast<std::byte*>(from), n};
  const ssize_t done = process_vm_readv(getpid(), &ours, 1, &theirs, 1, 0);
  if (Forbidden(done)) {
    std::memcpy(to, from, n);
    return true;
  }
  return done == static_cast<ssize_t>(n);
}

bool GuardedProbe(const std::byte* from, size_t n) {
  constexpr size_t kPage = 4096;  // or a fraction of one
  constexpr size_t kBatch = 16;
  std::byte scrap[kBatch];
  const std::byte* const end = from + n;
  while (from < end) {
    iovec theirs[kBatch];
    size_t count = 0;
    for (; count < kBatch && from < end; ++count) {
      theirs[count] = {const_cast<std::byte*>(from), 1};
      from += kPage - reinterpret_cast<uintptr_t>(from) % kPage;
    }
    const iovec ours{scrap, count};
    const ssize_t done = process_vm_readv(getpid(), &ours, 1, theirs, count, 0);
    if (Forbidden(done)) return true;
    if (done != static_cast<ssize_t>(count)) return false;
  }
  return true;
}

}  // namespace verbena::engine
