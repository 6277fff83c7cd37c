// SPDX-License-Identifier: Apache-2.0
// Calls of many messages.
#include <array>
#include <future>
#include <set>
#include <thread>

#include "tests/rpc/fixture.h"

namespace verbena::testing {
namespace {

using ::testing::HasSubstr;

class Streams : public ::testing::TestWithParam<rpc::Wait> {
 protected:
  Shop shop_{{.wait = GetParam(), .handler_threads = 0}, {.wait = GetParam()}};
};

INSTANTIATE_TEST_SUITE_P(All, Streams, ::testing::Values(rpc::Wait::kAdaptive, rpc::Wait::kBlock),
                         [](const auto& row) {
                           return row.param == rpc::Wait::kBlock ? std::string("block")
                                                                 : std::string("adaptive");
                         });

Order Numbers(uint64_t count) {
  Order order;
  order.set_answer_bytes(count);
  return order;
}

// A coroutine of which every step is done at once takes no stack for it: as many nested calls would
// not fit.
rpc::Task<size_t> ReadMany(rpc::ClientStream<Text, Text>& stream, size_t count) {
  Text text;
  size_t read = 0;
  while (read < count && co_await rpc::StreamAwaiter([&](auto done) { done(true); })) ++read;
  co_return co_await stream.CoRead(&text) ? read : 0;
}

TEST(RpcTask, NoStackForWhatIsDoneAtOnce) {
  Shop shop;
  ClientContext context;
  auto stream = shop.client.Chat(context);
  ASSERT_TRUE(stream->Write(Say("x")));
  EXPECT_EQ(rpc::WaitFor(ReadMany(*stream, 1'000'000)), 1'000'000u);
}

// More than fits the window, in order, then the status.
TEST_P(Streams, FromTheServer) {
  Order order = Numbers(20'000);
  order.set_code(static_cast<uint32_t>(absl::StatusCode::kDataLoss));
  order.set_message(" of many");
  ClientContext context;
  auto stream = shop_.client.Count(order, context);
  Text text;
  uint64_t count = 0;
  while (stream->Read(&text)) {
    ASSERT_EQ(text.text(), std::to_string(count) + " of many");
    ++count;
  }
  EXPECT_EQ(count, 20'000u);
  EXPECT_THAT(stream->Finish(), StatusIs(absl::StatusCode::kDataLoss, " of many"));
}

// Long messages, which are read out of the sender's memory, and short ones stay in order.
TEST_P(Streams, ToTheServer) {
  ClientContext context;
  auto stream = shop_.client.Join(context);
  std::string all;
  for (size_t i = 0; i < 60; ++i) {
    const size_t bytes = std::array<size_t, 4>{0, 10, 20'000, 400'000}[i * 7 % 4];
    const std::string part(bytes, static_cast<char>('a' + i % 26));
    all += part;
    ASSERT_TRUE(stream->Write(Say(part)));
  }
  stream->WritesDone();
  const auto answer = stream->Finish();
  ASSERT_THAT(answer, IsOk());
  EXPECT_TRUE(answer->text() == all);
}

TEST_P(Streams, BothWaysAtOnce) {
  constexpr int kMessages = 3000;
  ClientContext context;
  auto stream = shop_.client.Chat(context);
  std::thread writes([&] {
    for (int i = 0; i < kMessages; ++i) {
      EXPECT_TRUE(stream->Write(Say(std::string(100, 'x') + std::to_string(i))));
    }
    stream->WritesDone();
  });
  Text text;
  int count = 0;
  for (; stream->Read(&text); ++count) {
    EXPECT_EQ(text.text().substr(100), std::to_string(count));
  }
  writes.join();
  EXPECT_EQ(count, kMessages);
  EXPECT_THAT(stream->Finish(), IsOk());
}

// A writer stops at the window of a reader that does not read; other calls go on.
TEST_P(Streams, ASlowReaderSlowsItsWriterOnly) {
  Order order = Numbers(1'000'000);
  order.set_message(std::string(1000, 'x'));
  ClientContext context;
  auto stream = shop_.client.Count(order, context);
  Text text;
  ASSERT_TRUE(stream->Read(&text));
  size_t before = 0;
  do {
    before = shop_.shelf.written();
    for (int i = 0; i < 20; ++i) ASSERT_THAT(shop_.client.Echo(Say("meanwhile")), IsOk());
  } while (before != shop_.shelf.written());
  EXPECT_LE(before * 1000, 2 * rpc::kStreamWindow);
  ASSERT_TRUE(stream->Read(&text));
  EXPECT_THAT(text.text(), HasSubstr("1x"));
}

// The handler's next write says that nobody listens.
TEST_P(Streams, Cancelled) {
  ClientContext context;
  auto stream = shop_.client.Count(Numbers(1'000'000'000), context);
  Text text;
  ASSERT_TRUE(stream->Read(&text));
  context.Cancel();
  while (stream->Read(&text)) {
  }
  EXPECT_THAT(stream->Finish(), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(shop_.client.Echo(Say("after")), IsOk());
}

// So it is for one that is just let go of.
TEST_P(Streams, LetGoOf) {
  ClientContext context;
  auto stream = shop_.client.Chat(context);
  ASSERT_TRUE(stream->Write(Say("x")));
  stream.reset();
  EXPECT_THAT(shop_.client.Echo(Say("after")), IsOk());
}

using ChatStream = std::unique_ptr<rpc::ClientStream<Text, Text>>;

rpc::Task<bool> ReadOne(const Shelf::Client& client) {
  ClientContext context;
  auto stream = client.Count(Numbers(1'000'000'000), context);
  Text text;
  const bool some = co_await stream->CoRead(&text);
  co_return some;
}

// … where the channel is moved, and nobody else could end the call.
TEST_P(Streams, LetGoOfInACoroutine) {
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(rpc::WaitFor(ReadOne(shop_.client)));
  EXPECT_THAT(shop_.client.Echo(Say("after")), IsOk());
  const absl::Time deadline = absl::Now() + kLongEnough;
  while (shop_.server->counters().running > 0 && absl::Now() < deadline) {
    ASSERT_THAT(shop_.client.Echo(Say("until they are over there, too")), IsOk());
  }
  EXPECT_EQ(shop_.server->counters().running, 0u);
}

rpc::Task<bool> LetGoAtTheEnd(ChatStream& of, ChatStream& one, ChatStream& other) {
  Text text;
  const bool some = co_await of->CoRead(&text);
  one.reset();
  other.reset();
  co_return some;
}

// Whoever hears of an end lets go of those that end for the same reason, and have not heard yet:
// the one before or the one behind.
TEST_P(Streams, LetGoOfWhileAllEnd) {
  for (const bool by_deadline : {true, false}) {
    Shop shop({.handler_threads = 0}, {.wait = GetParam()});
    const auto timeout = by_deadline ? absl::Milliseconds(50) : absl::InfiniteDuration();
    std::array<ClientContext, 3> contexts;
    std::array<ChatStream, 3> streams;
    for (size_t i = 0; i < 3; ++i) {
      contexts[i].set_timeout(timeout);
      streams[i] = shop.client.Chat(contexts[i]);
    }
    for (const ChatStream& stream : streams) {
      if (by_deadline) break;  // theirs is at one time only if they begin at one
      Text text;
      ASSERT_TRUE(stream->Write(Say("x")));
      ASSERT_TRUE(stream->Read(&text));
    }
    std::promise<bool> ended;
    rpc::StartTask(
        LetGoAtTheEnd(streams[1], streams[0], streams[2]),
        [&](bool some) { ended.set_value(some); },
        [&](std::exception_ptr why) { ended.set_exception(why); });
    if (!by_deadline) (void)shop.server->Shutdown(absl::ZeroDuration());
    EXPECT_FALSE(ended.get_future().get());
  }
}

TEST_P(Streams, OutOfTime) {
  ClientContext context(absl::Milliseconds(20));
  auto stream = shop_.client.Chat(context);
  Text text;
  EXPECT_FALSE(stream->Read(&text));
  EXPECT_THAT(stream->Finish(), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_FALSE(stream->Write(Say("late")));
}

TEST_P(Streams, AHandlerThatThrows) {
  Order order = Numbers(3);
  order.set_throw_(true);
  ClientContext context;
  auto stream = shop_.client.Count(order, context);
  Text text;
  while (stream->Read(&text)) {
  }
  EXPECT_THAT(stream->Finish(), StatusIs(absl::StatusCode::kInternal, HasSubstr("thrown")));
}

TEST_P(Streams, TheServerIsGone) {
  ClientContext context;
  auto stream = shop_.client.Chat(context);
  Text text;
  ASSERT_TRUE(stream->Write(Say("x")));
  ASSERT_TRUE(stream->Read(&text));
  (void)shop_.server->Shutdown(absl::ZeroDuration());
  EXPECT_FALSE(stream->Read(&text));
  EXPECT_THAT(stream->Finish(), StatusIs(absl::StatusCode::kUnavailable));
}

class Blocking final : public Shelf::Service {
 public:
  absl::Status Chat(rpc::ServerContext&, rpc::ServerStream<Text, Text>& stream) override {
    Text next;
    while (stream.Read(&next)) {
      if (!stream.Write(next)) return absl::CancelledError("nobody listens");
    }
    return absl::OkStatus();
  }
  absl::StatusOr<Text> Join(rpc::ServerContext&, rpc::ServerStream<Text, Text>& stream) override {
    Text all, next;
    while (stream.Read(&next)) all.mutable_text()->append(next.text());
    return all;
  }
};

TEST(RpcFaces, BlockingStreams) {
  Blocking service;
  auto server = Serve(service);
  auto channel = ChannelTo(server->address());
  const Shelf::Client client(*channel);
  ClientContext chat_context;
  auto chat = client.Chat(chat_context);
  for (int i = 0; i < 10; ++i) {
    Text text;
    ASSERT_TRUE(chat->Write(Say(std::to_string(i))));
    ASSERT_TRUE(chat->Read(&text));
    EXPECT_EQ(text.text(), std::to_string(i));
  }
  chat->WritesDone();
  EXPECT_THAT(chat->Finish(), IsOk());
  ClientContext context;
  auto join = client.Join(context);
  ASSERT_TRUE(join->Write(Say("a")) && join->Write(Say("b")));
  join->WritesDone();
  EXPECT_EQ(Check(join->Finish()).text(), "ab");
}

}  // namespace
}  // namespace verbena::testing
