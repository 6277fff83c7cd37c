// SPDX-License-Identifier: Apache-2.0
// A network in memory, for tests: byte streams that arrive late, in pieces or not at all, a clock
// that jumps from event to event, and one seed that decides everything. With one test thread, the
// same seed gives the same run; no real clock is read.
//
// Thread-safe. In a process with several threads, the clock waits for 1 to 100 ms of real time, in
// which nobody does anything, before it jumps far (over 1 ms): virtual timeouts should not fire
// just because a thread was not scheduled. What one thread sees stays the same.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "fallback/io/world.h"

namespace verbena::io {

struct SimOptions {
  uint64_t seed = 1;

  // Per call.
  double partial_read = 0.3;     // fewer bytes than are there, one time in four a single one
  double short_write = 0.2;      // fewer bytes than fit
  double would_block = 0.05;     // a send finds no room, and none for up to `stall`
  double delay = 0.2;            // a send arrives up to `max_delay` later than `latency`
  double reset_probability = 0;  // a send breaks the connection
  double datagram_loss = 0.05;
  double datagram_duplication = 0.05;
  size_t datagram_capacity = 64 << 10;  // bytes that wait at a socket

  Nanos latency = 5'000;        // one way, always; at least 1
  Nanos max_delay = 200'000;    // what a delay adds, at most
  Nanos stall = 50'000;         // how long an injected lack of room lasts, at most
  size_t capacity = 256 << 10;  // bytes per direction: sent and not yet received

  int idle_real_ms = 20'000;  // Await for ever, and nothing can happen: gives up after this

  // A network that does nothing but carry bytes.
  static SimOptions Calm(uint64_t seed = 1) {
    SimOptions options;
    options.seed = seed;
    options.partial_read = options.short_write = options.would_block = options.delay = 0;
    options.datagram_loss = options.datagram_duplication = 0;
    return options;
  }
};

// What the seed did to its users. A test that ran without any of it tested less than it thinks.
struct SimInjected {
  uint64_t partial_reads = 0, short_writes = 0, resets = 0, delays = 0, would_blocks = 0;
  uint64_t losses = 0, duplicates = 0;  // of datagrams
  uint64_t datagrams = 0;               // of which it had the choice

  // "123 partial reads, 45 short writes, 0 resets, 678 delays, 9 would-blocks, 3 losses, 2
  // duplicates"
  std::string ToString() const;
};

struct SimHub;

class SimNetwork {
 public:
  explicit SimNetwork(SimOptions options = {});
  ~SimNetwork();  // after its worlds
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;

  // A node with this address (a numeric IPv4 or IPv6; two worlds may share one, and then its
  // ports). 0.0.0.0, [::] and the loopback addresses mean the node itself. Here and below, text
  // that is no address throws: it stands in the test.
  std::unique_ptr<World> NewWorld(absl::string_view ip);

  // Breaks a connection as a router or a crash would: both ends find ECONNRESET after what has
  // arrived. False: there is none. ResetOne lets the seed choose among the established ones.
  bool Reset(Socket socket);
  bool ResetOne();

  // While `on`, nothing passes between the two nodes; it is kept and passes afterwards. Sockets
  // with bounds on silence (SetLiveness) find ETIMEDOUT when these are over.
  void Partition(absl::string_view ip, absl::string_view other_ip, bool on);

  Nanos Now() const;
  void Advance(Nanos by);  // lets virtual time pass without turning anything

  SimInjected injected() const;
  // "seed 7: 123 partial reads, 45 short writes, …"
  std::string Describe() const;

 private:
  const std::unique_ptr<SimHub> hub_;
};

}  // namespace verbena::io
