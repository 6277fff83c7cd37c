// SPDX-License-Identifier: Apache-2.0
// What the fallback asks of the world: streams, readiness and time. The kernel answers in
// production, a simulated network with a virtual clock in tests; callers cannot tell which.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "transport/address.h"

namespace verbena::io {

using provider::Address;

using Socket = int;  // a descriptor, or a number of the simulated network
inline constexpr Socket kNoSocket = -1;
using Nanos = int64_t;  // of a monotonic clock
inline constexpr Nanos kNever = INT64_MAX;

// Bounds on silence, from the queue pair's timeout and retry count.
struct Liveness {
  Nanos user_timeout = 0;  // unacknowledged data; 0: the system's
  // An idle connection; 0: off. The kernel counts whole seconds, two at least.
  Nanos keepalive = 0;
};

// Streams. Every socket is non-blocking, close-on-exec and sends small segments at once
// (TCP_NODELAY, on both ends). Calls on one socket come from one thread at a time.
class Streams {
 public:
  virtual ~Streams() = default;

  // Begins to connect; writable when done, then ConnectResult, once. `from`: empty, or where to
  // start from (port 0: any). ErrnoOf (socket_error.h) gives the errno behind these statuses.
  virtual absl::StatusOr<Socket> Connect(const Address& to, const Address& from) = 0;
  virtual absl::Status ConnectResult(Socket socket) = 0;
  virtual absl::StatusOr<Socket> Listen(const Address& at, int backlog) = 0;
  // A Socket, or a negative errno: -EAGAIN none waits; -EMFILE out of descriptors, which leaves
  // the listener readable, so that its caller must look away for a while.
  virtual int Accept(Socket listener) = 0;

  // As readv(2) and writev(2) (sendmsg with MSG_NOSIGNAL): bytes moved, 0 at end of stream (read),
  // or a negative errno, -EAGAIN when it would block. At least one byte of room or data; more than
  // IOV_MAX pieces are a short read or write.
  virtual ssize_t Receive(Socket socket, std::span<const iovec> into) = 0;
  virtual ssize_t Send(Socket socket, std::span<const iovec> from) = 0;

  virtual void FinishSending(Socket socket) = 0;  // shutdown(SHUT_WR)
  // reset: drop what is unsent, send RST. Unwatch before: a closed number may come again.
  virtual void Close(Socket socket, bool reset) = 0;
  virtual void SetLiveness(Socket socket, const Liveness& liveness) = 0;
  virtual void SetTrafficClass(Socket socket,
                               uint8_t traffic_class) = 0;  // of what is sent from now

  // Bytes of a TCP segment to this peer as of now (TCP_MAXSEG); a path's MTU may change it.
  virtual uint32_t MaxSegment(Socket socket) const = 0;

  // Where peers reach this node, best first; ports 0.
  virtual std::vector<Address> Addresses() const = 0;
  virtual Address Local(Socket socket) const = 0;
  virtual Address Peer(Socket socket) const = 0;
};

struct Ready {
  uint64_t tag = 0;
  bool readable = false;  // also: error or hang-up, so that the reader finds out
  bool writable = false;
};

// Readiness, level-triggered, and the clock. Watch/Change/Unwatch/Wake/Now: any thread.
// Wait: one thread (the service thread). Errors and hang-ups are reported as readable whatever is
// watched, but a socket watched for neither stays silent: else a broken one would spin.
// After Unwatch, a Wait under way in another thread may still report the tag once.
class Poller {
 public:
  virtual ~Poller() = default;
  static constexpr uint64_t kReservedTag = UINT64_MAX;  // the poller's own
  virtual void Watch(Socket socket, uint64_t tag, bool read, bool write) = 0;
  virtual void Change(Socket socket, uint64_t tag, bool read, bool write) = 0;
  // `descriptor` becoming readable, reported once each time: at once if it is already, and again
  // only when something more has happened to it. Only where World::descriptors().
  virtual void WatchEdges(int descriptor, uint64_t tag) = 0;
  virtual void Unwatch(Socket socket) = 0;
  // Blocks until something is ready, Wake() was called (since the last Wait) or `deadline` passed;
  // how many it wrote.
  virtual size_t Wait(std::span<Ready> out, Nanos deadline) = 0;
  virtual void Wake() = 0;
  virtual Nanos Now() const = 0;
};

}  // namespace verbena::io
