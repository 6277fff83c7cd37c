// SPDX-License-Identifier: Apache-2.0
// Two ends with a device each, and what either may insist on: they meet on it. See
// tests/selection/hosts.h; there is no port that the device networks share with TCP, so a listener
// that an iWARP device has to itself is called by the device's address.
#include <memory>
#include <string>
#include <tuple>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/conformance/check.h"
#include "tests/selection/hosts.h"

namespace verbena::selection {
namespace {

using conformance::Check;
using testing::HasSubstr;

HostOptions In(Rdma mode, Link link = Link::kRoce) {
  HostOptions options{.link = link};
  options.settings.rdma = mode;
  return options;
}

using Modes = std::tuple<Rdma, Rdma, Link>;

class MixedModes : public testing::TestWithParam<Modes> {};

TEST_P(MixedModes, MeetOnTheDevice) {
  const auto [at_server, at_client, link] = GetParam();
  Hosts hosts;
  Context server = hosts.Open(1, In(at_server, link)), client = hosts.Open(2, In(at_client, link));
  Listener listener = Check(server.Listen(":7471"));
  const bool own_port = at_server == Rdma::kRequired && link == Link::kIwarp;
  for (int i = 0; i < 2; ++i) {  // the second time from memory
    Path path = Check(client.Resolve(own_port ? "10.1.0.1:7471" : Hosts::address(1, 7471)));
    const Connected both = Connect(client, server, listener, path);
    EXPECT_EQ(Chosen(both.at_client), kRdma);
    EXPECT_EQ(Chosen(both.at_server), kRdma);
    EXPECT_EQ(Losers(both.at_client), at_client == Rdma::kRequired ? "tcp: RDMA is required"
                                                                   : "tcp: RDMA reaches the peer");
  }
  EXPECT_EQ(client.counters().connections.at(kRdma), 2u);
  EXPECT_EQ(server.counters().connections.at(kRdma), 2u);
  EXPECT_TRUE(client.counters().refusals.empty());
}

INSTANTIATE_TEST_SUITE_P(All, MixedModes,
                         testing::Combine(testing::Values(Rdma::kAuto, Rdma::kRequired),
                                          testing::Values(Rdma::kAuto, Rdma::kRequired),
                                          testing::Values(Link::kRoce, Link::kIwarp)),
                         [](const auto& info) {
                           return std::string(RdmaName(std::get<0>(info.param))) + "_from_" +
                                  RdmaName(std::get<1>(info.param)) +
                                  (std::get<2>(info.param) == Link::kRoce ? "_roce" : "_iwarp");
                         });

class Meeting : public testing::Test {
 protected:
  // What a caller gets from the listener, which stays.
  std::string Served(Context& client, const std::string& address) {
    Path path = Check(client.Resolve(address));
    const Connected both = Connect(client, *server, *listener, path);
    EXPECT_EQ(Chosen(both.at_client), Chosen(both.at_server));
    return Chosen(both.at_server);
  }
  void Listen(const HostOptions& options) {
    server = std::make_unique<Context>(hosts.Open(1, options));
    listener = std::make_unique<Listener>(Check(server->Listen(":7471")));
  }

