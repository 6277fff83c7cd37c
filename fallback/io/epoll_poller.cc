// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/epoll_poller.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "fallback/io/epoll_wait.h"

namespace verbena::io {
namespace {

constexpr size_t kBatch = 64;  // 768 bytes of stack; who is left out comes first the next time

absl::Status NoPoller(const char* what, int error) {
  if (error == EMFILE) {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    return absl::ResourceExhaustedError(
        absl::StrCat(what, ": this process has its ", limit.rlim_cur,
                     " file descriptors in use; raise the limit with `ulimit -n`"));
  }
  return absl::ResourceExhaustedError(absl::StrCat(what, ": ", strerror(error)));
}

epoll_event Event(uint64_t tag, bool read, bool write) {
  epoll_event event{};
  event.events = (read ? EPOLLIN : 0u) | (write ? EPOLLOUT : 0u);
  event.data.u64 = tag;
  return event;
}

}  // namespace

absl::StatusOr<std::unique_ptr<EpollPoller>> EpollPoller::Create() {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) return NoPoller("epoll_create1", errno);
  const int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event < 0) {
    const int error = errno;
    close(epoll);
    return NoPoller("eventfd", error);
  }
  epoll_event wake = Event(kReservedTag, true, false);
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, event, &wake) != 0) {
    const int error = errno;
    close(event);
    close(epoll);
    return NoPoller("epoll_ctl", error);
  }
  return std::unique_ptr<EpollPoller>(new EpollPoller(epoll, event));
}

EpollPoller::~EpollPoller() {
  close(event_);
  close(epoll_);
}

void EpollPoller::Watch(Socket socket, uint64_t tag, bool read, bool write) {
  Change(socket, tag, read, write);
}

// Watched for neither means not in the set at all: epoll reports errors and hang-ups unasked.
// Therefore a change may find the socket absent, and adds it.
void EpollPoller::Change(Socket socket, uint64_t tag, bool read, bool write) {
  if (!read && !write) return Unwatch(socket);
  epoll_event event = Event(tag, read, write);
  if (epoll_ctl(epoll_, EPOLL_CTL_MOD, socket, &event) != 0 && errno == ENOENT) {
    (void)epoll_ctl(epoll_, EPOLL_CTL_ADD, socket, &event);
  }
}

void EpollPoller::WatchEdges(int descriptor, uint64_t tag) {
  epoll_event event = Event(tag, true, false);
  event.events |= EPOLLET;
  (void)epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event);
}

void EpollPoller::Unwatch(Socket socket) { epoll_ctl(epoll_, EPOLL_CTL_DEL, socket, nullptr); }

size_t EpollPoller::Wait(std::span<Ready> out, Nanos deadline) {
  std::array<epoll_event, kBatch> events;
  const size_t room = std::min(out.size(), events.size());
  const int count = WaitEpoll(epoll_, std::span(events).first(room), deadline);
  size_t written = 0;
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[i];
    if (event.data.u64 == kReservedTag) {
      uint64_t ignored;
      (void)!read(event_, &ignored, sizeof(ignored));
      // After the read: a Wake in between is skipped, but what it wants seen is visible to us,
      // because this exchange reads its exchange. The other order could drain the descriptor
      // and leave woken_ set, and every later Wake would be lost.
      woken_.exchange(false);
      continue;
    }
    const uint32_t trouble = EPOLLERR | EPOLLHUP;
    out[written++] = Ready{event.data.u64, (event.events & (EPOLLIN | trouble)) != 0,
                           (event.events & (EPOLLOUT | trouble)) != 0};
  }
  return written;
}

void EpollPoller::Wake() {
  if (woken_.exchange(true)) return;  // somebody woke it and it has not noticed yet
  const uint64_t one = 1;
  (void)!write(event_, &one, sizeof(one));
}

Nanos EpollPoller::Now() const { return MonotonicNow(); }

}  // namespace verbena::io
