// SPDX-License-Identifier: Apache-2.0
// Too much of everything: frames, memory, bytes of a message, time; and peers that do not keep to
// what they were told.
#include <future>

#include "tests/rpc/raw_peer.h"

namespace verbena::testing {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

Order AnswerOf(uint64_t bytes) {
  Order order;
  order.set_answer_bytes(bytes);
  return order;
}

// Far more than the ring and the peer's receives take, both ways: what waits behind them leaves
// when credit comes, to the last frame.
TEST(RpcFaults, FramesThatWaitBehindTheRing) {
  for (const int threads : {0, 2}) {
    Shop shop({.handler_threads = threads});
    // Lengths of which the ring is full just when the credits are used up, and others.
    for (const size_t bytes : {4000, 4050, 2700, 8000}) {
      constexpr size_t kCalls = 600;
      std::vector<ClientContext> contexts(kCalls);
      std::vector<std::promise<absl::StatusOr<Text>>> answers(kCalls);
      const std::string text(bytes, 'x');
      for (size_t i = 0; i < kCalls; ++i) {
        shop.client.Echo(Say(text), contexts[i], [&, i](absl::StatusOr<Text> answer) {
          answers[i].set_value(std::move(answer));
        });
      }
      for (auto& answer : answers) {
        auto came = answer.get_future();
        ASSERT_EQ(came.wait_for(absl::ToChronoSeconds(kLongEnough)), std::future_status::ready);
        ASSERT_EQ(Check(came.get()).text(), text);
      }
    }
    EXPECT_EQ(shop.channel->counters().connections, 1u);
  }
}

// A peer may send as much as it was told of. One more, and it is gone; nobody else is.
TEST(RpcFaults, APeerThatSendsWithoutCredit) {
  Shop shop;
  RawPeer peer(shop.server->address(), kHello, 8);
  ASSERT_THAT(peer.connected(), IsOk());
  // Its answers wait: it never tells of receives, and has room for seven at most.
  const auto call = [](uint32_t number) {
    return Encoded({.kind = rpc::FrameKind::kRequest, .call = number, .method = Shelf::kEcho.id},
                   "");
  };
  for (uint32_t i = 0; i < rpc::kReceives; ++i) ASSERT_TRUE(peer.SendAndWait(call(i))) << i;
  ASSERT_THAT(shop.client.Echo(Say("still there")), IsOk());
  // So many more were posted, of which it may have been told once or twice.
  uint32_t more = 0;
  while (more < 8 * rpc::kReceives && peer.SendAndWait(call(1000 + more))) ++more;
  EXPECT_LT(more, 8 * rpc::kReceives);
  EXPECT_THAT(peer.AwaitEnd(), IsOk());
  EXPECT_THAT(shop.client.Echo(Say("still there")), IsOk());
  EXPECT_EQ(shop.channel->counters().connections, 1u);
}

// It asks for long answers, and reads none of them. They fill what the server may hold, and no
// more; short ones go on, and long ones when the peer is gone.
TEST(RpcFaults, APeerThatNeverReads) {
  Shop shop({.handler_threads = 0, .max_message = 1 * kMiB, .max_memory = 5 * kMiB / 2});
  {
    RawPeer peer(shop.server->address(), kHello, 8);
    ASSERT_THAT(peer.connected(), IsOk());
    std::string order;
    AnswerOf(kMiB - 1000).SerializeToString(&order);
    for (uint32_t i = 0; i < 4; ++i) {
      ASSERT_TRUE(peer.SendAndWait(
          Encoded({.kind = rpc::FrameKind::kRequest, .call = i, .method = Shelf::kDo.id}, order)));
    }
    const absl::Time deadline = absl::Now() + kLongEnough;
    while (shop.server->counters().calls < 4 && absl::Now() < deadline) {
    }
    ASSERT_THAT(shop.client.Echo(Say("behind them")), IsOk());
    EXPECT_GE(shop.server->counters().memory, 2 * (kMiB - 1000));
    EXPECT_LE(shop.server->counters().memory, 5 * kMiB / 2);
    EXPECT_THAT(shop.client.Do(AnswerOf(kMiB - 1000)),
                StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("max_memory")));
    EXPECT_THAT(shop.client.Do(AnswerOf(1000)), IsOk());
  }
  const absl::Time deadline = absl::Now() + kLongEnough;
  while (shop.server->counters().memory > 0 && absl::Now() < deadline) {
    ASSERT_THAT(shop.client.Echo(Say("still there")), IsOk());
  }
  EXPECT_THAT(shop.client.Do(AnswerOf(kMiB - 1000)), IsOk());
}