  Hosts hosts;
  std::unique_ptr<Context> server;
  std::unique_ptr<Listener> listener;
};

// One listener, one caller after the other.
TEST_F(Meeting, OneListenerForAll) {
  Listen(In(Rdma::kAuto));
  Context automatic = hosts.Open(2), without = hosts.Open(3, {.device = false}),
          insists = hosts.Open(4, In(Rdma::kRequired));
  EXPECT_EQ(Served(automatic, Hosts::address(1, 7471)), kRdma);
  EXPECT_EQ(Served(without, Hosts::address(1, 7471)), "tcp");
  EXPECT_EQ(Served(insists, Hosts::address(1, 7471)), kRdma);
  EXPECT_EQ(Served(without, Hosts::address(1, 7471)), "tcp");
  EXPECT_EQ(server->counters().connections.at(kRdma), 2u);
  EXPECT_EQ(server->counters().connections.at("tcp"), 2u);
}

// A stranger knows the device's network and nothing of selection: rping.
TEST_F(Meeting, RequiredListensForStrangersToo) {
  Listen(In(Rdma::kRequired));
  Context stranger = hosts.OpenDevice(2), automatic = hosts.Open(3),
          without = hosts.Open(4, {.device = false});
  EXPECT_EQ(Served(stranger, "10.1.0.1:7471"), kRdma);
  EXPECT_EQ(Served(automatic, Hosts::address(1, 7471)), kRdma);
  Path path = Check(without.Resolve(Hosts::address(1, 7471)));
  End end(path.device());
  EXPECT_THAT(path.Connect(end.qp).status().message(), HasSubstr("this listener requires RDMA"));
  EXPECT_EQ(server->counters().connections.count("tcp"), 0u);
}

class StrangersListener : public testing::TestWithParam<Link> {};

// Nobody answers a question: RDMA, if required; else iWARP alone, which is called as TCP is.
TEST_P(StrangersListener, IsCalledStraight) {
  Hosts hosts;
  Context stranger = hosts.OpenDevice(1), insists = hosts.Open(2, In(Rdma::kRequired, GetParam())),
          automatic = hosts.Open(3, In(Rdma::kAuto, GetParam()));
  Listener listener = Check(stranger.Listen("10.1.0.1:7471"));
  Path path = Check(insists.Resolve("10.1.0.1:7471"));
  EXPECT_EQ(path.device().name(), kRdma);
  const Connected both = Connect(insists, stranger, listener, path);
  EXPECT_THAT(both.at_client.candidates.front().reason, HasSubstr("called straight"));
  EXPECT_EQ(Check(automatic.Resolve("10.1.0.1:7471")).device().name(),
            GetParam() == Link::kIwarp ? kRdma : "tcp");
}

// The device's port is not TCP's.
TEST_P(StrangersListener, IsCalledStraightWhereTcpIsRefused) {
  Hosts hosts;
  Context insists = hosts.Open(2, In(Rdma::kRequired, GetParam())),
          automatic = hosts.Open(3, In(Rdma::kAuto, GetParam()));
  Path path = Check(insists.Resolve(Hosts::address(1, 7471)));
  EXPECT_EQ(path.device().name(), kRdma);
  EXPECT_EQ(path.info().candidates.front().reason,
            "called straight: nobody answers there over TCP");
  EXPECT_EQ(Check(automatic.Resolve(Hosts::address(1, 7471))).device().name(), "tcp");
}

INSTANTIATE_TEST_SUITE_P(All, StrangersListener, testing::Values(Link::kRoce, Link::kIwarp),
                         [](const auto& info) {
                           return info.param == Link::kRoce ? "roce" : "iwarp";
                         });

// Who requires RDMA gets it on iWARP from a peer without, since the wire is the same.
TEST_F(Meeting, RequiredMeetsAPeerWithout) {
  Listen({.device = false});
  Context iwarp = hosts.Open(2, In(Rdma::kRequired, Link::kIwarp)),
          roce = hosts.Open(3, In(Rdma::kRequired));
  Path path = Check(iwarp.Resolve(Hosts::address(1, 7471)));
  EXPECT_EQ(path.device().name(), kRdma);
  EXPECT_THAT(roce.Resolve(Hosts::address(1, 7471)).status().message(),
              HasSubstr("RDMA is required, and not over fake_rdma: the listener has no RDMA"));
}

TEST_F(Meeting, WhoRequiresHasNoTcp) {
  Listen(In(Rdma::kOff));
  Context insists = hosts.Open(2, In(Rdma::kRequired));
  ASSERT_EQ(insists.devices().size(), 1u);
  EXPECT_EQ(insists.devices()[0]->name(), kRdma);
  for (const Rdma less : {Rdma::kOff, Rdma::kAuto}) {
    EXPECT_THAT(insists.Resolve(Hosts::address(1, 7471), {.rdma = less}).status().message(),
                HasSubstr("RDMA is required, and not over fake_rdma: RDMA is off at the listener"));
  }
}

}  // namespace
}  // namespace verbena::selection
