// SPDX-License-Identifier: Apache-2.0
// Who gets which transport, and that both ends say the same. See tests/selection/hosts.h.
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "connect/limits.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/conformance/check.h"
#include "tests/selection/hosts.h"

namespace verbena::selection {
namespace {

using conformance::Check;
using testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(20);

class Selection : public testing::Test {
 protected:
  // Connects once, from host 2 to host 1.
  Connected Run(Context& server, Context& client, const ResolveOptions& options = {}) {
    Listener listener = Check(server.Listen(Hosts::address(1, 7471)));
    Path path = Check(client.Resolve(listener.address(), options));
    EXPECT_EQ(path.device().name(), Chosen(path.info()));
    Connected both = Connect(client, server, listener, path);
    EXPECT_EQ(Chosen(both.at_client), path.device().name());
    EXPECT_EQ(Chosen(both.at_client), Chosen(both.at_server));
    return both;
  }
  static DeviceCounters Tcp(Context& context) { return context.devices()[0]->counters(); }
  static DeviceCounters Rdma(Context& context) { return context.devices()[1]->counters(); }

  Hosts hosts;
};

TEST_F(Selection, BothHaveRdma) {
  Context server = hosts.Open(1), client = hosts.Open(2);
  ASSERT_EQ(client.devices().size(), 2u);
  const Connected both = Run(server, client);
  EXPECT_EQ(Chosen(both.at_server), kRdma);
  EXPECT_EQ(both.at_client.candidates.size(), 2u);
  EXPECT_EQ(Losers(both.at_client), "tcp: RDMA reaches the peer");
  EXPECT_EQ(Losers(both.at_client), Losers(both.at_server));
  EXPECT_THAT(both.at_client.peer, HasSubstr("10.1.0.1:"));
  EXPECT_EQ(client.counters().connections.at(kRdma), 1u);
  EXPECT_EQ(server.counters().connections.at(kRdma), 1u);
  EXPECT_TRUE(client.counters().refusals.empty());
  for (const Context* each : {&client, &server}) {
    EXPECT_THAT(each->counters().not_taken,
                testing::ElementsAre(testing::Pair("tcp: RDMA reaches the peer", 1)));
  }
  // Nothing of the proof is left, and none of its events is the application's.
  EXPECT_EQ(Rdma(client).queue_pairs, 1u);
  EXPECT_EQ(Tcp(client).queue_pairs, 0u);
  EXPECT_FALSE(client.events().TryNext().has_value());
  EXPECT_FALSE(server.events().TryNext().has_value());
}

// Pieces, delays and full buffers, from many seeds.
TEST(SelectionOnHarmfulNetworks, BothHaveRdma) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    io::SimOptions options;
    options.seed = seed;
    Hosts hosts(options);
    Context server = hosts.Open(1), client = hosts.Open(2);
    Listener listener = Check(server.Listen(Hosts::address(1, 7471)));
    Path path = Check(client.Resolve(listener.address()));
    const Connected both = Connect(client, server, listener, path);
    EXPECT_EQ(Chosen(both.at_client), kRdma);
    EXPECT_EQ(Chosen(both.at_server), kRdma);
  }
}

TEST_F(Selection, CallerHasNone) {
  Context server = hosts.Open(1), client = hosts.Open(2, {.device = false});
  const Connected both = Run(server, client);
  EXPECT_EQ(Chosen(both.at_server), "tcp");
  EXPECT_EQ(Losers(both.at_client), "");
  EXPECT_EQ(Losers(both.at_server), "fake_rdma: the caller did not ask for RDMA");
  EXPECT_EQ(Tcp(client).connects, 1u);  // no other than the application's
}

