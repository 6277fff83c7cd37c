// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/system_calls.h"

#include <dlfcn.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>

namespace {

using Syscall = long (*)(long, ...);

std::atomic<uint64_t> calls = 0;

std::atomic<Syscall> real = nullptr;

// libc's own, which this file's hides. Not a static of the function: a second thread waits for the
// guard of such a one by syscall(), which is this file's and comes here again, until its stack
// ends.
Syscall Real() {
  Syscall found = real.load(std::memory_order_relaxed);
  if (found == nullptr) {
    found = reinterpret_cast<Syscall>(dlsym(RTLD_NEXT, "syscall"));
    real.store(found, std::memory_order_relaxed);
  }
  return found;
}

template <typename... Args>
long Count(long number, Args... args) {
  calls.fetch_add(1, std::memory_order_relaxed);
  return Real()(number, args...);
}

constexpr size_t kSignalSet = 8;  // bytes, as the kernel has it

}  // namespace

namespace verbena::bench {

uint64_t SystemCalls() { return calls.load(std::memory_order_relaxed); }

}  // namespace verbena::bench

extern "C" {

// Six arguments at most, each in a register of its own: to pass on too many harms nobody.
long syscall(long number, ...) noexcept {
  va_list rest;
  va_start(rest, number);
  long args[6];
  for (long& arg : args) arg = va_arg(rest, long);
  va_end(rest);
  return Count(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}
ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  return Count(SYS_sendmsg, fd, message, flags);
}
ssize_t recvmsg(int fd, msghdr* message, int flags) {
  return Count(SYS_recvmsg, fd, message, flags);
}
ssize_t send(int fd, const void* from, size_t n, int flags) {
  return Count(SYS_sendto, fd, from, n, flags, nullptr, 0);
}
ssize_t recv(int fd, void* into, size_t n, int flags) {
  return Count(SYS_recvfrom, fd, into, n, flags, nullptr, nullptr);
}
ssize_t read(int fd, void* into, size_t n) { return Count(SYS_read, fd, into, n); }
ssize_t write(int fd, const void* from, size_t n) { return Count(SYS_write, fd, from, n); }
ssize_t readv(int fd, const iovec* into, int n) { return Count(SYS_readv, fd, into, n); }
ssize_t writev(int fd, const iovec* from, int n) { return Count(SYS_writev, fd, from, n); }
int epoll_wait(int set, epoll_event* events, int most, int timeout_ms) {
  return static_cast<int>(
      Count(SYS_epoll_pwait, set, events, most, timeout_ms, nullptr, kSignalSet));
}
int epoll_pwait2(int set, epoll_event* events, int most, const timespec* timeout,
                 const sigset_t* mask) {
  return static_cast<int>(Count(SYS_epoll_pwait2, set, events, most, timeout, mask, kSignalSet));
}

}  // extern "C"
