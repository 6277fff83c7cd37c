// SPDX-License-Identifier: Apache-2.0
// Two devices at each end, each pair on a network of its own. See tests/selection/hosts.h.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/conformance/check.h"
#include "tests/selection/hosts.h"

namespace verbena::selection {
namespace {

using conformance::Check;
using testing::AllOf;
using testing::HasSubstr;

class Rails : public testing::Test {
 protected:
  Connected Run(Context& server, Context& client) {
    Listener listener = Check(server.Listen(Hosts::address(1, 7471)));
    const absl::Duration start = hosts.Now();
    Path path = Check(client.Resolve(listener.address()));
    took = hosts.Now() - start;
    return Connect(client, server, listener, path);
  }

  Hosts hosts;
  absl::Duration took;
};

TEST_F(Rails, TheOtherOneIsACandidate) {
  HostOptions two{.rails = 2};
  two.settings.absent = {{"third", false, "its port is down"}};
  Context server = hosts.Open(1, two), client = hosts.Open(2, two);
  const Connected both = Run(server, client);
  EXPECT_EQ(Chosen(both.at_client), kRdma);
  EXPECT_EQ(Chosen(both.at_server), kRdma);
  EXPECT_EQ(
      Losers(both.at_client),
      "fake_rdma2: another device serves; third: its port is down; tcp: RDMA reaches the peer");
  EXPECT_EQ(Losers(both.at_server), Losers(both.at_client));
}

// Expect: the second rail, in the time of one, again when it is remembered; and why not the first.
TEST_F(Rails, TheSecondServesIfTheFirstIsSilent) {
  Context server = hosts.Open(1, {.rails = 2}), client = hosts.Open(2, {.rails = 2});
  Listener listener = Check(server.Listen(Hosts::address(1, 7471)));
  hosts.SilenceDevices(true);
  for (int i = 0; i < 2; ++i) {
    const absl::Duration start = hosts.Now();
    Path path = Check(client.Resolve(listener.address()));
    EXPECT_LE(hosts.Now() - start, absl::Milliseconds(i == 0 ? 600 : 0));
    const Connected both = Connect(client, server, listener, path);
    EXPECT_EQ(Chosen(both.at_client), kRdma2);
    EXPECT_EQ(Chosen(both.at_server), kRdma2);
    EXPECT_EQ(Losers(both.at_client),
              "fake_rdma: no answer from 10.1.0.1 within 500ms; tcp: RDMA reaches the peer");
  }
}

// The listener's nearest device fails when it is asked to listen. Expect: the second rail, at once
// and again when it is remembered; and both ends know why not the first.
TEST_F(Rails, TheSecondServesIfTheFirstCannotListen) {
  Context server = hosts.Open(1, {.rails = 2, .deaf = true});
  Context client = hosts.Open(2, {.rails = 2});
  Listener listener = Check(server.Listen(Hosts::address(1, 7471)));
  for (int i = 0; i < 2; ++i) {
    Path path = Check(client.Resolve(listener.address()));
    const Connected both = Connect(client, server, listener, path);
    EXPECT_EQ(Chosen(both.at_client), kRdma2);
    EXPECT_EQ(Chosen(both.at_server), kRdma2);
    EXPECT_THAT(Losers(both.at_client),
                HasSubstr("fake_rdma: the listener's fake_rdma failed: listen 10.1.0.3:0: "));
    EXPECT_THAT(Losers(both.at_server), HasSubstr("fake_rdma: listen 10.1.0.3:0: "));
  }
  EXPECT_EQ(server.counters().refusals.at("failed"), 1u);
}

// Its only device fails. Expect: TCP, and both ends know why.
TEST_F(Rails, NoneCanListen) {
  Context server = hosts.Open(1, {.deaf = true}), client = hosts.Open(2);
  const Connected both = Run(server, client);
  EXPECT_EQ(Chosen(both.at_client), "tcp");
  EXPECT_THAT(Losers(both.at_client), HasSubstr("fake_rdma: the listener's fake_rdma failed: "));
  EXPECT_EQ(Losers(both.at_server), Losers(both.at_client));
}

TEST_F(Rails, TheFirstCannotListenAndTheSecondIsSilent) {
  Context server = hosts.Open(1, {.rails = 2, .deaf = true});
  Context client = hosts.Open(2, {.rails = 2});
  hosts.SilenceDevices(true, 2);
  const Connected both = Run(server, client);
  EXPECT_LE(took, absl::Milliseconds(600));
  EXPECT_EQ(Chosen(both.at_client), "tcp");
  for (const ConnectionInfo& end : {both.at_client, both.at_server}) {
    EXPECT_THAT(Losers(end), AllOf(HasSubstr("fake_rdma: the listener's fake_rdma failed: "),
                                   HasSubstr("fake_rdma2: no answer from 10.2.0.1 within 500ms")));
  }
}

TEST_F(Rails, BothAreSilent) {
  Context server = hosts.Open(1, {.rails = 2}), client = hosts.Open(2, {.rails = 2});
  hosts.SilenceDevices(true, 1);
  hosts.SilenceDevices(true, 2);
  const Connected both = Run(server, client);
  EXPECT_LE(took, absl::Milliseconds(1100));
  EXPECT_EQ(Chosen(both.at_client), "tcp");
  EXPECT_EQ(Losers(both.at_client),
            "fake_rdma: no answer from 10.1.0.1 within 500ms; "
            "fake_rdma2: no answer from 10.2.0.1 within 500ms");
  EXPECT_EQ(Losers(both.at_server), Losers(both.at_client));
  EXPECT_EQ(client.counters().refusals.at("unreachable"), 1u);
}

// Expect: the pair that shares a network, whichever is first at either end.
TEST_F(Rails, OneEndHasOne) {
  Context server = hosts.Open(1), client = hosts.Open(2, {.rails = 2});
  EXPECT_EQ(Chosen(Run(server, client).at_client), kRdma);
  Context back = hosts.Open(3);
  Listener listener = Check(client.Listen(Hosts::address(2, 7471)));
  Path path = Check(back.Resolve(listener.address()));
  EXPECT_EQ(Chosen(Connect(back, client, listener, path).at_server), kRdma);
}

TEST_F(Rails, AllHaveAReasonIfThePeerHasNone) {
  Context server = hosts.Open(1, {.device = false}), client = hosts.Open(2, {.rails = 2});
  const Connected both = Run(server, client);
  EXPECT_EQ(Losers(both.at_client),
            "fake_rdma: the listener has no RDMA device; fake_rdma2: the listener has no RDMA "
            "device");
  EXPECT_EQ(Losers(both.at_server), Losers(both.at_client));
}

}  // namespace
}  // namespace verbena::selection
