// SPDX-License-Identifier: Apache-2.0
// The simulated network itself: ends of connections, listeners, what is under way, the clock and
// the seed. Behaves as Linux TCP does where its users can tell. No locks, no threads: SimHub.
#pragma once

#include <deque>
#include <map>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fallback/io/io.h"
#include "fallback/io/sim_network.h"
#include "fallback/io/sim_packets.h"
#include "fallback/io/sim_pipe.h"
#include "fallback/io/socket_error.h"

namespace verbena::io {

// Who calls: one world at one address (its port is 0).
struct SimNode {
  int world = 0;
  Address address;
};

class SimWire final : SimSurroundings {
 public:
  explicit SimWire(const SimOptions& options) : options_(options), random_(options.seed) {}
  SimWire(const SimWire&) = delete;  // packets_ knows it
  SimWire& operator=(const SimWire&) = delete;

  SimNode AddNode(const Address& address);
  void RemoveNode(const SimNode& node);  // resets all that it left open

  // The six operations and their kin, as in Streams.
  absl::StatusOr<Socket> Connect(const SimNode& node, const Address& to, const Address& from);
  absl::Status ConnectResult(Socket socket);
  absl::StatusOr<Socket> Listen(const SimNode& node, const Address& at, int backlog);
  int Accept(Socket listener);
  ssize_t Receive(Socket socket, std::span<const iovec> into);
  ssize_t Send(Socket socket, std::span<const iovec> from);
  void FinishSending(Socket socket);
  void Close(Socket socket, bool reset);
  void SetLiveness(Socket socket, const Liveness& liveness);
  Address Local(Socket socket) const;
  Address Peer(Socket socket) const;

  absl::StatusOr<Socket> OpenDatagrams(const SimNode& node, uint16_t port, bool shared);
  SimPackets& packets() { return packets_; }

  bool Exists(Socket socket) const { return ends_.count(socket) != 0 || packets_.Has(socket); }
  bool Readable(Socket socket) const;
  bool Writable(Socket socket) const;
  bool Broken(Socket socket) const;  // EPOLLERR or EPOLLHUP

  bool Reset(Socket socket);
  bool ResetOne();
  void Partition(const Address& a, const Address& b, bool on);

  Nanos now() const { return now_; }
  Nanos NextEvent() const;  // later than now; kNever: none
  void AdvanceTo(Nanos when);

  uint64_t Below(uint64_t bound) { return random_() % bound; }  // bound > 0
  const SimInjected& injected() const { return injected_; }

 private:
  enum class Role { kConnecting, kStream, kListener };

  struct End {
    SimNode node;
    Role role = Role::kStream;
    Address local, peer, from;  // from: as Connect asked, for its error

    Nanos started = 0, decided = kNever;  // kConnecting: since when, and when the answer comes

    std::deque<Socket> backlog;  // kListener
    size_t backlog_limit = 0;

    Socket other = kNoSocket;  // kStream: the far end while both are open and whole
    SimPipe in;
    Liveness liveness;
    int error = 0;      // what the next call is told, once
    bool dead = false;  // refused, reset or timed out
    bool finished_sending = false;
    Nanos stalled = 0;              // a send finds no room before this
    Nanos vanished_since = kNever;  // since when bytes go to an end that is closed
  };
  using Pair = std::pair<std::string, std::string>;

  // SimSurroundings
  Nanos Now() const override { return now_; }
  bool Happens(double probability) override { return Chance(probability); }
  Nanos ArrivalTime() override { return Arrival(); }
  bool Apart(const Address& a, const Address& b) const override {
    return partitions_.count(Between(a, b)) != 0;
  }

  bool Chance(double probability);
  Nanos Arrival();  // of what is sent now
  End* Find(Socket socket);
  const End* Find(Socket socket) const;
  static int TakeError(End& end) { return std::exchange(end.error, 0); }

  Address Resolve(const SimNode& node, const Address& address) const;
  bool PortTaken(const Address& local, bool listeners_too) const;
  uint16_t FreePort(const Address& node);
  Socket Add(End end);
  void Decide(End& caller, Socket socket);  // a connect's answer has come

  static Pair Between(const Address& a, const Address& b);
  Nanos HeldSince(const End& end) const;  // kNever: not partitioned from its peer
  Nanos SilenceEnds(const End& end) const;
  void Die(End& end, int error);
  void Break(End& end);
  void Settle();

  const SimOptions options_;
  std::mt19937_64 random_;
  SimInjected injected_;
  Nanos now_ = 1'000'000'000;  // not 0, which users take for "no deadline set"
  int next_world_ = 1;
  Socket next_socket_ = 1000;  // unlike descriptors; never used again
  uint16_t next_port_ = 49152;
  std::vector<SimNode> nodes_;
  std::map<Socket, End> ends_;  // ordered: the same seed walks it in the same order
  std::map<Pair, Nanos> partitions_;
  SimPackets packets_{options_, this, &injected_};
};

}  // namespace verbena::io
