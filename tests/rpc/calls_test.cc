// SPDX-License-Identifier: Apache-2.0
// Calls that go well, and what a caller is told of those that do not.
#include <future>
#include <stdexcept>
#include <thread>

#include "tests/rpc/fixture.h"

namespace verbena::testing {
namespace {

using ::testing::HasSubstr;

struct Setting {
  const char* name;
  rpc::Wait wait;
  int handler_threads;
};

// How both ends wait, and where handlers run.
class Calls : public ::testing::TestWithParam<Setting> {
 protected:
  Shop shop_{{.wait = GetParam().wait, .handler_threads = GetParam().handler_threads},
             {.wait = GetParam().wait}};
};

INSTANTIATE_TEST_SUITE_P(All, Calls,
                         ::testing::Values(Setting{"adaptive_inline", rpc::Wait::kAdaptive, 0},
                                           Setting{"adaptive_pool", rpc::Wait::kAdaptive, 2},
                                           Setting{"block_inline", rpc::Wait::kBlock, 0},
                                           Setting{"block_pool", rpc::Wait::kBlock, 2},
                                           Setting{"spin_inline", rpc::Wait::kSpin, 0}),
                         [](const auto& row) { return row.param.name; });

// Every length around those at which a message changes how it travels, both ways.
TEST_P(Calls, AnyLengthComesBack) {
  for (const size_t bytes : {0, 1, 7, 8, 200, 4000, 8120, 8128, 8160, 8200, 70'000, 1'000'000}) {
    const std::string text(bytes, static_cast<char>('a' + bytes % 20));
    auto answer = shop_.client.Echo(Say(text));
    ASSERT_THAT(answer, IsOk()) << bytes;
    EXPECT_EQ(answer->text(), text) << bytes;
  }
}

TEST_P(Calls, ByCallback) {
  ClientContext context;
  std::promise<absl::StatusOr<Text>> answered;
  shop_.client.Echo(Say("hello"), context,
                    [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
  EXPECT_EQ(Check(answered.get_future().get()).text(), "hello");
}

rpc::Task<absl::StatusOr<Text>> EchoTwice(Shelf::Client client, const std::string& text) {
  ClientContext first, second;
  const Text request = Say(text);
  auto once = co_await client.CoEcho(request, first);
  if (!once.ok()) co_return once.status();
  const Text twice = Say(once->text() + once->text());
  co_return co_await client.CoEcho(twice, second);
}

TEST_P(Calls, ByCoroutine) {
  EXPECT_EQ(Check(rpc::WaitFor(EchoTwice(shop_.client, "ab"))).text(), "abab");
}

// Thousands at once on one connection: each gets its own answer, in whatever order.
TEST_P(Calls, ThousandsInFlight) {
  constexpr int kCalls = 3000;
  std::vector<ClientContext> contexts(kCalls);
  std::atomic<int> wrong = 0;
  std::atomic<int> left = kCalls;
  std::promise<void> all;
  for (int i = 0; i < kCalls; ++i) {
    const std::string text = "call " + std::to_string(i);
    shop_.client.Echo(Say(text), contexts[static_cast<size_t>(i)],
                      [&, text](const absl::StatusOr<Text>& answer) {
                        if (!answer.ok() || answer->text() != text) wrong.fetch_add(1);
                        if (left.fetch_sub(1) == 1) all.set_value();
                      });
  }
  all.get_future().get();
  EXPECT_EQ(wrong.load(), 0);
}

TEST_P(Calls, ManyThreadsShareAConnection) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        const std::string text = std::to_string(t) + "/" + std::to_string(i);
        const auto answer = shop_.client.Echo(Say(text));
        if (!answer.ok() || answer->text() != text) wrong.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_EQ(shop_.channel->counters().connections, 1u);
}

TEST_P(Calls, MetadataBothWays) {
  ClientContext context;
  context.AddMetadata("trace", "42");
  ASSERT_THAT(shop_.client.Echo(Say("x"), context), IsOk());
  EXPECT_EQ(context.server_metadata().at("re-trace"), "42");
}

TEST_P(Calls, AStatusWithItsDetails) {
  Order order;
  order.set_code(static_cast<uint32_t>(absl::StatusCode::kFailedPrecondition));
  order.set_message("the shelf is full");
  const auto answer = shop_.client.Do(order);
  ASSERT_THAT(answer, StatusIs(absl::StatusCode::kFailedPrecondition, "the shelf is full"));
  EXPECT_EQ(answer.status().GetPayload("example.org/detail"), absl::Cord("why"));
}

TEST_P(Calls, AHandlerThatThrows) {
  Order order;
  order.set_throw_(true);
  EXPECT_THAT(shop_.client.Do(order), StatusIs(absl::StatusCode::kInternal, HasSubstr("dropped")));
  EXPECT_THAT(shop_.client.Echo(Say("still there")), IsOk());
}

TEST_P(Calls, OutOfTime) {
  // Connecting is not what its time is for: the server would never hear of the call.
  ASSERT_THAT(shop_.channel->WaitUntilConnected(kLongEnough), IsOk());
  ClientContext context(absl::Milliseconds(20));
  EXPECT_THAT(shop_.client.Hold(Say(""), context), StatusIs(absl::StatusCode::kDeadlineExceeded));
  auto held = shop_.shelf.NextHeld();
  EXPECT_LE(held.context().time_left(), absl::Milliseconds(20));
  held.Finish(Say("too late"));
  EXPECT_THAT(shop_.client.Echo(Say("still there")), IsOk());
}

// The handler learns of it, and its late answer is nobody's.
TEST_P(Calls, Cancelled) {
  ClientContext context;
  std::promise<absl::StatusOr<Text>> answered;
  shop_.client.Hold(Say(""), context,
                    [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
  auto held = shop_.shelf.NextHeld();
  EXPECT_FALSE(held.context().cancelled());
  context.Cancel();
  EXPECT_THAT(answered.get_future().get(), StatusIs(absl::StatusCode::kCancelled));
  ASSERT_THAT(shop_.client.Echo(Say("behind it")), IsOk());
  EXPECT_TRUE(held.context().cancelled());
  held.Finish(Say("too late"));
  EXPECT_THAT(shop_.client.Echo(Say("still there")), IsOk());
}

// A call that ended leaves its object to the next one.
TEST_P(Calls, NothingOfACallIsLeftToTheNext) {
  ClientContext first;
  first.AddMetadata("who", "the first");
  std::promise<absl::Status> ended;
  shop_.client.Hold(Say("secret"), first,
                    [&](const absl::StatusOr<Text>& answer) { ended.set_value(answer.status()); });
  const rpc::ServerContext* object = nullptr;
  {
    auto held = shop_.shelf.NextHeld();
    object = &held.context();
    held.context().AddMetadata("left", "behind");
    first.Cancel();
    EXPECT_THAT(ended.get_future().get(), StatusIs(absl::StatusCode::kCancelled));
    ASSERT_THAT(shop_.client.Echo(Say("behind it")), IsOk());
    held.Finish(Say("too late"));
  }
  ClientContext second;
  std::promise<absl::StatusOr<Text>> answered;
  shop_.client.Hold(Text(), second,
                    [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
  auto held = shop_.shelf.NextHeld();
  EXPECT_EQ(&held.context(), object);
  EXPECT_EQ(held.request().text(), "");
  EXPECT_TRUE(held.context().metadata().empty());
  EXPECT_FALSE(held.context().cancelled());
  held.Finish(Say("in time"));
  const auto answer = answered.get_future().get();
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->text(), "in time");
  EXPECT_TRUE(second.server_metadata().empty());
}

TEST_P(Calls, CancelledBeforeItStarts) {
  ClientContext context;
  context.Cancel();
  EXPECT_THAT(shop_.client.Echo(Say("x"), context), StatusIs(absl::StatusCode::kCancelled));
}

TEST_P(Calls, AnAnswerThatIsTooLong) {
  auto small = ChannelTo(shop_.server->address(), {.max_message = 100'000});
  Order order;
  order.set_answer_bytes(200'000);
  const Shelf::Client client(*small);
  EXPECT_THAT(client.Do(order),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("100000")));
  EXPECT_THAT(client.Echo(Say("still there")), IsOk());
}

class Blocking final : public Shelf::Service {
 public:
  absl::StatusOr<Text> Do(rpc::ServerContext&, const Order& order) override {
    if (order.throw_()) throw std::runtime_error("thrown on demand");
    return Say(order.message());
  }
};

class Coroutines final : public Shelf::CoService {
 public:
  rpc::Task<absl::StatusOr<Text>> Do(rpc::ServerContext&, const Order& order) override {
    if (order.throw_()) throw std::runtime_error("thrown on demand");
    co_return Say(order.message());
  }
};

// The two other faces of a service; what they throw is the call's status.
TEST(RpcFaces, BlockingAndCoroutines) {
  Blocking blocking;
  Coroutines coroutines;
  for (rpc::Service* service :
       {static_cast<rpc::Service*>(&blocking), static_cast<rpc::Service*>(&coroutines)}) {
    auto server = Serve(*service);
    auto channel = ChannelTo(server->address());
    const Shelf::Client client(*channel);
    Order order;
    order.set_message("hello");
    EXPECT_EQ(Check(client.Do(order)).text(), "hello");
    EXPECT_THAT(client.Echo(Say("")), StatusIs(absl::StatusCode::kUnimplemented));
    order.set_throw_(true);
    EXPECT_THAT(client.Do(order),
                StatusIs(absl::StatusCode::kInternal, HasSubstr("thrown on demand")));
  }
}

struct OtherShelf {
  static constexpr rpc::Method kGone{"/verbena.testing.Shelf/Gone", false};
};

TEST_P(Calls, AMethodThatTheServerDoesNotHave) {
  ClientContext context;
  Text answer;
  EXPECT_THAT(shop_.channel->Call(OtherShelf::kGone, Say(""), &answer, context),
              StatusIs(absl::StatusCode::kUnimplemented));
}

// The other end has another .proto: a Text where an Order is meant.
TEST_P(Calls, ARequestOfAnotherType) {
  ClientContext context;
  Text answer;
  Parcel parcel;
  parcel.mutable_bulk()->set_key(0xffffffff);  // no UTF-8, as a Text has to be
  EXPECT_THAT(shop_.channel->Call(Shelf::kEcho, parcel, &answer, context),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("parse")));
}

// Also while calls run that nobody will answer.
TEST_P(Calls, AClosedChannelEndsWhatRuns) {
  ClientContext context;
  std::promise<absl::StatusOr<Text>> answered;
  shop_.client.Hold(Say(""), context,
                    [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
  auto held = shop_.shelf.NextHeld();
  shop_.channel.reset();
  EXPECT_THAT(answered.get_future().get(), StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace verbena::testing