TEST_F(Selection, CallerHasNoneAndSaysWhy) {
  HostOptions options{.device = false};
  options.settings.absent = {{"verbs", false, "libibverbs.so.1 is not installed"}};
  Context server = hosts.Open(1), client = hosts.Open(2, options);
  const Connected both = Run(server, client);
  EXPECT_EQ(Losers(both.at_client), "verbs: libibverbs.so.1 is not installed");
  EXPECT_EQ(client.counters().not_taken.at("verbs: libibverbs.so.1 is not installed"), 1u);
}

TEST_F(Selection, ListenerHasNone) {
  Context server = hosts.Open(1, {.device = false}), client = hosts.Open(2);
  const Connected both = Run(server, client);
  EXPECT_EQ(Chosen(both.at_server), "tcp");
  EXPECT_EQ(Losers(both.at_client), "fake_rdma: the listener has no RDMA device");
  EXPECT_EQ(Losers(both.at_client), Losers(both.at_server));
  EXPECT_EQ(client.counters().refusals.at("no-device"), 1u);
  EXPECT_EQ(server.counters().refusals.at("no-device"), 1u);
}

TEST_F(Selection, NoCommonLink) {
  Context server = hosts.Open(1, {.link = Link::kIwarp}), client = hosts.Open(2);
  const Connected both = Run(server, client);
  EXPECT_EQ(Losers(both.at_client),
            "fake_rdma: the listener's RDMA devices have another link layer");
  EXPECT_EQ(Losers(both.at_client), Losers(both.at_server));
}

// The device has a route and a peer, and packets vanish on the way. Expect: TCP in about a second,
// and both ends know why.
TEST_F(Selection, DeviceCannotReachThePeer) {
  Context server = hosts.Open(1), client = hosts.Open(2);
  Listener listener = Check(server.Listen(Hosts::address(1, 7471)));
  hosts.SilenceDevices(true);
  const absl::Duration start = hosts.Now();
  Path path = Check(client.Resolve(listener.address()));
  EXPECT_GE(hosts.Now() - start, absl::Milliseconds(900));
  EXPECT_LE(hosts.Now() - start, absl::Milliseconds(1100));
  const Connected both = Connect(client, server, listener, path);
  EXPECT_EQ(Chosen(both.at_client), "tcp");
  EXPECT_EQ(Losers(both.at_client), "fake_rdma: no answer from 10.1.0.1 within 1s");
  EXPECT_EQ(Losers(both.at_client), Losers(both.at_server));
  EXPECT_EQ(client.counters().refusals.at("unreachable"), 1u);
}

TEST_F(Selection, ResultsAreRemembered) {
  Context server = hosts.Open(1), client = hosts.Open(2);
  Listener listener = Check(server.Listen(Hosts::address(1, 7471)));
  hosts.SilenceDevices(true);
  EXPECT_EQ(Check(client.Resolve(listener.address())).device().name(), "tcp");
  const absl::Duration start = hosts.Now();
  const uint64_t connects = Tcp(client).connects;
  Path again = Check(client.Resolve(listener.address()));
  EXPECT_EQ(again.device().name(), "tcp");
  EXPECT_THAT(Losers(again.info()), HasSubstr("no answer"));
  EXPECT_EQ(hosts.Now(), start);
  EXPECT_EQ(Tcp(client).connects, connects);
  // For a while only.
  hosts.SilenceDevices(false);
  (void)listener.Next(connect::kRemember + absl::Seconds(1));
  EXPECT_EQ(Check(client.Resolve(listener.address())).device().name(), kRdma);
  const uint64_t proofs = Rdma(client).connects;
  EXPECT_EQ(Check(client.Resolve(listener.address())).device().name(), kRdma);
  EXPECT_EQ(Rdma(client).connects, proofs);
}

