// SPDX-License-Identifier: Apache-2.0
// Poller on epoll, woken by an eventfd. With nothing to do, Wait makes one system call and sleeps
// in it until something happens.
#pragma once

#include <atomic>
#include <memory>

#include "fallback/io/io.h"

namespace verbena::io {

class EpollPoller final : public Poller {
 public:
  // ResourceExhausted: no descriptor left.
  static absl::StatusOr<std::unique_ptr<EpollPoller>> Create();
  ~EpollPoller() override;
  EpollPoller(const EpollPoller&) = delete;
  EpollPoller& operator=(const EpollPoller&) = delete;

  void Watch(Socket socket, uint64_t tag, bool read, bool write) override;
  void Change(Socket socket, uint64_t tag, bool read, bool write) override;
  void WatchEdges(int descriptor, uint64_t tag) override;
  void Unwatch(Socket socket) override;
  size_t Wait(std::span<Ready> out, Nanos deadline) override;
  void Wake() override;
  Nanos Now() const override;

 private:
  EpollPoller(int epoll, int event) : epoll_(epoll), event_(event) {}

  const int epoll_;
  const int event_;  // eventfd: readable after Wake
  std::atomic<bool> woken_{false};
};

}  // namespace verbena::io
