// SPDX-License-Identifier: Apache-2.0
// Connections that are lost, refused and made again; limits; peers that break the rules.
#include <future>

#include "tests/rpc/raw_peer.h"

namespace verbena::testing {
namespace {

using ::testing::HasSubstr;

TEST(RpcConnections, NobodyListens) {
  std::string address;
  {
    Shop shop;
    address = shop.server->address();
  }
  auto channel = ChannelTo(address);
  EXPECT_THAT(Shelf::Client(*channel).Echo(Say("x")),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no connection to")));
}

// A call that may wait is answered when the server is there.
TEST(RpcConnections, WaitForReady) {
  std::string address;
  {
    Shop shop;
    address = shop.server->address();
  }
  auto channel = ChannelTo(address);
  const Shelf::Client client(*channel);
  ClientContext context;
  context.set_wait_for_ready(true);
  std::promise<absl::StatusOr<Text>> answered;
  client.Echo(Say("patience"), context,
              [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
  EXPECT_THAT(channel->WaitUntilConnected(kLongEnough), StatusIs(absl::StatusCode::kUnavailable));
  TestShelf shelf;
  auto server = Serve(shelf, {}, address);
  EXPECT_EQ(Check(answered.get_future().get()).text(), "patience");
}

TEST(RpcConnections, ForEverIsATimeToWait) {
  TestShelf shelf;
  auto server = Serve(shelf);
  auto channel = ChannelTo(server->address());
  EXPECT_THAT(channel->WaitUntilConnected(absl::InfiniteDuration()), IsOk());
}

// What may run twice is tried again on the next connection; the rest says that it may have run.
TEST(RpcConnections, TheServerGoesAndComesBack) {
  auto shelf = std::make_unique<TestShelf>();
  auto server = Serve(*shelf);
  const std::string address = server->address();
  auto channel = ChannelTo(address);
  const Shelf::Client client(*channel);
  ASSERT_THAT(client.Echo(Say("before")), IsOk());
  ClientContext context;
  std::promise<absl::StatusOr<Text>> answered;
  client.Hold(Say(""), context,
              [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
  auto held = std::make_unique<TestShelf::HeldCall>(shelf->NextHeld());
  EXPECT_THAT(server->Shutdown(absl::ZeroDuration()),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(answered.get_future().get(), StatusIs(absl::StatusCode::kUnavailable));
  held.reset();
  server.reset();
  TestShelf next;
  server = Serve(next, {}, address);
  ClientContext again;
  again.set_wait_for_ready(true);
  EXPECT_THAT(client.Echo(Say("after"), again), IsOk());
  EXPECT_EQ(channel->counters().connections, 2u);
}

// A channel on which nothing ran does not send into a connection that is gone.
TEST(RpcConnections, ARestartWhileNothingRan) {
  TestShelf shelf;
  auto server = Serve(shelf);
  const std::string address = server->address();
  auto channel = ChannelTo(address);
  const Shelf::Client client(*channel);
  ASSERT_THAT(client.Do(Order()), IsOk());
  server.reset();
  server = Serve(shelf, {}, address);
  const auto noticed = absl::Now() + absl::Milliseconds(20);
  for (auto other = ChannelTo(address); absl::Now() < noticed;) {
    ASSERT_THAT(Shelf::Client(*other).Do(Order()), IsOk());
  }
  EXPECT_THAT(client.Do(Order()), IsOk());
  EXPECT_EQ(channel->counters().connections, 2u);
}

// So does one of which nobody hears: it is idle, and leaves nobody waiting for it.
TEST(RpcConnections, ShutdownDoesNotWaitForIdleChannels) {
  Shop shop;
  ASSERT_THAT(shop.client.Echo(Say("x")), IsOk());
  const absl::Time begin = absl::Now();
  EXPECT_THAT(shop.server->Shutdown(kLongEnough), IsOk());
  EXPECT_LT(absl::Now() - begin, kLongEnough / 2);
}

// Connections that are being accepted while the server begins to shut down: they are told that it
// goes, and nobody waits for them.
TEST(RpcConnections, ShutdownWhileSomebodyConnects) {
  for (int i = 0; i < 30; ++i) {
    TestShelf shelf;
    auto server = Serve(shelf, {.threads = 2});
    auto first = ChannelTo(server->address());
    ASSERT_THAT(first->WaitUntilConnected(kLongEnough), IsOk());
    const std::string address = server->address();
    std::vector<std::future<absl::Status>> others;
    for (int k = 0; k < 3; ++k) {
      others.push_back(std::async(std::launch::async, [&] {
        auto channel = ChannelTo(address);
        return Shelf::Client(*channel).Echo(Say("x")).status();
      }));
    }
    const absl::Time begin = absl::Now();
    while (server->counters().connections < 2 && absl::Now() < begin + kLongEnough) {
    }
    EXPECT_THAT(server->Shutdown(kLongEnough), IsOk());
    EXPECT_LT(absl::Now() - begin, kLongEnough / 2);
    for (auto& other : others) (void)other.get();
  }
}

// Calls in flight end well; new ones are not begun.
TEST(RpcConnections, GracefulShutdown) {
  Shop shop;
  ClientContext context;
  std::promise<absl::StatusOr<Text>> answered;
  shop.client.Hold(Say(""), context,
                   [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
  auto held = shop.shelf.NextHeld();
  auto stopped = std::async(std::launch::async, [&] { return shop.server->Shutdown(kLongEnough); });
  absl::Status refused;
  while ((refused = shop.client.Do(Order()).status()).ok()) {
  }
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kUnavailable));
  held.Finish(Say("done"));
  EXPECT_EQ(Check(answered.get_future().get()).text(), "done");
  EXPECT_THAT(stopped.get(), IsOk());
}

// Past its limit the server refuses, and serves what it has.
TEST(RpcConnections, AFloodPastTheLimit) {
  Shop shop({.max_calls = 10});
  constexpr size_t kCalls = 50;
  std::vector<ClientContext> contexts(kCalls);
  std::vector<std::promise<absl::StatusOr<Text>>> answers(kCalls);
  for (size_t i = 0; i < kCalls; ++i) {
    shop.client.Hold(Say(std::to_string(i)), contexts[i], [&, i](absl::StatusOr<Text> answer) {
      answers[i].set_value(std::move(answer));
    });
  }
  for (size_t i = 10; i < kCalls; ++i) {
    EXPECT_THAT(answers[i].get_future().get(),
                StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("limit")));
  }
  for (int i = 0; i < 10; ++i) shop.shelf.NextHeld().Finish(Say("held"));
  for (size_t i = 0; i < 10; ++i) EXPECT_THAT(answers[i].get_future().get(), IsOk());
  EXPECT_EQ(shop.server->counters().refused, 40u);
  EXPECT_THAT(shop.client.Echo(Say("after")), IsOk());
}

TEST(RpcConnections, AChannelsOwnLimit) {
  Shop shop({}, {.max_calls = 2});
  std::vector<ClientContext> contexts(2);
  std::vector<std::promise<absl::StatusOr<Text>>> answers(2);
  for (size_t i = 0; i < 2; ++i) {
    shop.client.Hold(Say(""), contexts[i], [&, i](absl::StatusOr<Text> answer) {
      answers[i].set_value(std::move(answer));
    });
  }
  EXPECT_THAT(shop.client.Echo(Say("")), StatusIs(absl::StatusCode::kResourceExhausted));
  for (int i = 0; i < 2; ++i) shop.shelf.NextHeld().Finish(Say(""));
  for (auto& answer : answers) EXPECT_THAT(answer.get_future().get(), IsOk());
  EXPECT_THAT(shop.client.Echo(Say("")), IsOk());
}

TEST(RpcConnections, SeveralServerThreads) {
  Shop shop({.threads = 3, .handler_threads = 0});
  std::vector<std::unique_ptr<Channel>> channels;
  for (int i = 0; i < 6; ++i) channels.push_back(ChannelTo(shop.server->address()));
  for (const auto& channel : channels) {
    EXPECT_THAT(Shelf::Client(*channel).Echo(Say("x")), IsOk());
  }
}

TEST(RpcPeers, WithoutAHello) {
  Shop shop;
  RawPeer peer(shop.server->address(), "hello?");
  EXPECT_THAT(peer.connected(), StatusIs(absl::StatusCode::kAborted, HasSubstr("RPC")));
  EXPECT_THAT(shop.client.Echo(Say("after")), IsOk());
}

// Each ends that peer's connection, and the server serves on.
TEST(RpcPeers, ThatBreakTheRules) {
  Shop shop;
  ASSERT_THAT(shop.client.Echo(Say("before")), IsOk());
  const rpc::Frame request = {
      .kind = rpc::FrameKind::kRequest, .call = 1, .method = Shelf::kHold.id};
  std::vector<std::byte> twice = Encoded(request);
  const std::vector<std::byte> once = twice;
  twice.insert(twice.end(), once.begin(), once.end());
  std::vector<std::byte> cut = Encoded(request);
  cut.resize(31);
  std::vector<std::byte> too_long = Encoded(request);
  too_long[28] = std::byte{0x7f};
  rpc::Frame by_address = request;
  by_address.by_address = true;
  by_address.body = 100;
  by_address.lent = {.address = 4096, .length = 100, .key = 77};
  rpc::Frame huge = by_address;
  huge.body = 0xf0000000;
  huge.lent.length = huge.body;
  const std::vector<std::vector<std::byte>> messages = {
      {std::byte{9}},
      std::vector<std::byte>(32),
      cut,
      too_long,
      twice,
      Encoded({.kind = rpc::FrameKind::kResponse, .call = 1}),
      Encoded({.kind = rpc::FrameKind::kGoAway}),
      Encoded(by_address),
      Encoded(huge),
  };
  for (const auto& message : messages) {
    RawPeer peer(shop.server->address(), kHello);
    ASSERT_THAT(peer.connected(), IsOk());
    peer.Send(message);
    EXPECT_THAT(peer.AwaitEnd(), IsOk());
    EXPECT_THAT(shop.client.Echo(Say("still there")), IsOk());
  }
  shop.shelf.NextHeld().Finish(Say("of the peer that asked twice"));
  EXPECT_EQ(shop.channel->counters().connections, 1u);
}

}  // namespace
}  // namespace verbena::testing