// The way was proven, and then no packet of the device arrives any more.
// Expect: the connect fails, and the next Resolve does not believe the old proof.
TEST_F(Selection, AProofIsForgottenWhenTheConnectFails) {
  Context server = hosts.Open(1), client = hosts.Open(2);
  Listener listener = Check(server.Listen(Hosts::address(1, 7471)));
  Path path = Check(client.Resolve(listener.address()));
  ASSERT_EQ(path.device().name(), kRdma);
  hosts.SilenceDevices(true);
  End end(path.device());
  EXPECT_FALSE(path.Connect(end.qp, {.deadline = absl::Seconds(2)}).ok());
  EXPECT_EQ(Check(client.Resolve(listener.address())).device().name(), "tcp");
}

TEST_F(Selection, OffAtTheCaller) {
  Context server = hosts.Open(1), client = hosts.Open(2);
  const Connected both = Run(server, client, {.rdma = Rdma::kOff});
  EXPECT_EQ(client.counters().not_taken.at("fake_rdma: RDMA is off at this end"), 1u);
  EXPECT_EQ(server.counters().not_taken.at("fake_rdma: the caller did not ask for RDMA"), 1u);
  EXPECT_EQ(Losers(both.at_client), "fake_rdma: RDMA is off at this end");
  EXPECT_EQ(Losers(both.at_server), "fake_rdma: the caller did not ask for RDMA");
  EXPECT_EQ(Tcp(client).connects, 1u);
}

TEST_F(Selection, OffAtTheListener) {
  Context server = hosts.Open(1), client = hosts.Open(2);
  Listener listener = Check(server.Listen(Hosts::address(1, 7471), {.rdma = Rdma::kOff}));
  Path path = Check(client.Resolve(listener.address()));
  const Connected both = Connect(client, server, listener, path);
  EXPECT_EQ(Losers(both.at_client), "fake_rdma: RDMA is off at the listener");
  EXPECT_EQ(Losers(both.at_client), Losers(both.at_server));
}