// Short answers wait for its receives; they count, and there is an end to them: its connection's.
TEST(RpcFaults, APeerThatNeverReadsShortOnes) {
  constexpr uint32_t kCallsAMessage = 120;
  constexpr uint32_t kMessages = 40;
  constexpr uint64_t kMemory = 5 * kMiB;
  Shop shop({.handler_threads = 0, .max_message = kMiB, .max_memory = kMemory});
  RawPeer peer(shop.server->address(), kHello, 8);
  ASSERT_THAT(peer.connected(), IsOk());
  std::string order;
  AnswerOf(4000).SerializeToString(&order);
  uint64_t most = 0;
  uint32_t sent = 0;
  for (bool stands = true; stands && sent < kMessages; ++sent) {
    std::vector<std::byte> message;
    for (uint32_t i = 0; i < kCallsAMessage; ++i) {
      const auto one = Encoded({.kind = rpc::FrameKind::kRequest,
                                .call = sent * kCallsAMessage + i,
                                .method = Shelf::kDo.id},
                               order);
      message.insert(message.end(), one.begin(), one.end());
    }
    stands = peer.SendAndWait(message);
    ASSERT_THAT(shop.client.Echo(Say("behind them")), IsOk());
    most = std::max(most, shop.server->counters().memory);
  }
  // All of them would be over three times of what the server may hold.
  static_assert(kCallsAMessage * kMessages * 4000 > 3 * kMemory);
  EXPECT_LT(sent, kMessages);
  EXPECT_THAT(peer.AwaitEnd(), IsOk());
  EXPECT_GT(most, kMiB);
  EXPECT_LE(most, kMemory);
  const absl::Time deadline = absl::Now() + kLongEnough;
  while (shop.server->counters().memory > 0 && absl::Now() < deadline) {
    ASSERT_THAT(shop.client.Echo(Say("still there")), IsOk());
  }
  EXPECT_EQ(shop.server->counters().memory, 0u);
  EXPECT_EQ(shop.channel->counters().connections, 1u);
}

// It says that it has read what it was never sent: a handler that writes would find no end.
TEST(RpcFaults, APeerThatOpensItsWindowTooFar) {
  for (const uint32_t bytes : {1u, ~0u}) {
    Shop shop({.handler_threads = 0});
    RawPeer peer(shop.server->address(), kHello, 8);
    ASSERT_THAT(peer.connected(), IsOk());
    // With nothing to read the handler has written nothing yet.
    std::vector<std::byte> message =
        Encoded({.kind = rpc::FrameKind::kRequest, .call = 1, .method = Shelf::kChat.id});
    const auto window = Encoded({.kind = rpc::FrameKind::kWindow, .call = 1, .code = bytes});
    message.insert(message.end(), window.begin(), window.end());
    peer.Send(message);
    EXPECT_THAT(peer.AwaitEnd(), IsOk());
    EXPECT_THAT(shop.client.Echo(Say("still there")), IsOk());
    EXPECT_EQ(shop.channel->counters().connections, 1u);
  }
}

// What is known of a call besides its message counts like it.
TEST(RpcFaults, MetadataCounts) {
  Shop shop({.max_message = kMiB, .max_memory = kMiB});
  const auto with_metadata = [](ClientContext& context) -> ClientContext& {
    context.AddMetadata("key", std::string(kMiB - 1000, 'x'));
    return context;
  };
  ClientContext first, second;
  std::promise<absl::StatusOr<Text>> answered;
  shop.client.Hold(Say(""), with_metadata(first),
                   [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
  auto held = shop.shelf.NextHeld();
  EXPECT_GE(shop.server->counters().memory, kMiB - 1000);
  EXPECT_THAT(shop.client.Do(Order(), with_metadata(second)),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("max_memory")));
  held.Finish(Say("done"));
  EXPECT_THAT(answered.get_future().get(), IsOk());
}

// Long requests of several connections, which their handlers keep: one limit for all of them.
TEST(RpcFaults, TheServersMemoryIsUsedUp) {
  TestShelf shelf;
  auto server = Serve(shelf, {.handler_threads = 0, .max_message = kMiB, .max_memory = 3 * kMiB});
  const Text parcel = Say(std::string(kMiB - 1000, 'x'));
  std::vector<std::unique_ptr<Channel>> channels;
  std::vector<ClientContext> contexts(3);
  std::vector<std::promise<absl::StatusOr<Text>>> answers(3);
  std::vector<TestShelf::HeldCall> held;
  for (size_t i = 0; i < 3; ++i) {
    channels.push_back(ChannelTo(server->address()));
    Shelf::Client(*channels[i]).Hold(parcel, contexts[i], [&, i](absl::StatusOr<Text> answer) {
      answers[i].set_value(std::move(answer));
    });
    held.push_back(shelf.NextHeld());
  }
  auto other = ChannelTo(server->address());
  const Shelf::Client client(*other);
  EXPECT_THAT(client.Hold(parcel),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("max_memory")));
  // Nor a message of a stream.
  ClientContext stream_context;
  auto stream = client.Join(stream_context);
  (void)stream->Write(parcel);
  EXPECT_THAT(stream->Finish(),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("max_memory")));
  EXPECT_THAT(client.Echo(Say("a short one")), IsOk());
  EXPECT_EQ(server->counters().refused, 2u);
  for (auto& call : held) call.Finish(Say("done"));
  for (auto& answer : answers) EXPECT_THAT(answer.get_future().get(), IsOk());
  held.clear();
  EXPECT_THAT(client.Echo(parcel), IsOk());
  EXPECT_EQ(other->counters().connections, 1u);
}

