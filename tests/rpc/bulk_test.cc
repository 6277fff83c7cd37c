// SPDX-License-Identifier: Apache-2.0
// Memory that a caller lends for the time of a call.
#include <future>

#include "tests/rpc/fixture.h"

namespace verbena::testing {
namespace {

using ::testing::HasSubstr;

class Bulk : public ::testing::TestWithParam<int> {
 protected:
  // A parcel of `memory` that belongs to the call of `context`.
  Parcel Lend(ClientContext& context, std::span<std::byte> memory, BulkAccess access) {
    Parcel parcel;
    *parcel.mutable_bulk() = Check(shop_.channel->Lend(context, memory, access));
    parcel.set_bytes(memory.size());
    return parcel;
  }
  Shop shop_{{.handler_threads = GetParam()}};
};

INSTANTIATE_TEST_SUITE_P(All, Bulk, ::testing::Values(0, 2), [](const auto& row) {
  return row.param == 0 ? std::string("inline") : std::string("pool");
});

TEST_P(Bulk, PulledAndPushed) {
  for (const size_t bytes : {1, 4096, 1'000'000, 20'000'000}) {
    std::vector<std::byte> memory = Pattern(bytes, 3);
    ClientContext out;
    const Sum taken = Check(shop_.client.Take(Lend(out, memory, BulkAccess::kRead), out));
    EXPECT_EQ(taken.bytes(), bytes);
    EXPECT_EQ(taken.sum(), SumOf(memory));

    ClientContext in;
    Parcel parcel = Lend(in, memory, BulkAccess::kWrite);
    parcel.set_seed(77);
    ASSERT_THAT(shop_.client.Fill(parcel, in), IsOk());
    EXPECT_EQ(memory, Pattern(bytes, 77)) << bytes;
  }
}

TEST_P(Bulk, APartOfIt) {
  std::vector<std::byte> memory = Pattern(10'000, 0);
  ClientContext context;
  Parcel parcel = Lend(context, memory, BulkAccess::kWrite);
  parcel.set_offset(1000);
  parcel.set_bytes(10);
  parcel.set_seed(200);
  ASSERT_THAT(shop_.client.Fill(parcel, context), IsOk());
  std::vector<std::byte> expected = Pattern(10'000, 0);
  const std::vector<std::byte> part = Pattern(10, 200);
  std::copy(part.begin(), part.end(), expected.begin() + 1000);
  EXPECT_EQ(memory, expected);
}

TEST_P(Bulk, ManyAtOnce) {
  constexpr size_t kCalls = 40;
  constexpr size_t kBytes = 3'000'000;
  std::vector<ClientContext> contexts(kCalls);
  std::vector<std::vector<std::byte>> memory(kCalls);
  std::vector<std::promise<absl::StatusOr<Sum>>> sums(kCalls);
  for (size_t i = 0; i < kCalls; ++i) {
    memory[i] = Pattern(kBytes, static_cast<uint32_t>(i));
    shop_.client.Take(Lend(contexts[i], memory[i], BulkAccess::kRead), contexts[i],
                      [&, i](absl::StatusOr<Sum> sum) { sums[i].set_value(std::move(sum)); });
  }
  for (size_t i = 0; i < kCalls; ++i) {
    EXPECT_EQ(Check(sums[i].get_future().get()).sum(), SumOf(memory[i])) << i;
  }
}

TEST_P(Bulk, OutsideOfWhatWasLent) {
  std::vector<std::byte> memory(100);
  ClientContext context;
  Parcel parcel = Lend(context, memory, BulkAccess::kRead);
  parcel.set_offset(1);
  EXPECT_THAT(shop_.client.Take(parcel, context), StatusIs(absl::StatusCode::kOutOfRange));
  ClientContext again;
  parcel = Lend(again, memory, BulkAccess::kRead);
  parcel.set_offset(~uint64_t{0});
  EXPECT_THAT(shop_.client.Take(parcel, again), StatusIs(absl::StatusCode::kOutOfRange));
}

TEST_P(Bulk, LentToBeReadOnly) {
  std::vector<std::byte> memory = Pattern(100, 0);
  ClientContext context;
  EXPECT_THAT(shop_.client.Fill(Lend(context, memory, BulkAccess::kRead), context),
              StatusIs(absl::StatusCode::kPermissionDenied));
  // A server that is told otherwise is stopped by the device.
  ClientContext forged;
  Parcel parcel = Lend(forged, memory, BulkAccess::kRead);
  parcel.mutable_bulk()->set_writable(true);
  EXPECT_THAT(shop_.client.Fill(parcel, forged), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(memory, Pattern(100, 0));
}

// The handle of a call that has ended is good for nothing, whoever kept it.
TEST_P(Bulk, TheLeaseEndsWithTheCall) {
  std::vector<std::byte> memory = Pattern(5000, 1);
  ClientContext context;
  Parcel parcel = Lend(context, memory, BulkAccess::kWrite);
  parcel.set_seed(2);
  ASSERT_THAT(shop_.client.Fill(parcel, context), IsOk());
  parcel.set_seed(3);
  EXPECT_THAT(shop_.client.Fill(parcel), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(memory, Pattern(5000, 2));
}

// A call that ran out of time: when the caller has its answer, a late server cannot write any more;
// nor is the connection lost for it.
TEST_P(Bulk, TheLeaseEndsWithTheDeadline) {
  std::vector<std::byte> memory = Pattern(5000, 1);
  ClientContext context(absl::Milliseconds(20));
  const rpc::BulkHandle handle = Check(shop_.channel->Lend(context, memory, BulkAccess::kWrite));
  ASSERT_THAT(shop_.client.Hold(Say("with memory"), context),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  auto held = shop_.shelf.NextHeld();
  std::promise<absl::Status> moved;
  const std::vector<std::byte> late = Pattern(5000, 9);
  held.context().Push(handle, 0, late, [&](const absl::Status& how) { moved.set_value(how); });
  EXPECT_THAT(moved.get_future().get(), ::testing::Not(IsOk()));
  held.Finish(Say(""));
  EXPECT_EQ(memory, Pattern(5000, 1));
  EXPECT_THAT(shop_.client.Echo(Say("still there")), IsOk());
  EXPECT_EQ(shop_.channel->counters().connections, 1u);
}

// So it is while transfers are under way, more of them than can be at once: when the caller has its
// answer its memory stays as it is, and the server lets go of it in time to keep the connection.
TEST_P(Bulk, TransfersUnderWayAtTheDeadline) {
  constexpr size_t kPushes = 80;
  constexpr size_t kMost = 3 << 20;
  // All of them take some 60 ms here: less than the moment that a late server has.
  size_t bytes = 0;
  {
    std::vector<std::byte> memory(kMost);
    const std::vector<std::byte> first = Pattern(kMost, 1);
    ClientContext context;
    const rpc::BulkHandle handle = Check(shop_.channel->Lend(context, memory, BulkAccess::kWrite));
    std::promise<absl::StatusOr<Text>> answered;
    shop_.client.Hold(Say(""), context,
                      [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
    auto held = shop_.shelf.NextHeld();
    const absl::Time start = absl::Now();
    std::promise<absl::Status> moved;
    held.context().Push(handle, 0, first, [&](const absl::Status& how) { moved.set_value(how); });
    ASSERT_THAT(moved.get_future().get(), IsOk());
    const double share = absl::FDivDuration(absl::Milliseconds(60), absl::Now() - start) / kPushes;
    bytes = static_cast<size_t>(std::clamp(share, 0.001, 1.0) * kMost);
    held.Finish(Say(""));
    ASSERT_THAT(answered.get_future().get(), IsOk());
  }
  const std::vector<std::byte> late = Pattern(bytes, 9);
  bool seen = false;
  // How far they come by then is up to the machine.
  for (int attempt = 0; attempt < 30 && !seen; ++attempt) {
    std::vector<std::byte> memory(kPushes * bytes);
    const uint64_t connections = shop_.channel->counters().connections;
    ClientContext context(absl::Milliseconds(10 + 2 * attempt));
    const rpc::BulkHandle handle = Check(shop_.channel->Lend(context, memory, BulkAccess::kWrite));
    std::promise<absl::StatusOr<Text>> answered;
    shop_.client.Hold(Say(""), context,
                      [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
    auto held = shop_.shelf.NextHeld();
    std::vector<std::promise<absl::Status>> moved(kPushes);
    for (size_t i = 0; i < kPushes; ++i) {
      held.context().Push(handle, i * bytes, late,
                          [&, i](const absl::Status& how) { moved[i].set_value(how); });
    }
    EXPECT_THAT(answered.get_future().get(), StatusIs(absl::StatusCode::kDeadlineExceeded));
    const std::vector<std::byte> then = memory;
    size_t failed = 0;
    for (auto& push : moved) failed += push.get_future().get().ok() ? 0 : 1;
    held.Finish(Say(""));
    ClientContext again;
    again.set_wait_for_ready(true);
    EXPECT_THAT(shop_.client.Echo(Say("still there"), again), IsOk());
    EXPECT_TRUE(memory == then);
    const bool some_came = memory[bytes / 2] != std::byte{0} || memory[1] != std::byte{0};
    seen = some_came && failed > 0 && shop_.channel->counters().connections == connections;
  }
  EXPECT_TRUE(seen);
}

// Writes more than any has before, and answers as soon as it may.
class Answering final : public Shelf::AsyncService {
 public:
  void Fill(rpc::ServerCall<Parcel, Sum> call) override {
    struct Owned {
      Owned(std::vector<std::byte> its, std::unique_ptr<std::promise<void>> told)
          : bytes(std::move(its)), gone(std::move(told)) {}
      Owned(Owned&&) = default;
      ~Owned() {
        if (gone != nullptr) gone->set_value();
      }
      std::vector<std::byte> bytes;
      std::unique_ptr<std::promise<void>> gone;
    };
    const Parcel parcel = call.request();
    auto gone = std::make_unique<std::promise<void>>();
    gone_ = gone->get_future();
    Owned owned{Pattern(parcel.bytes(), parcel.seed()), std::move(gone)};
    const std::span bytes(owned.bytes);
    auto* moving = new rpc::ServerCall<Parcel, Sum>(std::move(call));
    moving->context().PushBehind(parcel.bulk(), parcel.offset(), bytes, rpc::Keep(std::move(owned)),
                                 [moving](const absl::Status& how) {
                                   if (how.ok()) moving->Finish(Sum());
                                   if (!how.ok()) moving->Finish(how);
                                   delete moving;
                                 });
  }
  bool LetGoOf() {
    return gone_.wait_for(absl::ToChronoSeconds(kLongEnough)) == std::future_status::ready;
  }

 private:
  std::future<void> gone_;
};

// All of it is there when the answer is, though nobody waited for it; its memory is let go of.
TEST(RpcBulk, AnAnswerBehindItsPush) {
  for (const int threads : {0, 2}) {
    Answering shelf;
    auto server = Serve(shelf, {.handler_threads = threads});
    auto channel = ChannelTo(server->address());
    const Shelf::Client client(*channel);
    // Up to more than is under way at once: that waits, as any push.
    for (const size_t bytes : {1u, 4096u, 1u << 20, 5u << 20, 30u << 20}) {
      const uint32_t times = bytes > (1u << 20) ? 2 : 20;
      for (uint32_t i = 1; i <= times; ++i) {
        std::vector<std::byte> memory(bytes);
        ClientContext context;
        Parcel parcel;
        *parcel.mutable_bulk() = Check(channel->Lend(context, memory, BulkAccess::kWrite));
        parcel.set_bytes(bytes);
        parcel.set_seed(i);
        ASSERT_THAT(client.Fill(parcel, context), IsOk());
        ASSERT_TRUE(memory == Pattern(bytes, i)) << bytes;
        ASSERT_TRUE(shelf.LetGoOf());
      }
    }
    // One that fails is no answer.
    const std::vector<std::byte> before = Pattern(5000, 1);
    std::vector<std::byte> memory = before;
    ClientContext context;
    Parcel parcel;
    *parcel.mutable_bulk() = Check(channel->Lend(context, memory, BulkAccess::kRead));
    parcel.mutable_bulk()->set_writable(true);
    parcel.set_bytes(5000);
    EXPECT_THAT(client.Fill(parcel, context), StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_EQ(memory, before);
    EXPECT_TRUE(shelf.LetGoOf());
  }
}

// Does not look at its connection before it may, and writes then.
class Sitting final : public Shelf::AsyncService {
 public:
  void Fill(rpc::ServerCall<Parcel, Sum> call) override {
    may_write_.get_future().wait();
    auto* moving = new rpc::ServerCall<Parcel, Sum>(std::move(call));
    moving->context().Push(moving->request().bulk(), 0, bytes_,
                           [this, moving](const absl::Status& how) {
                             moving->Finish(how);
                             delete moving;
                             wrote_.set_value(how);
                           });
  }
  absl::Status Write() {
    may_write_.set_value();
    return wrote_.get_future().get();
  }

 private:
  std::promise<void> may_write_;
  std::promise<absl::Status> wrote_;
  const std::vector<std::byte> bytes_ = Pattern(5000, 9);
};

// A server that does not hear that the time is up has no more than a moment. What it writes later
// costs it the connection.
TEST(RpcBulk, AServerThatSitsOnALease) {
  Sitting shelf;
  auto server = Serve(shelf, {.handler_threads = 0});
  auto channel = ChannelTo(server->address());
  const Shelf::Client client(*channel);
  ASSERT_THAT(channel->WaitUntilConnected(kLongEnough), IsOk());
  std::vector<std::byte> memory = Pattern(5000, 1);
  ClientContext context(absl::Milliseconds(10));
  Parcel parcel;
  *parcel.mutable_bulk() = Check(channel->Lend(context, memory, BulkAccess::kWrite));
  EXPECT_THAT(client.Fill(parcel, context), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(shelf.Write(), ::testing::Not(IsOk()));
  EXPECT_EQ(memory, Pattern(5000, 1));
  EXPECT_THAT(channel->WaitUntilConnected(kLongEnough), IsOk());
}

// It costs the liar its connection, and nobody else anything.
TEST_P(Bulk, AForgedHandle) {
  auto other = ChannelTo(shop_.server->address());
  const Shelf::Client honest(*other);
  ASSERT_THAT(honest.Echo(Say("before")), IsOk());
  Parcel parcel;
  parcel.mutable_bulk()->set_address(0x1000);
  parcel.mutable_bulk()->set_length(100);
  parcel.mutable_bulk()->set_key(0x12345678);
  parcel.set_bytes(100);
  EXPECT_THAT(shop_.client.Take(parcel), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(honest.Echo(Say("after")), IsOk());
  EXPECT_EQ(other->counters().connections, 1u);
  ClientContext again;
  again.set_wait_for_ready(true);
  EXPECT_THAT(shop_.client.Echo(Say("again"), again), IsOk());
}

// The caller is gone with its memory; the server's transfer ends, and it serves on.
TEST_P(Bulk, TheCallerVanishesHoldingALease) {
  std::vector<std::byte> memory(1000);
  ClientContext context;
  const rpc::BulkHandle handle = Check(shop_.channel->Lend(context, memory, BulkAccess::kRead));
  std::promise<absl::StatusOr<Text>> answered;
  shop_.client.Hold(Say(""), context,
                    [&](absl::StatusOr<Text> answer) { answered.set_value(std::move(answer)); });
  auto held = shop_.shelf.NextHeld();
  auto other = ChannelTo(shop_.server->address());
  shop_.channel.reset();
  EXPECT_THAT(answered.get_future().get(), StatusIs(absl::StatusCode::kCancelled));
  std::promise<absl::Status> moved;
  std::vector<std::byte> here(1000);
  held.context().Pull(handle, 0, here, [&](const absl::Status& how) { moved.set_value(how); });
  EXPECT_THAT(moved.get_future().get(), ::testing::Not(IsOk()));
  held.Finish(Say(""));
  EXPECT_THAT(Shelf::Client(*other).Echo(Say("after")), IsOk());
}

}  // namespace
}  // namespace verbena::testing
