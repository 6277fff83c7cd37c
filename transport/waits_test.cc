// SPDX-License-Identifier: Apache-2.0
// The blocking helpers of completion queues, channels and queue pairs over a provider that is told
// what to do.
#include <memory>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "transport/completion_queue.h"
#include "transport/fake_provider.h"
#include "transport/queue_pair.h"

namespace verbena {
namespace {

using absl::StatusCode;

class QueueWait : public testing::Test {
 protected:
  QueueWait() : impl(new fake::CompletionQueue), cq(std::unique_ptr<fake::CompletionQueue>(impl)) {}
  void Add(uint64_t id, WcStatus status = WcStatus::kSuccess) {
    impl->ready.push_back({.id = id, .status = status, .qp_number = 0x12});
  }

  fake::CompletionQueue* impl;
  CompletionQueue cq;
};

TEST_F(QueueWait, TakesExactlyCount) {
  for (uint64_t id = 0; id < 100; ++id) Add(id);
  const auto taken = cq.Wait(70);
  ASSERT_TRUE(taken.ok()) << taken.status();
  ASSERT_EQ(taken->size(), 70u);
  for (uint64_t id = 0; id < 70; ++id) EXPECT_EQ((*taken)[id].id, id);
  EXPECT_EQ(impl->ready.size(), 30u);
  EXPECT_TRUE(impl->waits.empty());
}

TEST_F(QueueWait, NoneOfNothing) {
  const auto taken = cq.Wait(0, absl::ZeroDuration());
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_TRUE(taken->empty());
}

// Nothing comes while it spins. Expect: it sleeps, gets some, and returns when it has all.
TEST_F(QueueWait, SleepsUntilTheyCome) {
  uint64_t next = 1;
  impl->on_await = [&] { Add(next++); };
  const auto taken = cq.Wait(3);
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(taken->size(), 3u);
  ASSERT_EQ(impl->waits.size(), 3u);
  EXPECT_EQ(impl->waits[0], absl::InfiniteDuration());
}

TEST_F(QueueWait, FailedOnesCountToo) {
  Add(1, WcStatus::kFlushed);
  const auto taken = cq.Wait(1);
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ((*taken)[0].status, WcStatus::kFlushed);
}

TEST_F(QueueWait, TimeoutTellsWhatHadCome) {
  Add(17);
  Add(18, WcStatus::kFlushed);
  const auto taken = cq.Wait(5, absl::ZeroDuration());
  EXPECT_EQ(taken.status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_NE(taken.status().message().find(
                "2 of 5 completions came within 0: wr 17 on qp 0x12 Send, wr 18 on qp 0x12 "
                "WR_FLUSH_ERR. "),
            std::string::npos)
      << taken.status();
}

TEST_F(QueueWait, SleepsNoLongerThanTheTimeout) {
  const auto taken = cq.Wait(1, absl::Milliseconds(2));
  EXPECT_EQ(taken.status().code(), StatusCode::kDeadlineExceeded);
  for (absl::Duration wait : impl->waits) {
    EXPECT_GT(wait, absl::ZeroDuration());
    EXPECT_LE(wait, absl::Milliseconds(2));
  }
}

TEST(ChannelNext, WaitsAndTimesOut) {
  auto* impl = new fake::CompletionChannel;
  CompletionChannel channel{std::unique_ptr<provider::CompletionChannel>(impl)};
  int mine = 0;
  impl->on_await = [&] { impl->events.push_back({&mine}); };
  const auto event = channel.Next();
  impl->on_await = nullptr;
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->context, &mine);
  const auto none = channel.Next(absl::Milliseconds(5));
  EXPECT_EQ(none.status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_NE(none.status().message().find("RequestNotify"), std::string::npos);
}

class QueuePairWait : public testing::Test {
 protected:
  QueuePairWait()
      : impl(new fake::QueuePair), qp(std::unique_ptr<fake::QueuePair>(impl), &context) {
    impl->attributes.state = QpState::kRts;
  }

  fake::Context context;
  fake::QueuePair* impl;
  QueuePair qp;
};

struct StateRow {
  QpState state;
  ConnectOutcome::Kind outcome;
  bool disconnected;
};

// Every state, and INIT as it is before a connect and after one.
TEST_F(QueuePairWait, DisconnectedStates) {
  using Kind = ConnectOutcome::Kind;
  const StateRow rows[] = {
      {QpState::kReset, Kind::kPending, true},    {QpState::kInit, Kind::kPending, false},
      {QpState::kInit, Kind::kRejected, true},    {QpState::kInit, Kind::kUnreachable, true},
      {QpState::kInit, Kind::kEstablished, true}, {QpState::kRtr, Kind::kPending, false},
      {QpState::kRts, Kind::kEstablished, false}, {QpState::kSqd, Kind::kEstablished, false},
      {QpState::kSqe, Kind::kEstablished, false}, {QpState::kErr, Kind::kEstablished, true},
  };
  for (const StateRow& row : rows) {
    impl->attributes.state = row.state;
    impl->latest.kind = row.outcome;
    EXPECT_EQ(qp.WaitUntilDisconnected(absl::ZeroDuration()).ok(), row.disconnected)
        << QpStateName(row.state) << " " << static_cast<int>(row.outcome);
  }
}

TEST_F(QueuePairWait, DisconnectComes) {
  context.steps = {[] {}, [this] { impl->attributes.state = QpState::kErr; }};
  EXPECT_TRUE(qp.WaitUntilDisconnected().ok());
}

TEST_F(QueuePairWait, DisconnectTimesOut) {
  const absl::Status status = qp.WaitUntilDisconnected(absl::Milliseconds(3));
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_NE(status.message().find("qp 0x12 (RTS): neither end disconnected within 3ms"),
            std::string::npos)
      << status;
}

TEST_F(QueuePairWait, DrainWaitsForTheLast) {
  impl->attributes.send_outstanding = 2;
  context.steps = {[this] { --impl->attributes.send_outstanding; },
                   [this] { --impl->attributes.send_outstanding; }};
  EXPECT_TRUE(qp.Drain(absl::Seconds(1)).ok());
  EXPECT_TRUE(context.steps.empty());
}

TEST_F(QueuePairWait, DrainTimesOut) {
  impl->attributes.send_outstanding = 2;
  const absl::Status status = qp.Drain(absl::Milliseconds(3));
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_NE(status.message().find("2 sends were not complete within 3ms"), std::string::npos)
      << status;
}

TEST_F(QueuePairWait, DrainOfAPausedOneNamesThePause) {
  impl->attributes.send_outstanding = 1;
  impl->attributes.state = QpState::kSqd;
  EXPECT_NE(qp.Drain(absl::ZeroDuration()).message().find("SQD"), std::string::npos);
}

TEST_F(QueuePairWait, DrainGivesTheCauseOfAFailure) {
  impl->attributes.send_outstanding = 2;
  impl->why = absl::UnavailableError("qp 0x12: the peer vanished");
  context.steps = {[this] {
    impl->attributes.state = QpState::kErr;
    impl->attributes.send_outstanding = 0;
  }};
  EXPECT_EQ(qp.Drain(absl::Seconds(1)), impl->why);
}

// Both ends agreed to part, and what was outstanding was flushed: that is no success.
TEST_F(QueuePairWait, DrainDoesNotTakeFlushedForArrived) {
  impl->attributes.state = QpState::kErr;
  EXPECT_EQ(qp.Drain(absl::Seconds(1)).code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace verbena
