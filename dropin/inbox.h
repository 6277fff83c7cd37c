// SPDX-License-Identifier: Apache-2.0
// A queue of events with a descriptor, as the kernel's: readable exactly while events wait; to take
// one blocks unless the program has made the descriptor non-blocking. Any thread. The descriptor
// counts the events, so taking one is a read(2), with all that a program may expect of it: signals,
// cancellation, and no wake-up when somebody destroys the queue.
#pragma once

#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>

namespace verbena::dropin {

template <typename T>
class Inbox {
 public:
  Inbox() : fd_(eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE)) {}
  ~Inbox() {
    if (fd_ >= 0) close(fd_);
  }
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;

  int fd() const { return fd_; }  // -1: there was none left

  void Push(T event) {
    std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    const uint64_t one = 1;
    (void)!write(fd_, &one, sizeof one);
  }

  // False with errno: EAGAIN, EINTR. `taken` is called before anybody can drop events: what the
  // event is of is still there, and may be told that it is out.
  template <typename Taken>
  bool Take(T* event, Taken taken) {
    for (;;) {
      uint64_t one;
      if (read(fd_, &one, sizeof one) < 0) return false;
      std::lock_guard lock(mutex_);
      if (events_.empty()) continue;  // it was dropped while this thread took its place
      *event = std::move(events_.front());
      events_.pop_front();
      taken(*event);
      return true;
    }
  }

  bool empty() {
    std::lock_guard lock(mutex_);
    return events_.empty();
  }

  // Events for which `drop` says so will not be taken.
  template <typename Predicate>
  void Drop(Predicate drop) {
    std::lock_guard lock(mutex_);
    for (auto it = events_.begin(); it != events_.end();) {
      if (!drop(*it)) {
        ++it;
        continue;
      }
      it = events_.erase(it);
      uint64_t one;
      const iovec v{&one, sizeof one};
      (void)!preadv2(fd_, &v, 1, -1, RWF_NOWAIT);
    }
  }

 private:
  const int fd_;
  std::mutex mutex_;
  std::deque<T> events_;
};

}  // namespace verbena::dropin
