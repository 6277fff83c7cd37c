// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/asking_world.h"

#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "fallback/wire/extension.h"
#include "fallback/wire/mpa.h"
#include "tests/bench/sides.h"

namespace verbena::bench {
namespace {

// The frame as it is to be sent. A Request is one call's bytes.
std::vector<char> Changed(std::span<const iovec> from, Ask what) {
  std::vector<char> frame;
  for (const iovec& piece : from) {
    const char* bytes = static_cast<const char*>(piece.iov_base);
    frame.insert(frame.end(), bytes, bytes + piece.iov_len);
  }
  wire::MpaHeader header;
  if (frame.size() < sizeof(header) + sizeof(wire::RecordBytes)) Die("not an MPA Request of ours");
  std::memcpy(&header, frame.data(), sizeof(header));
  if (what == Ask::kCrc) {
    header.flags |= wire::kMpaCrc;
  } else {
    header.private_data_length =
        static_cast<uint16_t>(header.private_data_length - sizeof(wire::RecordBytes));
    frame.erase(frame.end() - sizeof(wire::RecordBytes), frame.end());
  }
  std::memcpy(frame.data(), &header, sizeof(header));
  return frame;
}

class AskingStreams final : public io::Streams {
 public:
  AskingStreams(io::Streams* streams, Ask what) : streams_(*streams), what_(what) {}

  absl::StatusOr<io::Socket> Connect(const io::Address& to, const io::Address& from) override {
    absl::StatusOr<io::Socket> socket = streams_.Connect(to, from);
    if (socket.ok()) silent_.insert(*socket);
    return socket;
  }
  ssize_t Send(io::Socket socket, std::span<const iovec> from) override {
    // Connecting is one thread's work here, and nothing else is sent meanwhile.
    if (!silent_.empty() && silent_.erase(socket) != 0) return SendRequest(socket, from);
    return streams_.Send(socket, from);
  }

  absl::Status ConnectResult(io::Socket socket) override { return streams_.ConnectResult(socket); }
  absl::StatusOr<io::Socket> Listen(const io::Address& at, int backlog) override {
    return streams_.Listen(at, backlog);
  }
  int Accept(io::Socket listener) override { return streams_.Accept(listener); }
  ssize_t Receive(io::Socket socket, std::span<const iovec> into) override {
    return streams_.Receive(socket, into);
  }
  void FinishSending(io::Socket socket) override { streams_.FinishSending(socket); }
  void Close(io::Socket socket, bool reset) override { streams_.Close(socket, reset); }
  void SetLiveness(io::Socket socket, const io::Liveness& liveness) override {
    streams_.SetLiveness(socket, liveness);
  }
  void SetTrafficClass(io::Socket socket, uint8_t traffic_class) override {
    streams_.SetTrafficClass(socket, traffic_class);
  }
  uint32_t MaxSegment(io::Socket socket) const override { return streams_.MaxSegment(socket); }
  std::vector<io::Address> Addresses() const override { return streams_.Addresses(); }
  io::Address Local(io::Socket socket) const override { return streams_.Local(socket); }
  io::Address Peer(io::Socket socket) const override { return streams_.Peer(socket); }

 private:
  ssize_t SendRequest(io::Socket socket, std::span<const iovec> from) {
    std::vector<char> frame = Changed(from, what_);
    const iovec whole{frame.data(), frame.size()};
    if (streams_.Send(socket, {&whole, 1}) != static_cast<ssize_t>(frame.size())) {
      Die("an MPA Request did not go out at once");
    }
    ssize_t taken = 0;  // as far as the caller knows, all that it gave
    for (const iovec& piece : from) taken += static_cast<ssize_t>(piece.iov_len);
    return taken;
  }

  io::Streams& streams_;
  const Ask what_;
  std::set<io::Socket> silent_;  // connecting
};

class AskingWorld final : public io::World {
 public:
  AskingWorld(std::unique_ptr<io::World> world, Ask what)
      : world_(std::move(world)), streams_(&world_->streams(), what) {}

  io::Streams& streams() override { return streams_; }
  io::Poller& poller() override { return world_->poller(); }
  void Random(std::span<uint8_t> out) override { world_->Random(out); }
  bool descriptors() const override { return world_->descriptors(); }
  void Start(io::Service* service) override { world_->Start(service); }
  void Stop(io::Service* service) override { world_->Stop(service); }
  bool Await(absl::FunctionRef<bool()> ready, io::Nanos deadline) override {
    return world_->Await(ready, deadline);
  }
  void Changed() override { world_->Changed(); }
  void Nudge() override { world_->Nudge(); }

 private:
  const std::unique_ptr<io::World> world_;
  AskingStreams streams_;
};

}  // namespace

std::unique_ptr<io::World> Asking(std::unique_ptr<io::World> world, Ask what) {
  return std::make_unique<AskingWorld>(std::move(world), what);
}

}  // namespace verbena::bench
