// SPDX-License-Identifier: Apache-2.0
// A world whose streams are written down. It stands around another one from the beginning, so that
// nothing is asked on the data path of a process that does not capture.
#include <errno.h>

#include <utility>

#include "fallback/io/forwarding.h"
#include "fallback/pcap/capture.h"

namespace verbena::pcap {
namespace {

class CapturedStreams final : public io::ForwardingStreams {
 public:
  CapturedStreams(io::World* world, Capture* capture)
      : ForwardingStreams(world->streams()), poller_(world->poller()), capture_(capture) {}
  ~CapturedStreams() override;

  absl::Status ConnectResult(io::Socket socket) override;
  int Accept(io::Socket listener) override;
  ssize_t Receive(io::Socket socket, std::span<const iovec> into) override;
  ssize_t Send(io::Socket socket, std::span<const iovec> from) override;
  void FinishSending(io::Socket socket) override;
  void Close(io::Socket socket, bool reset) override;

 private:
  struct Connection {
    io::Address local, peer;
    std::unique_ptr<TcpStream> stream;
  };
  void Begin(io::Socket socket, bool called);
  TcpStream* Find(io::Socket socket);
  int64_t At() const { return capture_->At(poller_.Now()); }

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
  Connection made{Local(socket), Peer(socket), nullptr};
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
  absl::Status result = inner().ConnectResult(socket);
  if (result.ok()) Begin(socket, true);
  return result;
}

int CapturedStreams::Accept(io::Socket listener) {
  const int socket = inner().Accept(listener);
  if (socket >= 0) Begin(socket, false);
  return socket;
}

ssize_t CapturedStreams::Receive(io::Socket socket, std::span<const iovec> into) {
  const ssize_t count = inner().Receive(socket, into);
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
  const ssize_t count = inner().Send(socket, from);
  TcpStream* const stream = Find(socket);
  if (count > 0 && stream != nullptr) {
    stream->Moved(at, Way::kOut, from, static_cast<size_t>(count));
  }
  return count;
}

void CapturedStreams::FinishSending(io::Socket socket) {
  const std::lock_guard lock(capture_->mutex());
  if (TcpStream* const stream = Find(socket)) stream->Ended(At(), Way::kOut, false);
  inner().FinishSending(socket);
}

void CapturedStreams::Close(io::Socket socket, bool reset) {
  const std::lock_guard lock(capture_->mutex());
  if (const auto found = connections_.find(socket); found != connections_.end()) {
    found->second.stream->Ended(At(), Way::kOut, reset);
    capture_->Forget(found->second.local, found->second.peer);
    connections_.erase(found);
  }
  inner().Close(socket, reset);  // after: its number may come again at once
}

class CapturedWorld final : public io::ForwardingWorld {
 public:
  CapturedWorld(std::unique_ptr<io::World> world, Capture* capture)
      : ForwardingWorld(std::move(world)), streams_(&inner(), capture) {}

  io::Streams& streams() override { return streams_; }

 private:
  CapturedStreams streams_;
};

}  // namespace

std::unique_ptr<io::World> Captured(std::unique_ptr<io::World> world, Capture* capture) {
  return std::make_unique<CapturedWorld>(std::move(world), capture);
}

}  // namespace verbena::pcap
