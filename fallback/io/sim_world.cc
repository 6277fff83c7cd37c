// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/sim_world.h"

#include <errno.h>

#include <algorithm>
#include <vector>

namespace verbena::io {

absl::StatusOr<Socket> SimStreams::Connect(const Address& to, const Address& from) {
  std::lock_guard lock(hub_.mutex);
  hub_.ChangedLocked();
  return hub_.wire.Connect(node_, to, from);
}

absl::Status SimStreams::ConnectResult(Socket socket) {
  std::lock_guard lock(hub_.mutex);
  return hub_.wire.ConnectResult(socket);
}

absl::StatusOr<Socket> SimStreams::Listen(const Address& at, int backlog) {
  std::lock_guard lock(hub_.mutex);
  hub_.ChangedLocked();
  return hub_.wire.Listen(node_, at, backlog);
}

int SimStreams::Accept(Socket listener) {
  std::lock_guard lock(hub_.mutex);
  return hub_.wire.Accept(listener);
}

ssize_t SimStreams::Receive(Socket socket, std::span<const iovec> into) {
  std::lock_guard lock(hub_.mutex);
  const ssize_t count = hub_.wire.Receive(socket, into);
  if (count > 0) hub_.ChangedLocked();  // there is room for the sender
  return count;
}

ssize_t SimStreams::Send(Socket socket, std::span<const iovec> from) {
  std::lock_guard lock(hub_.mutex);
  const ssize_t count = hub_.wire.Send(socket, from);
  if (count != -EAGAIN) hub_.ChangedLocked();
  return count;
}

void SimStreams::FinishSending(Socket socket) {
  std::lock_guard lock(hub_.mutex);
  hub_.ChangedLocked();
  hub_.wire.FinishSending(socket);
}

void SimStreams::Close(Socket socket, bool reset) {
  std::lock_guard lock(hub_.mutex);
  hub_.ChangedLocked();
  hub_.wire.Close(socket, reset);
}

void SimStreams::SetLiveness(Socket socket, const Liveness& liveness) {
  std::lock_guard lock(hub_.mutex);
  hub_.wire.SetLiveness(socket, liveness);
}

Address SimStreams::Local(Socket socket) const {
  std::lock_guard lock(hub_.mutex);
  return hub_.wire.Local(socket);
}

Address SimStreams::Peer(Socket socket) const {
  std::lock_guard lock(hub_.mutex);
  return hub_.wire.Peer(socket);
}

absl::StatusOr<Socket> SimDatagrams::Open(uint16_t port, bool shared) {
  std::lock_guard lock(hub_.mutex);
  return hub_.wire.OpenDatagrams(node_, port, shared);
}

int SimDatagrams::Send(Socket socket, std::span<const Outgoing> datagrams) {
  std::lock_guard lock(hub_.mutex);
  const int count = hub_.wire.packets().Send(socket, datagrams);
  if (count > 0) hub_.ChangedLocked();
  return count;
}

int SimDatagrams::Receive(Socket socket, std::span<Incoming> datagrams) {
  std::lock_guard lock(hub_.mutex);
  return hub_.wire.packets().Receive(socket, datagrams);
}

absl::Status SimDatagrams::Join(Socket socket, const Ip& group, const Ip&) {
  std::lock_guard lock(hub_.mutex);
  return hub_.wire.packets().Join(socket, group);
}

absl::Status SimDatagrams::Leave(Socket socket, const Ip& group, const Ip&) {
  std::lock_guard lock(hub_.mutex);
  return hub_.wire.packets().Leave(socket, group);
}

void SimPoller::Watch(Socket socket, uint64_t tag, bool read, bool write) {
  Change(socket, tag, read, write);
}

void SimPoller::Change(Socket socket, uint64_t tag, bool read, bool write) {
  std::lock_guard lock(hub_.mutex);
  watched_[socket] = {tag, read, write};
  hub_.ChangedLocked();  // level-triggered: it may be ready already
}

void SimPoller::Unwatch(Socket socket) {
  std::lock_guard lock(hub_.mutex);
  watched_.erase(socket);
}

size_t SimPoller::Wait(std::span<Ready> out, Nanos) {
  std::lock_guard lock(hub_.mutex);
  // A closed descriptor leaves its epoll set by itself.
  std::erase_if(watched_, [&](const auto& each) { return !hub_.wire.Exists(each.first); });
  std::vector<Ready> ready;
  for (const auto& [socket, interest] : watched_) {
    const bool readable = interest.read && hub_.wire.Readable(socket);
    const bool writable = interest.write && hub_.wire.Writable(socket);
    // As epoll: errors are told to whoever watches anything.
    const bool broken = (interest.read || interest.write) && hub_.wire.Broken(socket);
    if (readable || writable || broken) {
      ready.push_back({interest.tag, readable || broken, writable || broken});
    }
  }
  // The kernel promises no order either; and who is left out has a chance the next time.
  const size_t first = ready.size() > 1 ? hub_.wire.Below(ready.size()) : 0;
  const size_t count = std::min(ready.size(), out.size());
  for (size_t i = 0; i < count; ++i) out[i] = ready[(first + i) % ready.size()];
  return count;
}

void SimPoller::Wake() { hub_.Changed(); }

Nanos SimPoller::Now() const {
  std::lock_guard lock(hub_.mutex);
  return hub_.wire.now();
}

SimWorld::~SimWorld() {
  std::lock_guard lock(hub_.mutex);
  hub_.wire.RemoveNode(node_);
}

}  // namespace verbena::io
