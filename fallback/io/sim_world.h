// SPDX-License-Identifier: Apache-2.0
// One node of a simulated network as a World: its streams, its poller, the hub's crank. Thin: each
// call takes the hub's mutex, asks the wire, and lets sleeping threads know.
#pragma once

#include <map>

#include "fallback/io/sim_hub.h"

namespace verbena::io {

class SimStreams final : public Streams {
 public:
  SimStreams(SimHub& hub, SimNode node) : hub_(hub), node_(node) {}

  absl::StatusOr<Socket> Connect(const Address& to, const Address& from) override;
  absl::Status ConnectResult(Socket socket) override;
  absl::StatusOr<Socket> Listen(const Address& at, int backlog) override;
  int Accept(Socket listener) override;
  ssize_t Receive(Socket socket, std::span<const iovec> into) override;
  ssize_t Send(Socket socket, std::span<const iovec> from) override;
  void FinishSending(Socket socket) override;
  void Close(Socket socket, bool reset) override;
  void SetLiveness(Socket socket, const Liveness& liveness) override;
  void SetTrafficClass(Socket, uint8_t) override {}
  uint32_t MaxSegment(Socket) const override { return 1460; }  // it has no segments
  std::vector<Address> Addresses() const override { return {node_.address}; }
  Address Local(Socket socket) const override;
  Address Peer(Socket socket) const override;

 private:
  SimHub& hub_;
  const SimNode node_;
};

class SimDatagrams final : public Datagrams {
 public:
  SimDatagrams(SimHub& hub, SimNode node) : hub_(hub), node_(node) {}

  absl::StatusOr<Socket> Open(uint16_t port, bool shared) override;
  int Send(Socket socket, std::span<const Outgoing> datagrams) override;
  int Receive(Socket socket, std::span<Incoming> datagrams) override;
  absl::Status Join(Socket socket, const Ip& group, const Ip& at) override;
  absl::Status Leave(Socket socket, const Ip& group, const Ip& at) override;

 private:
  SimHub& hub_;
  const SimNode node_;
};

// Wait never blocks: it tells what is ready at this virtual instant.
class SimPoller final : public Poller {
 public:
  explicit SimPoller(SimHub& hub) : hub_(hub) {}

  void Watch(Socket socket, uint64_t tag, bool read, bool write) override;
  void Change(Socket socket, uint64_t tag, bool read, bool write) override;
  void WatchEdges(int, uint64_t) override {}
  void Unwatch(Socket socket) override;
  size_t Wait(std::span<Ready> out, Nanos deadline) override;
  void Wake() override;
  Nanos Now() const override;

 private:
  struct Interest {
    uint64_t tag;
    bool read, write;
  };
  SimHub& hub_;
  std::map<Socket, Interest> watched_;  // guarded by hub_.mutex
};

class SimWorld final : public World {
 public:
  SimWorld(SimHub& hub, const SimNode& node)
      : hub_(hub), node_(node), streams_(hub, node), datagrams_(hub, node), poller_(hub) {}
  ~SimWorld() override;

  Streams& streams() override { return streams_; }
  Datagrams* datagrams() override { return &datagrams_; }
  Poller& poller() override { return poller_; }
  void Random(std::span<uint8_t> out) override {
    std::lock_guard lock(hub_.mutex);
    for (uint8_t& byte : out) byte = static_cast<uint8_t>(hub_.wire.Below(256));
  }
  bool descriptors() const override { return false; }
  void Start(Service* service) override { hub_.Start(service); }
  void Stop(Service* service) override { hub_.Stop(service); }
  bool Await(absl::FunctionRef<bool()> ready, Nanos deadline) override {
    return hub_.Await(ready, deadline);
  }
  void Changed() override { hub_.Changed(); }
  void Nudge() override { hub_.Nudge(); }

 private:
  SimHub& hub_;
  const SimNode node_;
  SimStreams streams_;
  SimDatagrams datagrams_;
  SimPoller poller_;
};

}  // namespace verbena::io
