// SPDX-License-Identifier: Apache-2.0
// Streams and a world that pass on every call: for those that stand around others, and change or
// look at a few.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "fallback/io/world.h"

namespace verbena::io {

class ForwardingStreams : public Streams {
 public:
  explicit ForwardingStreams(Streams& inner) : inner_(inner) {}

  absl::StatusOr<Socket> Connect(const Address& to, const Address& from) override {
    return inner_.Connect(to, from);
  }
  absl::Status ConnectResult(Socket socket) override { return inner_.ConnectResult(socket); }
  absl::StatusOr<Socket> Listen(const Address& at, int backlog) override {
    return inner_.Listen(at, backlog);
  }
  int Accept(Socket listener) override { return inner_.Accept(listener); }
  ssize_t Receive(Socket socket, std::span<const iovec> into) override {
    return inner_.Receive(socket, into);
  }
  ssize_t Send(Socket socket, std::span<const iovec> from) override {
    return inner_.Send(socket, from);
  }
  void FinishSending(Socket socket) override { inner_.FinishSending(socket); }
  void Close(Socket socket, bool reset) override { inner_.Close(socket, reset); }
  void SetLiveness(Socket socket, const Liveness& liveness) override {
    inner_.SetLiveness(socket, liveness);
  }
  void SetTrafficClass(Socket socket, uint8_t traffic_class) override {
    inner_.SetTrafficClass(socket, traffic_class);
  }
  uint32_t MaxSegment(Socket socket) const override { return inner_.MaxSegment(socket); }
  std::vector<Address> Addresses() const override { return inner_.Addresses(); }
  Address Local(Socket socket) const override { return inner_.Local(socket); }
  Address Peer(Socket socket) const override { return inner_.Peer(socket); }

 protected:
  Streams& inner() const { return inner_; }

 private:
  Streams& inner_;
};

class ForwardingWorld : public World {
 public:
  explicit ForwardingWorld(std::unique_ptr<World> inner) : inner_(std::move(inner)) {}

  Streams& streams() override { return inner_->streams(); }
  Datagrams* datagrams() override { return inner_->datagrams(); }
  Poller& poller() override { return inner_->poller(); }
  void Random(std::span<uint8_t> out) override { inner_->Random(out); }
  bool descriptors() const override { return inner_->descriptors(); }
  void Start(Service* service) override { inner_->Start(service); }
  void Stop(Service* service) override { inner_->Stop(service); }
  bool Await(absl::FunctionRef<bool()> ready, Nanos deadline) override {
    return inner_->Await(ready, deadline);
  }
  void Changed() override { inner_->Changed(); }
  void Nudge() override { inner_->Nudge(); }

 protected:
  World& inner() const { return *inner_; }

 private:
  const std::unique_ptr<World> inner_;
};

}  // namespace verbena::io