TEST_F(Selection, RequiredFailsWithTheReasons) {
  HostOptions options;
  options.settings.absent = {{"other", false, "its port is down"}};
  Context server = hosts.Open(1), client = hosts.Open(2, options);
  Listener listener = Check(server.Listen(Hosts::address(1, 7471)));
  hosts.SilenceDevices(true);
  const absl::Status status =
      client.Resolve(listener.address(), {.rdma = Rdma::kRequired}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(
      status.message(),
      HasSubstr("resolve 10.0.0.1:7471: RDMA is required, and not over fake_rdma: no answer "
                "from 10.1.0.1 within 1s; not over other: its port is down"));
}

// Expect: whole at this end, cut behind a word at the other; the remedy only where nothing serves.
TEST_F(Selection, LongReasons) {
  const std::string fact =
      "the kernel has an RDMA device (rxe0), but no /dev/infiniband/uverbs* is there to open it, "
      "and nobody has made one in this container";
  HostOptions options;
  options.settings.absent = {{"verbs", false, fact + ". Run it with --device /dev/infiniband"}};
  Context server = hosts.Open(1, {.device = false}), client = hosts.Open(2, options);
  const Connected both = Run(server, client);
  const std::string whole = "fake_rdma: the listener has no RDMA device; verbs: " + fact;
  EXPECT_EQ(Losers(both.at_client), whole);
  std::string cut = Losers(both.at_server);
  ASSERT_TRUE(cut.ends_with("...")) << cut;
  cut.resize(cut.size() - 3);
  EXPECT_TRUE(whole.starts_with(cut + " ")) << cut;
  options.settings.rdma = Rdma::kRequired;
  Context insists = hosts.Open(3, options);
  Listener listener = Check(server.Listen(Hosts::address(1, 7471)));
  EXPECT_THAT(
      insists.Resolve(Hosts::address(1, 7471)).status().message(),
      HasSubstr("not over verbs: " + fact + ". Run it with --device /dev/infiniband. `verbena"));
}

TEST_F(Selection, RequiredWithoutDevices) {
  HostOptions options{.device = false};
  options.settings.rdma = Rdma::kRequired;
  Context host = hosts.Open(1, options);
  EXPECT_THAT(host.Listen(Hosts::address(1, 7471)).status().message(),
              HasSubstr("there is no RDMA device"));
  EXPECT_THAT(host.Resolve(Hosts::address(2, 7471)).status().message(),
              HasSubstr("there is no RDMA device"));
}

TEST_F(Selection, RequiredServes) {
  HostOptions options;
  options.settings.rdma = Rdma::kRequired;
  Context server = hosts.Open(1, options), client = hosts.Open(2, options);
  EXPECT_EQ(Chosen(Run(server, client).at_client), kRdma);
}

TEST_F(Selection, RequiredAtTheListenerRejectsTcpCallers) {
  Context server = hosts.Open(1), client = hosts.Open(2, {.device = false});
  Listener listener = Check(server.Listen(Hosts::address(1, 7471), {.rdma = Rdma::kRequired}));
  Path path = Check(client.Resolve(listener.address()));
  End end(path.device());
  const absl::Status status = path.Connect(end.qp).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(status.message(), HasSubstr("this listener requires RDMA"));
  EXPECT_EQ(listener.counters().refused, 1u);
  EXPECT_FALSE(listener.TryNext().is_open());
}

// Expect: its rejection means TCP, its application sees nothing of it, and no note is sent that it
// would take for private data.
TEST_F(Selection, PeerThatKnowsNothingOfSelection) {
  Context server = hosts.Open(1, {.composed = false}), client = hosts.Open(2);
  const Connected both = Run(server, client);
  EXPECT_EQ(Chosen(both.at_client), "tcp");
  EXPECT_EQ(Losers(both.at_client), "fake_rdma: the peer's listener does not offer RDMA");
  // And that is not remembered: a listener that is too busy looks the same.
  Context other = hosts.Open(3);
  std::optional<Listener> plain = Check(other.Listen(Hosts::address(3, 7471), {.backlog = 0}));
  EXPECT_EQ(Check(client.Resolve(Hosts::address(3, 7471))).device().name(), "tcp");
  Check(plain->Close());
  plain = Check(other.Listen(Hosts::address(3, 7471)));
  EXPECT_EQ(Check(client.Resolve(Hosts::address(3, 7471))).device().name(), kRdma);
}

TEST_F(Selection, NobodyListens) {
  Context client = hosts.Open(2), server = hosts.Open(1);
  Path path = Check(client.Resolve(Hosts::address(1, 7471)));
  EXPECT_EQ(path.device().name(), "tcp");
  End end(path.device());
  EXPECT_EQ(path.Connect(end.qp).status().code(), absl::StatusCode::kUnavailable);
  // And that is not remembered.
  Listener listener = Check(server.Listen(Hosts::address(1, 7471)));
  EXPECT_EQ(Check(client.Resolve(listener.address())).device().name(), kRdma);
}

TEST_F(Selection, ManyConnectsAtOnce) {
  Context server = hosts.Open(1), client = hosts.Open(2);
  Listener listener = Check(server.Listen(Hosts::address(1, 7471)));
  Path path = Check(client.Resolve(listener.address()));
  std::vector<std::unique_ptr<End>> callers, served;
  constexpr size_t kMany = 2 * connect::kOffersPerPeer;
  for (size_t i = 0; i < kMany; ++i) {
    callers.push_back(std::make_unique<End>(path.device()));
    Check(path.StartConnect(callers.back()->qp));
  }
  for (size_t i = 0; i < kMany; ++i) {
    ConnectionRequest request = Check(listener.Next(kLong));
    EXPECT_EQ(request.device().name(), kRdma);
    served.push_back(std::make_unique<End>(request.device()));
    Check(request.Accept(served.back()->qp));
  }
  for (size_t i = 0; i < kMany; ++i) {
    EXPECT_EQ(Check(client.events().Next(kLong)).type, EventType::kEstablished);
    EXPECT_EQ(Check(server.events().Next(kLong)).type, EventType::kEstablished);
  }
}

// Expect: the path says so at the next Connect, and Resolve finds TCP.
TEST_F(Selection, ListenerGoesAwayAndComesBackWithoutRdma) {
  Context server = hosts.Open(1), client = hosts.Open(2);
  std::optional<Listener> listener = Check(server.Listen(Hosts::address(1, 7471)));
  Path path = Check(client.Resolve(Hosts::address(1, 7471)));
  EXPECT_EQ(path.device().name(), kRdma);
  Check(listener->Close());
  listener = Check(server.Listen(Hosts::address(1, 7471), {.rdma = Rdma::kOff}));
  End end(path.device());
  const absl::Status status = path.StartConnect(end.qp);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(),
              HasSubstr("RDMA is off at the listener. Resolve the address again"));
  EXPECT_EQ(Check(client.Resolve(Hosts::address(1, 7471))).device().name(), "tcp");
}

