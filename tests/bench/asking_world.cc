// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/asking_world.h"

#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "fallback/io/forwarding.h"
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

class AskingStreams final : public io::ForwardingStreams {
 public:
  AskingStreams(io::Streams& streams, Ask what) : ForwardingStreams(streams), what_(what) {}

  absl::StatusOr<io::Socket> Connect(const io::Address& to, const io::Address& from) override {
    absl::StatusOr<io::Socket> socket = inner().Connect(to, from);
    if (socket.ok()) silent_.insert(*socket);
    return socket;
  }
  ssize_t Send(io::Socket socket, std::span<const iovec> from) override {
    // Connecting is one thread's work here, and nothing else is sent meanwhile.
    if (!silent_.empty() && silent_.erase(socket) != 0) return SendRequest(socket, from);
    return inner().Send(socket, from);
  }

 private:
  ssize_t SendRequest(io::Socket socket, std::span<const iovec> from) {
    std::vector<char> frame = Changed(from, what_);
    const iovec whole{frame.data(), frame.size()};
    if (inner().Send(socket, {&whole, 1}) != static_cast<ssize_t>(frame.size())) {
      Die("an MPA Request did not go out at once");
    }
    ssize_t taken = 0;  // as far as the caller knows, all that it gave
    for (const iovec& piece : from) taken += static_cast<ssize_t>(piece.iov_len);
    return taken;
  }

  const Ask what_;
  std::set<io::Socket> silent_;  // connecting
};

class AskingWorld final : public io::ForwardingWorld {
 public:
  AskingWorld(std::unique_ptr<io::World> world, Ask what)
      : ForwardingWorld(std::move(world)), streams_(inner().streams(), what) {}

  io::Streams& streams() override { return streams_; }

 private:
  AskingStreams streams_;
};

}  // namespace

std::unique_ptr<io::World> Asking(std::unique_ptr<io::World> world, Ask what) {
  return std::make_unique<AskingWorld>(std::move(world), what);
}

}  // namespace verbena::bench