// What came of a stream and nobody reads counts, until the call has ended: Chat stops to read when
// its own messages are not read.
TEST(RpcFaults, UnreadMessagesCount) {
  Shop shop({.handler_threads = 0, .max_message = kMiB, .max_memory = 8 * kMiB});
  const Text parcel = Say(std::string(kMiB - 1000, 'x'));
  ClientContext context;
  auto stream = shop.client.Chat(context);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(stream->Write(parcel));
  const absl::Time deadline = absl::Now() + kLongEnough;
  while (shop.server->counters().memory < kMiB - 1000 && absl::Now() < deadline) {
    ASSERT_THAT(shop.client.Echo(Say("meanwhile")), IsOk());
  }
  EXPECT_GE(shop.server->counters().memory, kMiB - 1000);
  context.Cancel();
  EXPECT_THAT(stream->Finish(), StatusIs(absl::StatusCode::kCancelled));
  while (shop.server->counters().memory > 0 && absl::Now() < deadline) {
    ASSERT_THAT(shop.client.Echo(Say("still there")), IsOk());
  }
  EXPECT_EQ(shop.server->counters().memory, 0u);
}

// A message that says it is longer than Protobuf's messages may be; nobody has to make one.
class Huge final : public google::protobuf::MessageLite {
 public:
  Huge() = default;
  Huge(const Huge&) : MessageLite() {}
  Huge& operator=(const Huge&) { return *this; }
  std::string GetTypeName() const override { return "Huge"; }
  MessageLite* New(google::protobuf::Arena*) const override { return new Huge; }
  void Clear() override {}
  bool IsInitialized() const override { return true; }
  void CheckTypeAndMergeFrom(const MessageLite&) override {}
  size_t ByteSizeLong() const override { return (size_t{1} << 32) + 10; }
  int GetCachedSize() const override { return 10; }
  uint8_t* _InternalSerialize(uint8_t* at,
                              google::protobuf::io::EpsCopyOutputStream*) const override {
    ADD_FAILURE() << "it was to be refused";
    return at;
  }
};

constexpr rpc::Method kHuge{"/verbena.testing.Other/Huge", false};

class HugeService final : public rpc::Service {
 public:
  std::vector<rpc::Handler> handlers() override {
    return {rpc::AsyncHandler<Text, Huge>(
        kHuge, [](rpc::ServerCall<Text, Huge> call) { call.Finish(Huge()); })};
  }
};

TEST(RpcFaults, MoreThanTwoGiB) {
  HugeService huge;
  TestShelf shelf;
  auto server = Check(Server::Open({.context = ContextUnderTest()}));
  Check(server->Add(shelf));
  Check(server->Add(huge));
  Check(server->Start(AnyPort()));
  auto channel = ChannelTo(server->address());
  const auto refused = StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("2 GiB"));
  Text answer;
  ClientContext request, response, streamed;
  EXPECT_THAT(channel->Call(Shelf::kEcho, Huge(), &answer, request), refused);
  EXPECT_THAT(channel->Call(kHuge, Say(""), &answer, response), refused);
  rpc::ClientStream<Huge, Text> stream(*channel, Shelf::kChat, Text(), streamed);
  EXPECT_FALSE(stream.Write(Huge()));
  EXPECT_THAT(stream.Finish(), refused);
  EXPECT_THAT(Shelf::Client(*channel).Echo(Say("still there")), IsOk());
  EXPECT_EQ(channel->counters().connections, 1u);
}

// More than the header's 32 bits of microseconds, 71 minutes: the caller looks after it alone.
TEST(RpcFaults, DeadlinesOfManyHours) {
  Shop shop;
  for (const absl::Duration timeout :
       {absl::Minutes(71), absl::Minutes(72), absl::Hours(10'000), absl::Hours(24 * 365 * 291),
        absl::Hours(24 * 365 * 300), absl::InfiniteDuration()}) {
    ClientContext context(timeout);
    std::promise<absl::StatusOr<Text>> answered;
    shop.client.Hold(Say(""), context,
                     [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
    auto held = shop.shelf.NextHeld();
    EXPECT_GT(held.context().time_left(), absl::Minutes(60)) << timeout;
    EXPECT_FALSE(held.context().cancelled()) << timeout;
    held.Finish(Say("in time"));
    EXPECT_THAT(answered.get_future().get(), IsOk()) << timeout;
  }
}

}  // namespace
}  // namespace verbena::testing
