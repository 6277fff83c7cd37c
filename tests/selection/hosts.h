// SPDX-License-Identifier: Apache-2.0
// Hosts with and without RDMA devices, for tests of the choice between them. A device is TCP under
// another name and on a network of its own: host n is 10.0.0.n over TCP, 10.1.0.n over "fake_rdma"
// and, with two rails, 10.2.0.n over "fake_rdma2". One thread drives all; time is virtual.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "connect/compose.h"
#include "fallback/io/sim_network.h"
#include "transport/context.h"

namespace verbena::selection {

inline constexpr const char* kRdma = "fake_rdma";
inline constexpr const char* kRdma2 = "fake_rdma2";

struct HostOptions {
  bool device = true;
  bool composed = true;  // else TCP alone, as a peer that knows nothing of selection
  connect::Settings settings = {};
  Link link = Link::kRoce;
  int rails = 1;
  bool deaf = false;  // its first device cannot listen: it claims an address that it has not
};

class Hosts {
 public:
  explicit Hosts(const io::SimOptions& options = io::SimOptions::Calm()) : network_(options) {}

  Context Open(int host, const HostOptions& options = {});
  // The device network alone: as a stranger on it.
  Context OpenDevice(int host);

  static std::string address(int host, int port);
  // Nothing passes between the devices of hosts 1 and 2 on that rail.
  void SilenceDevices(bool on, int rail = 1) { network_.Partition(Ip(rail, 1), Ip(rail, 2), on); }
  absl::Duration Now() const { return absl::Nanoseconds(network_.Now()); }

 private:
  static std::string Ip(int network, int host);
  std::unique_ptr<provider::Context> Device(int host, int rail, const HostOptions& options);
  io::SimNetwork network_;
};

// The same two networks on this machine's loopback: 127.0.0.1 and 127.0.0.2. With threads.
Context OpenOnKernel(const connect::Settings& settings = {});

// What a connection needs on one side. Members die in the reverse order.
struct End {
  explicit End(Device& device);
  static constexpr size_t kSize = 64;

  std::string memory = std::string(kSize, '\0');
  ProtectionDomain pd;
  CompletionQueue cq;
  MemoryRegion region;
  QueuePair qp;
};

struct Connected {
  std::unique_ptr<End> client;
  std::unique_ptr<End> server;
  ConnectionInfo at_client;
  ConnectionInfo at_server;
};
// Connects, accepts, sends a message, and checks that it came.
Connected Connect(Context& client, Context& server, Listener& listener, Path& path);

// "fake_rdma" of {fake_rdma, chosen}.
std::string Chosen(const ConnectionInfo& info);
// "fake_rdma: no answer within 1s; tcp: ...": those that were not.
std::string Losers(const ConnectionInfo& info);

}  // namespace verbena::selection
