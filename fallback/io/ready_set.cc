// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/ready_set.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "fallback/io/epoll_wait.h"

namespace verbena::io {
namespace {

constexpr uint64_t kBell = 0;

epoll_event Event(uint64_t tag, bool write) {
  epoll_event event{};
  event.events = EPOLLIN | (write ? uint32_t{EPOLLOUT} : 0u);
  event.data.u64 = tag;
  return event;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ReadySet>> ReadySet::Create() {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  const int bell = epoll < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event event = Event(kBell, false);
  if (bell >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, bell, &event) == 0) {
    return std::unique_ptr<ReadySet>(new ReadySet(epoll, bell));
  }
  const int error = errno;
  if (bell >= 0) close(bell);
  if (epoll >= 0) close(epoll);
  return absl::ResourceExhaustedError(
      absl::StrCat("no descriptor to wait on (", std::strerror(error),
                   "). Raise the limit: `ulimit -n`, LimitNOFILE= in systemd"));
}

ReadySet::~ReadySet() {
  close(bell_);
  close(epoll_);
}

bool ReadySet::Add(Socket socket, uint64_t tag, bool write) {
  epoll_event event = Event(tag, write);
  return epoll_ctl(epoll_, EPOLL_CTL_ADD, socket, &event) == 0;
}

void ReadySet::Change(Socket socket, uint64_t tag, bool write) {
  epoll_event event = Event(tag, write);
  (void)epoll_ctl(epoll_, EPOLL_CTL_MOD, socket, &event);
}

void ReadySet::Remove(Socket socket) { (void)epoll_ctl(epoll_, EPOLL_CTL_DEL, socket, nullptr); }

void ReadySet::Ring() {
  std::lock_guard lock(mutex_);
  if (rings_) return;
  rings_ = true;
  const uint64_t one = 1;
  (void)!write(bell_, &one, sizeof(one));
}

void ReadySet::Silence() {
  std::lock_guard lock(mutex_);
  if (!rings_) return;
  rings_ = false;
  uint64_t count;
  (void)!read(bell_, &count, sizeof(count));
}

size_t ReadySet::Wait(std::span<uint64_t> tags, Nanos deadline) {
  std::array<epoll_event, 17> events;  // some sockets, and the bell
  const size_t room = std::min(events.size(), tags.size() + 1);
  const int count = WaitEpoll(epoll_, std::span(events).first(room), deadline);
  size_t written = 0;
  for (int i = 0; i < count; ++i) {
    const uint64_t tag = events[static_cast<size_t>(i)].data.u64;
    if (tag != kBell && written < tags.size()) tags[written++] = tag;
  }
  return written;
}

}  // namespace verbena::io
