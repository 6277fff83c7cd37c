// SPDX-License-Identifier: Apache-2.0
// Streams in memory, on one thread, with a clock that goes on only when it is told to: the same
// instructions on every run, and hardly any of them its own. Nothing is lost, delayed or cut; the
// simulated network is for that.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "fallback/io/world.h"

namespace verbena::bench {

// One world, whose sockets connect to each other.
class CableWorld final : public io::World, io::Streams, io::Poller {
 public:
  void Pass(io::Nanos time) { now_ += time; }
  void Turn() { service_->Turn(now_); }  // what the service's thread would do now

  io::Streams& streams() override { return *this; }
  io::Poller& poller() override { return *this; }
  void Random(std::span<uint8_t> out) override;
  bool descriptors() const override { return false; }
  void Start(io::Service* service) override { service_ = service; }
  void Stop(io::Service*) override {}
  bool Await(absl::FunctionRef<bool()> ready, io::Nanos deadline) override;
  void Changed() override {}
  void Nudge() override {}

 private:
  struct End {
    io::Address local, peer;
    io::Socket other = io::kNoSocket;  // none: a listener, or its far end is closed
    std::vector<io::Socket> backlog;
    std::unique_ptr<std::byte[]> in;  // of kCapacity
    size_t begin = 0, end = 0;        // what is there to be read
    bool finished = false;            // and nothing behind it
    bool watched = false, read = false, write = false;
    uint64_t tag = 0;
  };
  static constexpr size_t kCapacity = 4 << 20;

  io::Socket Add(const io::Address& local, const io::Address& peer);
  End& at(io::Socket socket) { return *ends_[static_cast<size_t>(socket)]; }
  const End& at(io::Socket socket) const { return *ends_[static_cast<size_t>(socket)]; }

  absl::StatusOr<io::Socket> Connect(const io::Address& to, const io::Address& from) override;
  absl::Status ConnectResult(io::Socket) override { return absl::OkStatus(); }
  absl::StatusOr<io::Socket> Listen(const io::Address& at, int backlog) override;
  int Accept(io::Socket listener) override;
  ssize_t Receive(io::Socket socket, std::span<const iovec> into) override;
  ssize_t Send(io::Socket socket, std::span<const iovec> from) override;
  void FinishSending(io::Socket socket) override;
  void Close(io::Socket socket, bool reset) override;
  void SetLiveness(io::Socket, const io::Liveness&) override {}
  void SetTrafficClass(io::Socket, uint8_t) override {}
  uint32_t MaxSegment(io::Socket) const override { return 1460; }
  std::vector<io::Address> Addresses() const override { return {at(0).local}; }
  io::Address Local(io::Socket socket) const override { return at(socket).local; }
  io::Address Peer(io::Socket socket) const override { return at(socket).peer; }

  void Watch(io::Socket socket, uint64_t tag, bool read, bool write) override;
  void Change(io::Socket socket, uint64_t tag, bool read, bool write) override;
  void WatchEdges(int, uint64_t) override {}
  void Unwatch(io::Socket socket) override { at(socket).watched = false; }
  size_t Wait(std::span<io::Ready> out, io::Nanos deadline) override;
  void Wake() override {}
  io::Nanos Now() const override { return now_; }

  std::vector<std::unique_ptr<End>> ends_;  // by number; none is used again
  io::Service* service_ = nullptr;
  io::Nanos now_ = 1'000'000'000;
  uint8_t random_ = 0;
};

}  // namespace verbena::bench
