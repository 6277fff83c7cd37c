// SPDX-License-Identifier: Apache-2.0
// Whether a server wants calls, and channels that go by it.
#include <future>

#include "proto/health.verbena.h"
#include "tests/rpc/fixture.h"

namespace verbena::testing {
namespace {

using rpc::Health;
using rpc::HealthRequest;
using rpc::HealthResponse;
using ::testing::HasSubstr;

constexpr char kShelf[] = "verbena.testing.Shelf";

HealthRequest Of(const std::string& service) {
  HealthRequest request;
  request.set_service(service);
  return request;
}

TEST(RpcHealth, Check) {
  Shop shop({.health = true});
  const Health::Client health(*shop.channel);
  EXPECT_EQ(Check(health.Check(Of(""))).state(), HealthResponse::SERVING);
  EXPECT_EQ(Check(health.Check(Of(kShelf))).state(), HealthResponse::SERVING);
  EXPECT_THAT(health.Check(Of("no.Such")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no.Such")));
  shop.server->SetServing(kShelf, false);
  EXPECT_EQ(Check(health.Check(Of(kShelf))).state(), HealthResponse::NOT_SERVING);
  EXPECT_EQ(Check(health.Check(Of(""))).state(), HealthResponse::SERVING);
  shop.server->SetServing(kShelf, true);
  shop.server->SetServing("", false);
  EXPECT_EQ(Check(health.Check(Of(kShelf))).state(), HealthResponse::NOT_SERVING);
}

TEST(RpcHealth, OnlyOnRequest) {
  Shop shop;
  EXPECT_THAT(Health::Client(*shop.channel).Check(Of("")),
              StatusIs(absl::StatusCode::kUnimplemented));
}

// Each change of what is watched, and of nothing else; the last one is of the shutdown.
TEST(RpcHealth, Watch) {
  for (const int threads : {0, 2}) {
    Shop shop({.handler_threads = threads, .health = true});
    const Health::Client health(*shop.channel);
    ClientContext context;
    auto watch = health.Watch(Of(kShelf), context);
    HealthResponse now;
    ASSERT_TRUE(watch->Read(&now));
    EXPECT_EQ(now.state(), HealthResponse::SERVING);
    shop.server->SetServing("other", false);
    shop.server->SetServing(kShelf, false);
    ASSERT_TRUE(watch->Read(&now));
    EXPECT_EQ(now.state(), HealthResponse::NOT_SERVING);
    shop.server->SetServing(kShelf, true);
    ASSERT_TRUE(watch->Read(&now));
    EXPECT_EQ(now.state(), HealthResponse::SERVING);
    auto stopped =
        std::async(std::launch::async, [&] { return shop.server->Shutdown(kLongEnough); });
    ASSERT_TRUE(watch->Read(&now));
    EXPECT_EQ(now.state(), HealthResponse::NOT_SERVING);
    EXPECT_FALSE(watch->Read(&now));
    EXPECT_THAT(watch->Finish(), StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_THAT(stopped.get(), IsOk());
  }
}

TEST(RpcHealth, WatchOfAServiceThatIsYetToCome) {
  Shop shop({.health = true});
  ClientContext context;
  auto watch = Health::Client(*shop.channel).Watch(Of("late"), context);
  HealthResponse now;
  ASSERT_TRUE(watch->Read(&now));
  EXPECT_EQ(now.state(), HealthResponse::NO_SUCH_SERVICE);
  shop.server->SetServing("late", true);
  ASSERT_TRUE(watch->Read(&now));
  EXPECT_EQ(now.state(), HealthResponse::SERVING);
}

// Watches that were let go of, cancelled, or whose caller is gone leave nothing behind at the
// server.
TEST(RpcHealth, WatchesEndWithTheirCaller) {
  Shop shop({.max_calls = 8, .health = true});
  for (int i = 0; i < 30; ++i) {
    if (i % 3 == 0) {
      auto other = ChannelTo(shop.server->address(), {.health = ""});
      ASSERT_THAT(Shelf::Client(*other).Echo(Say("x")), IsOk());
      continue;
    }
    ClientContext context;
    auto watch = Health::Client(*shop.channel).Watch(Of(""), context);
    HealthResponse now;
    ASSERT_TRUE(watch->Read(&now)) << watch->Finish().status();
    if (i % 3 == 1) watch->WritesDone();
    watch.reset();
    ASSERT_THAT(shop.client.Echo(Say("x")), IsOk());
  }
  const absl::Time deadline = absl::Now() + kLongEnough;
  while (shop.server->counters().running > 0 && absl::Now() < deadline) {
    ASSERT_THAT(shop.client.Echo(Say("x")), IsOk());
  }
  EXPECT_EQ(shop.server->counters().running, 0u);
}

// No call goes to a server that says no; those that may wait do, the rest fail at once.
TEST(RpcHealth, AChannelThatAsks) {
  TestShelf shelf;
  auto server = Serve(shelf, {.health = true});
  server->SetServing(kShelf, false);
  auto channel = ChannelTo(server->address(), {.health = kShelf});
  const Shelf::Client client(*channel);
  EXPECT_THAT(client.Echo(Say("x")),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("does not serve")));
  EXPECT_EQ(shelf.echoes(), 0u);
  ClientContext context;
  context.set_wait_for_ready(true);
  std::promise<absl::StatusOr<Text>> answered;
  client.Echo(Say("patience"), context,
              [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
  server->SetServing(kShelf, true);
  EXPECT_EQ(Check(answered.get_future().get()).text(), "patience");
  EXPECT_THAT(client.Echo(Say("x")), IsOk());
  EXPECT_EQ(channel->counters().connections, 1u);

  server->SetServing(kShelf, false);
  const absl::Time deadline = absl::Now() + kLongEnough;
  while (client.Echo(Say("x")).ok() && absl::Now() < deadline) {
  }
  const size_t before = shelf.echoes();
  EXPECT_THAT(client.Echo(Say("x")), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(shelf.echoes(), before);
  server->SetServing(kShelf, true);
  EXPECT_THAT(channel->WaitUntilConnected(kLongEnough), IsOk());
  EXPECT_THAT(client.Echo(Say("x")), IsOk());
}

TEST(RpcHealth, AServerThatCannotBeAskedServes) {
  TestShelf shelf;
  auto server = Serve(shelf);
  auto channel = ChannelTo(server->address(), {.health = ""});
  EXPECT_THAT(Shelf::Client(*channel).Echo(Say("x")), IsOk());
  EXPECT_EQ(channel->counters().session.frames_received, 2u);  // it was asked
}

// Who asks how it is hears that it serves; calls are refused one by one.
TEST(RpcHealth, AServerThatIsFull) {
  Shop shop({.max_calls = 1, .health = true});
  ClientContext context;
  std::promise<absl::StatusOr<Text>> answered;
  shop.client.Hold(Say(""), context,
                   [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
  auto held = shop.shelf.NextHeld();
  auto channel = ChannelTo(shop.server->address(), {.health = ""});
  EXPECT_THAT(channel->WaitUntilConnected(kLongEnough), IsOk());
  EXPECT_THAT(Shelf::Client(*channel).Echo(Say("x")),
              StatusIs(absl::StatusCode::kResourceExhausted));
  // There is an end to that, too.
  ClientContext third;
  auto watch = Health::Client(*shop.channel).Watch(Of(""), third);
  HealthResponse now;
  EXPECT_FALSE(watch->Read(&now));
  EXPECT_THAT(watch->Finish(), StatusIs(absl::StatusCode::kResourceExhausted));
  held.Finish(Say(""));
  EXPECT_THAT(answered.get_future().get(), IsOk());
  EXPECT_EQ(channel->counters().connections, 1u);
}

// One that does not say how it is gets connections with growing pauses, as if it were not there.
TEST(RpcHealth, AServerThatDoesNotSay) {
  TestShelf shelf;
  auto server =
      Serve(shelf, {.interceptors = {[](rpc::ServerContext&) -> absl::StatusOr<rpc::AtEnd> {
                      return absl::UnauthenticatedError("nobody");
                    }},
                    .health = true});
  auto channel =
      ChannelTo(server->address() + "," + server->address(),
                {.first_pause = absl::Milliseconds(1), .longest_pause = kLongEnough, .health = ""});
  // Pauses of 1, 1.6, 2.6 … ms: there are ten before one of 70 ms, twelve before one of 180.
  const absl::Time begin = absl::Now();
  while (absl::Now() < begin + absl::Milliseconds(400) ||
         (channel->counters().connections < 4 && absl::Now() < begin + kLongEnough)) {
    EXPECT_THAT(Shelf::Client(*channel).Echo(Say("x")),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("nobody")));
  }
  EXPECT_GE(channel->counters().connections, 4u);
  EXPECT_LE(channel->counters().connections, 2 * 16u);
}

// What a channel says with each call it says with its question, too.
TEST(RpcHealth, AChannelThatAsksWithItsToken) {
  TestShelf shelf;
  auto server =
      Serve(shelf, {.interceptors = {[](rpc::ServerContext& call) -> absl::StatusOr<rpc::AtEnd> {
                      if (call.metadata().contains("token")) return nullptr;
                      return absl::UnauthenticatedError("no token");
                    }},
                    .health = true});
  const rpc::ClientInterceptor token = [](ClientContext& call) -> absl::StatusOr<rpc::AtEnd> {
    call.AddMetadata("token", "x");
    return nullptr;
  };
  auto channel = ChannelTo(server->address(), {.interceptors = {token}, .health = ""});
  EXPECT_THAT(Shelf::Client(*channel).Echo(Say("x")), IsOk());
  auto stranger = ChannelTo(server->address(), {.health = ""});
  EXPECT_THAT(Shelf::Client(*stranger).Echo(Say("x")),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no token")));
}

}  // namespace
}  // namespace verbena::testing
