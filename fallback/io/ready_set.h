// SPDX-License-Identifier: Apache-2.0
// One descriptor for whoever waits: readable while a socket of the set has something to say, or
// while the bell rings. An epoll set around an eventfd, level-triggered, so that nothing is lost
// between two looks. Any thread; several may wait at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "fallback/io/io.h"

namespace verbena::io {

class ReadySet {
 public:
  // ResourceExhausted: no descriptor left.
  static absl::StatusOr<std::unique_ptr<ReadySet>> Create();
  ~ReadySet();
  ReadySet(const ReadySet&) = delete;
  ReadySet& operator=(const ReadySet&) = delete;

  int fd() const { return epoll_; }

  // Sockets that are descriptors, with a tag that is not 0. Read, errors and hang-ups are always
  // watched. Add: false if the kernel has no room for it. Remove before the socket is closed.
  bool Add(Socket socket, uint64_t tag, bool write);
  void Change(Socket socket, uint64_t tag, bool write);
  void Remove(Socket socket);

  void Ring();
  void Silence();

  // Sleeps until something is ready or `deadline` has come (0: does not sleep). Writes the tags of
  // ready sockets and says how many; who is left out comes first the next time.
  size_t Wait(std::span<uint64_t> tags, Nanos deadline);

 private:
  ReadySet(int epoll, int bell) : epoll_(epoll), bell_(bell) {}

  const int epoll_;
  const int bell_;
  std::mutex mutex_;  // of the bell: that it rings and that we think so changes in one step
  bool rings_ = false;
};

}  // namespace verbena::io