TEST_F(Selection, RejectsReachTheCaller) {
  Context server = hosts.Open(1), client = hosts.Open(2);
  Listener listener = Check(server.Listen(Hosts::address(1, 7471)));
  Path path = Check(client.Resolve(listener.address()));
  End end(path.device());
  Check(path.StartConnect(end.qp));
  Check(Check(listener.Next(kLong)).Reject("no room"));
  const Event event = Check(client.events().Next(kLong));
  EXPECT_EQ(event.type, EventType::kRejected);
  EXPECT_EQ(event.private_data, "no room");
}

TEST_F(Selection, ContextsCloseAllOrNothing) {
  Context host = hosts.Open(1);
  std::optional<End> end(*host.devices()[0]);
  EXPECT_EQ(host.Close().code(), absl::StatusCode::kFailedPrecondition);
  { End other(*host.devices()[1]); }  // the other provider still serves
  end.reset();
  Check(host.Close());
}

// Real sockets, service threads and blocking calls.
TEST(SelectionOnKernel, DataFlowsOverTheDevice) {
  Context server = OpenOnKernel(), client = OpenOnKernel();
  Listener listener = Check(server.Listen("127.0.0.1:0"));
  Path path = Check(client.Resolve(listener.address()));
  EXPECT_EQ(path.device().name(), kRdma);
  const Connected both = Connect(client, server, listener, path);
  EXPECT_EQ(Chosen(both.at_server), kRdma);
}

TEST(SelectionOnKernel, ManyThreads) {
  constexpr int kThreads = 4, kEach = 5;
  Context server = OpenOnKernel(), client = OpenOnKernel();
  Listener listener = Check(server.Listen("127.0.0.1:0"));
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < kEach; ++j) {
        Path path = Check(client.Resolve(listener.address()));
        EXPECT_EQ(path.device().name(), kRdma);
        End end(path.device());
        EXPECT_THAT(path.Connect(end.qp), conformance::IsOk());
      }
    });
  }
  std::vector<std::unique_ptr<End>> served;
  for (int i = 0; i < kThreads * kEach; ++i) {
    ConnectionRequest request = Check(listener.Next(kLong));
    served.push_back(std::make_unique<End>(request.device()));
    Check(request.Accept(served.back()->qp));
  }
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(client.counters().connections.at(kRdma), uint64_t{kThreads * kEach});
}

// Waiting takes no time of a processor, whatever a provider has to say meanwhile.
TEST(SelectionOnKernel, WaitingDoesNotSpin) {
  Context server = OpenOnKernel();
  Listener listener = Check(server.Listen("127.0.0.1:0"));
  const clock_t before = clock();
  EXPECT_FALSE(listener.Next(absl::Milliseconds(300)).ok());
  EXPECT_FALSE(server.events().Next(absl::Milliseconds(300)).ok());
  EXPECT_LT(clock() - before, CLOCKS_PER_SEC / 10);
}

}  // namespace
}  // namespace verbena::selection
