// SPDX-License-Identifier: Apache-2.0
#include "tests/selection/hosts.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fallback/io/kernel_world.h"
#include "fallback/provider.h"
#include "tests/conformance/check.h"

namespace verbena::selection {
namespace {

using conformance::Check;

constexpr absl::Duration kLong = absl::Seconds(20);
constexpr const char* kForeign = "10.1.0.3";  // nobody's, and near to that of host 2

DeviceInfo Info(const char* name, const std::string& address, Link link) {
  return {.name = name,
          .provider = "verbs",
          .transport = "RoCE v2",
          .link = link,
          .addresses = {address},
          .usable = true};
}

}  // namespace

std::string Hosts::Ip(int network, int host) { return absl::StrCat("10.", network, ".0.", host); }

std::string Hosts::address(int host, int port) { return absl::StrCat(Ip(0, host), ":", port); }

std::unique_ptr<provider::Context> Hosts::Device(int host, int rail, const HostOptions& options) {
  const std::string ip = Ip(rail, host);
  const std::string claimed = options.deaf && rail == 1 ? kForeign : ip;
  return Check(fallback::OpenOn(network_.NewWorld(ip), ip,
                                Info(rail == 1 ? kRdma : kRdma2, claimed, options.link)));
}

Context Hosts::Open(int host, const HostOptions& options) {
  auto tcp = Check(fallback::OpenOn(network_.NewWorld(Ip(0, host)), ""));
  if (!options.composed) return Check(Context::OpenOn(std::move(tcp)));
  std::vector<std::unique_ptr<provider::Context>> rdma;
  for (int rail = 1; options.device && rail <= options.rails; ++rail) {
    rdma.push_back(Device(host, rail, options));
  }
  return Check(
      Context::OpenOn(connect::Compose(std::move(tcp), std::move(rdma), options.settings)));
}

Context Hosts::OpenDevice(int host) { return Check(Context::OpenOn(Device(host, 1, {}))); }

Context OpenOnKernel(const connect::Settings& settings) {
  std::vector<std::unique_ptr<provider::Context>> rdma;
  rdma.push_back(Check(fallback::OpenOn(Check(io::NewKernelWorld()), "127.0.0.2",
                                        Info(kRdma, "127.0.0.2", Link::kRoce))));
  return Check(Context::OpenOn(
      connect::Compose(Check(fallback::Open("127.0.0.1")), std::move(rdma), settings)));
}

End::End(Device& device) {
  pd = Check(device.AllocateProtectionDomain());
  cq = Check(device.CreateCompletionQueue({.entries = 16}));
  region = Check(pd.Register({reinterpret_cast<std::byte*>(memory.data()), memory.size()},
                             Access::kLocalWrite));
  qp = Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq}));
}

Connected Connect(Context& client, Context& server, Listener& listener, Path& path) {
  Connected both;
  both.client = std::make_unique<End>(path.device());
  Check(path.StartConnect(both.client->qp, {.private_data = std::string(56, 'p')}));
  ConnectionRequest request = Check(listener.Next(kLong));
  EXPECT_EQ(request.private_data(), std::string(56, 'p'));
  both.server = std::make_unique<End>(request.device());
  Check(both.server->qp.PostReceive({.local = both.server->region.slice(0, End::kSize)}));
  Check(request.Accept(both.server->qp));
  EXPECT_EQ(Check(client.events().Next(kLong)).type, EventType::kEstablished);
  EXPECT_EQ(Check(server.events().Next(kLong)).type, EventType::kEstablished);

  both.client->memory.assign(End::kSize, 'x');
  Check(both.client->qp.PostSend(
      {.opcode = Opcode::kSend, .local = both.client->region.slice(0, End::kSize)}));
  EXPECT_TRUE(Check(both.client->cq.Wait(1, kLong)).front().ok());
  EXPECT_TRUE(Check(both.server->cq.Wait(1, kLong)).front().ok());
  EXPECT_EQ(both.server->memory, std::string(End::kSize, 'x'));
  both.at_client = both.client->qp.connection();
  both.at_server = both.server->qp.connection();
  return both;
}

std::string Chosen(const ConnectionInfo& info) {
  for (const Candidate& each : info.candidates) {
    if (each.chosen) return each.device;
  }
  return "";
}

std::string Losers(const ConnectionInfo& info) {
  std::string text;
  for (const Candidate& each : info.candidates) {
    if (each.chosen) continue;
    absl::StrAppend(&text, text.empty() ? "" : "; ", each.device, ": ", each.reason);
  }
  return text;
}

}  // namespace verbena::selection
