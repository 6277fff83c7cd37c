// SPDX-License-Identifier: Apache-2.0
// Datagrams of the simulated network: they come late, in another order, twice or not at all, as the
// seed decides. No locks, no threads: SimHub.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "fallback/io/datagrams.h"
#include "fallback/io/sim_network.h"

namespace verbena::io {

// What the wire around it knows.
class SimSurroundings {
 public:
  virtual ~SimSurroundings() = default;
  virtual Nanos Now() const = 0;
  virtual bool Happens(double probability) = 0;
  virtual Nanos ArrivalTime() = 0;  // of what is sent now
  virtual bool Apart(const Address& a, const Address& b) const = 0;
};

class SimPackets {
 public:
  SimPackets(const SimOptions& options, SimSurroundings* around, SimInjected* injected)
      : options_(options), around_(*around), injected_(*injected) {}

  // `node`: its address, port 0. False: the port is taken.
  bool Open(Socket socket, int world, const Address& node, uint16_t port, bool shared);
  bool Has(Socket socket) const { return ports_.count(socket) != 0; }
  void Close(Socket socket) { ports_.erase(socket); }
  void CloseAll(int world);
  int Send(Socket socket, std::span<const Outgoing> datagrams);
  int Receive(Socket socket, std::span<Incoming> datagrams);
  absl::Status Join(Socket socket, const Ip& group);
  absl::Status Leave(Socket socket, const Ip& group);

  bool Readable(Socket socket) const;
  Address Local(Socket socket) const;
  Nanos NextEvent() const;  // later than now; kNever: none

 private:
  struct Packet {
    std::string bytes;
    Ip from, to;
    uint8_t traffic_class, hop_limit;
  };
  struct Port {
    int world = 0;
    Address node;
    uint16_t port = 0;
    bool shared = false;
    std::set<Ip> groups;
    std::multimap<Nanos, Packet> in;  // by arrival
    size_t bytes = 0;                 // of all of it
  };
  bool Reaches(const Port& from, const Port& to, const Outgoing& datagram) const;
  void Deliver(const Port& from, const Outgoing& datagram, Port* to);
  uint16_t FreePort(const Address& node) const;

  const SimOptions& options_;
  SimSurroundings& around_;
  SimInjected& injected_;
  std::map<Socket, Port> ports_;  // ordered: the same seed walks it in the same order
};

}  // namespace verbena::io
