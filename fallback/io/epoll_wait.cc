// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/epoll_wait.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

#include <algorithm>
#include <atomic>

namespace verbena::io {
namespace {
constexpr Nanos kMillisecond = 1000000;
constexpr Nanos kSecond = 1000 * kMillisecond;
}  // namespace

Nanos MonotonicNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kSecond + now.tv_nsec;
}

int WaitEpoll(int epoll, std::span<epoll_event> events, Nanos deadline) {
  // A fact about this kernel, found out once: no epoll_pwait2, so milliseconds have to do.
  static std::atomic<bool> coarse{false};
  const int room = static_cast<int>(events.size());
  for (;;) {
    if (deadline == 0) {  // no timer and no clock are needed
      const int count = epoll_wait(epoll, events.data(), room, 0);
      if (count >= 0 || errno != EINTR) return std::max(count, 0);
      continue;
    }
    const Nanos left = deadline == kNever ? 0 : std::max<Nanos>(0, deadline - MonotonicNow());
    int count = -1;
    if (!coarse.load(std::memory_order_relaxed)) {
      const timespec timeout{left / kSecond, left % kSecond};
      count = epoll_pwait2(epoll, events.data(), room, deadline == kNever ? nullptr : &timeout,
                           nullptr);
      // Linux before 5.11, or a sandbox (EPERM) that has not heard of it.
      if (count < 0 && (errno == ENOSYS || errno == EPERM)) {
        coarse.store(true, std::memory_order_relaxed);
        continue;
      }
    } else {
      // Rounded up: a timer may be late, never early, or the loop would spin until it is due.
      const Nanos ms = std::min<Nanos>((left + kMillisecond - 1) / kMillisecond, INT_MAX);
      count =
          epoll_wait(epoll, events.data(), room, deadline == kNever ? -1 : static_cast<int>(ms));
    }
    if (count >= 0 || errno != EINTR) return std::max(count, 0);
  }
}

}  // namespace verbena::io
