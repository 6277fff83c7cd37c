// SPDX-License-Identifier: Apache-2.0
// A world whose streams are written down. It stands around another one from the beginning, so that
// nothing is asked on the data path of a process that does not capture.
#include <errno.h>

#include <utility>

#include "fallback/pcap/capture.h"

namespace verbena::pcap {
namespace {

class CapturedStreams final : public io::Streams {
 public:
  CapturedStreams(io::World* world, Capture* capture)
      : streams_(world->streams()), poller_(world->poller()), capture_(capture) {}
  ~CapturedStreams() override;

  absl::StatusOr<io::Socket> Connect(const io::Address& to, const io::Address& from) override {
    return streams_.Connect(to, from);
  }
  absl::Status ConnectResult(io::Socket socket) override;
  absl::StatusOr<io::Socket> Listen(const io::Address& at, int backlog) override {
    return streams_.Listen(at, backlog);
  }
  int Accept(io::Socket listener) override;
  ssize_t Receive(io::Socket socket, std::span<const iovec> into) override;
  ssize_t Send(io::Socket socket, std::span<const iovec> from) override;
  void FinishSending(io::Socket socket) override;
  void Close(io::Socket socket, bool reset) override;
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
  struct Connection {
    io::Address local, peer;
    std::unique_ptr<TcpStream> stream;
  };
  void Begin(io::Socket socket, bool called);
  TcpStream* Find(io::Socket socket);
  int64_t At() const { return capture_->At(poller_.Now()); }

  io::Streams& streams_;
  io::Poller& poller_;
  Capture* const capture_;
  absl::flat_hash_map<io::Socket, Connection> connections_;  // guarded by the capture's mutex
};

// Sockets that nobody closed go with their world.
CapturedStreams::~CapturedStreams() {
  const std::lock_guard lock(capture_->mutex());
  for (const auto& [socket, each] : connections_) capture_->Forget(each.local, each.peer);
  connections_.clear();
}

void CapturedStreams::Begin(io::Socket socket, bool called) {
  Connection made{streams_.Local(socket), streams_.Peer(socket), nullptr};
  if (made.local.empty() || made.peer.empty()) return;  // gone already
  const std::lock_guard lock(capture_->mutex());
  made.stream = capture_->Begin(At(), made.local, made.peer, called);
  connections_[socket] = std::move(made);
}

TcpStream* CapturedStreams::Find(io::Socket socket) {
  const auto found = connections_.find(socket);
  return found == connections_.end() ? nullptr : found->second.stream.get();
}

absl::Status CapturedStreams::ConnectResult(io::Socket socket) {
  absl::Status result = streams_.ConnectResult(socket);
  if (result.ok()) Begin(socket, true);
  return result;
}

int CapturedStreams::Accept(io::Socket listener) {
  const int socket = streams_.Accept(listener);
  if (socket >= 0) Begin(socket, false);
  return socket;
}

ssize_t CapturedStreams::Receive(io::Socket socket, std::span<const iovec> into) {
  const ssize_t count = streams_.Receive(socket, into);
  if (count < 0 && count != -ECONNRESET) return count;
  const std::lock_guard lock(capture_->mutex());
  TcpStream* const stream = Find(socket);
  if (stream == nullptr) return count;
  if (count > 0) {
    stream->Moved(At(), Way::kIn, into, static_cast<size_t>(count));
  } else {
    stream->Ended(At(), Way::kIn, count < 0);
  }
  return count;
}

ssize_t CapturedStreams::Send(io::Socket socket, std::span<const iovec> from) {
  const std::lock_guard lock(capture_->mutex());
  const int64_t at = At();  // before: the peer may read its clock in the same instant
  const ssize_t count = streams_.Send(socket, from);
  TcpStream* const stream = Find(socket);
  if (count > 0 && stream != nullptr) {
    stream->Moved(at, Way::kOut, from, static_cast<size_t>(count));
  }
  return count;
}

void CapturedStreams::FinishSending(io::Socket socket) {
  const std::lock_guard lock(capture_->mutex());
  if (TcpStream* const stream = Find(socket)) stream->Ended(At(), Way::kOut, false);
  streams_.FinishSending(socket);
}

void CapturedStreams::Close(io::Socket socket, bool reset) {
  const std::lock_guard lock(capture_->mutex());
  if (const auto found = connections_.find(socket); found != connections_.end()) {
    found->second.stream->Ended(At(), Way::kOut, reset);
    capture_->Forget(found->second.local, found->second.peer);
    connections_.erase(found);
  }
  streams_.Close(socket, reset);  // after: its number may come again at once
}

class CapturedWorld final : public io::World {
 public:
  CapturedWorld(std::unique_ptr<io::World> world, Capture* capture)
      : world_(std::move(world)), streams_(world_.get(), capture) {}

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
  CapturedStreams streams_;
};

}  // namespace

std::unique_ptr<io::World> Captured(std::unique_ptr<io::World> world, Capture* capture) {
  return std::make_unique<CapturedWorld>(std::move(world), capture);
}

}  // namespace verbena::pcap
