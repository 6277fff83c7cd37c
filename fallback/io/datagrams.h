// SPDX-License-Identifier: Apache-2.0
// Datagram sockets, beside the streams of io.h: one socket has IPv4 and IPv6, at every address of
// this node. Sockets are non-blocking, are closed by Streams::Close, and Streams::Local has their
// port. Calls on one socket come from one thread at a time.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fallback/io/io.h"
#include "transport/ip.h"

namespace verbena::io {

struct Place {
  Ip ip = {};
  uint32_t scope = 0;  // link-local IPv6 and groups: the interface; 0: the system's choice
  uint16_t port = 0;
};

struct Outgoing {
  Place to;
  Ip from = {};  // zeros: the system's choice. For a group: the interface with this address
  uint8_t traffic_class = 0;  // 0: the system's
  uint8_t hop_limit = 0;      // 0: the system's
  std::span<const iovec> pieces = {};
};

struct Incoming {
  std::span<std::byte> into = {};  // what is longer is cut off, and `cut` says so
  size_t size = 0;
  bool cut = false;
  Ip from = {}, to = {};
  uint8_t traffic_class = 0;
  uint8_t hop_limit = 0;
};

class Datagrams {
 public:
  virtual ~Datagrams() = default;
  static constexpr size_t kMost = 16;  // in a call

  // `port` 0: a free one. `shared`: others may have it too, and each gets what groups are sent.
  virtual absl::StatusOr<Socket> Open(uint16_t port, bool shared) = 0;
  // How many have gone, of at most kMost; -EAGAIN: there is no room now. One that the system
  // refuses for good has gone as one that is lost on the way.
  virtual int Send(Socket socket, std::span<const Outgoing> datagrams) = 0;
  // How many came, of at most kMost; -EAGAIN: none.
  virtual int Receive(Socket socket, std::span<Incoming> datagrams) = 0;
  // At the interface that has the address `at`, or (zeros) the system's choice.
  virtual absl::Status Join(Socket socket, const Ip& group, const Ip& at) = 0;
  virtual absl::Status Leave(Socket socket, const Ip& group, const Ip& at) = 0;
};

}  // namespace verbena::io
