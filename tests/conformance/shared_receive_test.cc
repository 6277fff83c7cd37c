// SPDX-License-Identifier: Apache-2.0
// Shared receive queues: ibv_create_srq(3), ibv_modify_srq(3), ibv_post_srq_recv(3); IBTA 10.2.9.
#include <algorithm>
#include <atomic>
#include <map>
#include <vector>

#include "tests/conformance/pair.h"
#include "tests/conformance/sanitizer.h"

namespace verbena::conformance {
namespace {

class SharedReceives : public Conformance {
 protected:
  Pair MakeShared(SrqLimits limits = {}) {
    return MakePair(*this, {.server = {.shared_receive_queue = limits}, .server_min_rnr_timer = 1});
  }
  void PostShared(Pair& pair, uint64_t id, uint32_t length = 8) {
    Check(pair.server->srq.PostReceive({.local = pair.server->slice(64 * id, length), .id = id}));
  }
  void Send(Pair& pair, uint64_t count = 1) {
    for (uint64_t i = 0; i < count; ++i) {
      Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = i});
    }
    WaitFor(pair.client->cq, count);
  }
};
CONFORMANCE_RUN(SharedReceives);

TEST_P(SharedReceives, ServeThreeQueuePairs) {
  // Three connections take from one queue; each sends 20 messages that tell their sender.
  // Expect: all arrive, each completion with its own queue pair's number, no receive twice.
  Pair pair = MakeShared();
  std::vector<QueuePair> ours, theirs;
  for (int i = 0; i < 2; ++i) {
    ours.push_back(pair.client->NewQueuePair());
    theirs.push_back(pair.server->NewQueuePair());
    Connect(*this, ours[i], theirs[i]);
  }
  for (uint64_t id = 0; id < 60; ++id) PostShared(pair, id);
  QueuePair* senders[] = {&pair.client->qp, &ours[0], &ours[1]};
  const uint32_t receivers[] = {pair.server->qp.number(), theirs[0].number(), theirs[1].number()};
  for (uint64_t i = 0; i < 3; ++i) pair.client->buffer.word(8 * i) = i;
  for (int round = 0; round < 20; ++round) {
    for (uint64_t i = 0; i < 3; ++i) {
      Post(*senders[i], {.opcode = Opcode::kSend, .local = pair.client->slice(8 * i, 8), .id = i});
    }
  }
  std::map<uint64_t, int> used;
  for (const WorkCompletion& wc : WaitFor(pair.server->cq, 60)) {
    ASSERT_TRUE(wc.ok());
    EXPECT_EQ(++used[wc.id], 1);
    EXPECT_EQ(wc.qp_number, receivers[pair.server->buffer.word(64 * wc.id)]);
  }
  WaitFor(pair.client->cq, 60);
  EXPECT_EQ(pair.server->srq.counters().posted, 60u);
  EXPECT_EQ(pair.server->srq.counters().taken, 60u);
}

TEST_P(SharedReceives, QueuePairHasNoReceivesOfItsOwn) {
  // Expect: PostReceive on the queue pair is refused.
  Pair pair = MakeShared();
  EXPECT_THAT(pair.server->qp.PostReceive({.local = pair.server->slice(0, 8), .id = 1}),
              Refused(PostError::kUsesSharedQueue));
}

TEST_P(SharedReceives, FullQueueAndTooManyEntriesAreRefused) {
  // Expect: as many as the limit, then kQueueFull; kTooManySges for a longer list.
  Pair pair = MakeShared({.max_wr = 8, .max_sge = 2});
  const SrqLimits limits = pair.server->srq.limits();
  EXPECT_GE(limits.max_wr, 8u);
  EXPECT_GE(limits.max_sge, 2u);
  const std::vector<Sge> entries(limits.max_sge + 1, pair.server->slice(0, 8));
  EXPECT_THAT(pair.server->srq.PostReceive({.local = SgeList(entries), .id = 1}),
              Refused(PostError::kTooManySges));
  const std::vector<ReceiveWr> batch(limits.max_wr + 3, {.local = pair.server->slice(0, 8)});
  EXPECT_THAT(pair.server->srq.PostReceive(batch), Posted(limits.max_wr, PostError::kQueueFull));
}

TEST_P(SharedReceives, LimitEventComesOnce) {
  // Ten receives, limit 5; eight messages.
  // Expect: one event with the queue's context when fewer than 5 are left, none for later ones.
  Pair pair = MakeShared();
  for (uint64_t id = 0; id < 10; ++id) PostShared(pair, id);
  Check(pair.server->srq.SetLimit(5));
  EXPECT_EQ(pair.server->srq.limits().limit, 5u);
  Send(pair, 5);
  EXPECT_TRUE(NoEvent(server(), EventType::kSrqLimitReached));  // five are left
  Send(pair, 1);
  EXPECT_EQ(WaitForEvent(server(), EventType::kSrqLimitReached).context, &pair.server->srq);
  EXPECT_EQ(pair.server->srq.limits().limit, 0u);  // disarmed (ibv_modify_srq(3))
  Send(pair, 2);
  EXPECT_TRUE(NoEvent(server(), EventType::kSrqLimitReached));
  EXPECT_EQ(pair.server->srq.counters().limit_events, 1u);
}

TEST_P(SharedReceives, LimitArmedTooLateFiresAtOnce) {
  // Three receives, then limit 5.
  // Expect: the event at once.
  Pair pair = MakeShared();
  for (uint64_t id = 0; id < 3; ++id) PostShared(pair, id);
  Check(pair.server->srq.SetLimit(5));
  EXPECT_EQ(WaitForEvent(server(), EventType::kSrqLimitReached).context, &pair.server->srq);
}

TEST_P(SharedReceives, LimitCanBeArmedAgain) {
  // Expect: one event per arming.
  Pair pair = MakeShared();
  for (int round = 0; round < 3; ++round) {
    for (uint64_t id = 0; id < 4; ++id) PostShared(pair, id);
    Check(pair.server->srq.SetLimit(3));
    Send(pair, 4);
    WaitForEvent(server(), EventType::kSrqLimitReached);
    WaitFor(pair.server->cq, 4);
  }
  EXPECT_EQ(pair.server->srq.counters().limit_events, 3u);
}

TEST_P(SharedReceives, LimitCanBeDisarmed) {
  // Limit 3, then 0; all receives are used.
  // Expect: no event.
  Pair pair = MakeShared();
  for (uint64_t id = 0; id < 4; ++id) PostShared(pair, id);
  Check(pair.server->srq.SetLimit(3));
  Check(pair.server->srq.SetLimit(0));
  Send(pair, 4);
  EXPECT_TRUE(NoEvent(server(), EventType::kSrqLimitReached));
}

TEST_P(SharedReceives, LimitAboveTheSizeIsRefused) {
  // Expect: InvalidArgument, and the former limit stands.
  Pair pair = MakeShared({.max_wr = 8});
  const uint32_t most = pair.server->srq.limits().max_wr;
  EXPECT_THAT(pair.server->srq.SetLimit(most + 1), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(pair.server->srq.limits().limit, 0u);
}

TEST_P(SharedReceives, DyingQueuePairSaysThatItTakesNoMore) {
  // A connection over a shared queue ends.
  // Expect: kLastWqeReached for that queue pair (IBTA 11.6.3); unused receives stay in the queue
  // and serve another connection.
  Pair pair = MakeShared();
  PostShared(pair, 1);
  Check(pair.client->qp.Disconnect());
  const Event last = WaitForEvent(server(), EventType::kLastWqeReached);
  EXPECT_EQ(last.context, pair.server.get());
  EXPECT_EQ(last.qp_number, pair.server->qp.number());
  EXPECT_TRUE(StaysEmpty(pair.server->cq));
  QueuePair ours = pair.client->NewQueuePair(), theirs = pair.server->NewQueuePair();
  Connect(*this, ours, theirs);
  Post(ours, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(1));
}

TEST_P(SharedReceives, TakenReceiveFlushesBeforeLastWqe) {
  // A message has taken a receive and cannot finish: it is too long for it, so the receive fails.
  // Expect: by the time kLastWqeReached is delivered, the receive's completion can be polled.
  Pair pair = MakeShared();
  PostShared(pair, 1, 8);
  PostShared(pair, 2, 8);
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 9), .id = 3});
  WaitForEvent(server(), EventType::kLastWqeReached);
  WorkCompletion wc;
  ASSERT_EQ(pair.server->cq.Poll({&wc, 1}), 1u);
  EXPECT_THAT(wc, Completed(1, WcStatus::kLocalLengthError));
  EXPECT_THAT(WaitOne(pair.client->cq), Completed(3, Refusal(WcStatus::kRemoteInvalidRequest)));
  EXPECT_TRUE(StaysEmpty(pair.server->cq));  // the second receive is still the queue's
}

TEST_P(SharedReceives, HalfAMessageFlushesItsReceive) {
  // The connection breaks while a large message is under way into a shared receive.
  // Expect: that receive completes with an error on its queue, before kLastWqeReached; nobody else
  // gets it.
  constexpr uint32_t kSize = 8 << 20;
  if (!server().devices()[0]->capabilities().peer_counters)
    GTEST_SKIP() << "capability: peer_counters";
  Pair pair = MakePair(*this, {.server = {.memory = kSize, .shared_receive_queue = SrqLimits{}},
                               .client = {.memory = kSize}});
  Check(pair.server->srq.PostReceive({.local = pair.server->slice(0, kSize), .id = 1}));
  Fill(pair.client->buffer.bytes(), 1);
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, kSize), .id = 2});
  ASSERT_TRUE(RunUntil([&] { return pair.server->srq.counters().taken == 1; }));
  if (!ground().Cut(pair.client->qp)) GTEST_SKIP() << "network: cannot be cut";
  WaitForEvent(server(), EventType::kLastWqeReached);
  WorkCompletion wc;
  ASSERT_EQ(pair.server->cq.Poll({&wc, 1}), 1u);
  EXPECT_EQ(wc.id, 1u);
  // The network may have been faster than we.
  EXPECT_THAT(wc.status, testing::AnyOf(WcStatus::kFlushed, WcStatus::kSuccess));
}

TEST_P(SharedReceives, ClosedQueuePairsKeepNoPlaces) {
  // Four times as many connections as the queue has places, one after the other. Each takes a
  // receive and is closed before anybody polls.
  // Expect: there is always a place for the next receive, and nothing is said of who is gone.
  Pair pair = MakeShared({.max_wr = 4});
  const uint64_t rounds = 4 * std::min(pair.server->srq.limits().max_wr, 16u);
  for (uint64_t id = 0; id < rounds; ++id) {
    QueuePair ours = pair.client->NewQueuePair(), theirs = pair.server->NewQueuePair();
    Connect(*this, ours, theirs);
    PostShared(pair, id);
    Post(ours, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = id});
    EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(id));
    Check(theirs.Close());
  }
  EXPECT_TRUE(StaysEmpty(pair.server->cq));
}

TEST_P(SharedReceives, QueuePairsThatGoInMidMessageKeepNoPlaces) {
  // As many connections as the queue has places, and two more, one after the other. Each is closed
  // by the receiver when a large message has begun to arrive.
  // Expect: in the end the queue takes as many receives as it is long.
  constexpr uint32_t kSize = 4 << 20;
  Pair pair =
      MakePair(*this, {.server = {.memory = kSize, .shared_receive_queue = SrqLimits{.max_wr = 4}},
                       .client = {.memory = kSize}});
  const uint32_t places = pair.server->srq.limits().max_wr;
  Fill(pair.client->buffer.bytes(), 1);
  pair.client->buffer.word(0) = 1;
  for (uint32_t round = 0; round < std::min(places, 16u) + 2; ++round) {
    QueuePair ours = pair.client->NewQueuePair(), theirs = pair.server->NewQueuePair();
    Connect(*this, ours, theirs);
    pair.server->buffer.word(0) = 0;
    Check(pair.server->srq.PostReceive({.local = pair.server->slice(0, kSize), .id = round}));
    Post(ours, {.opcode = Opcode::kSend, .local = pair.client->slice(0, kSize), .id = round});
    // The thread sanitizer does not know that peers write memory while it is looked at.
    const std::atomic_ref<uint64_t> begun(pair.server->buffer.word(0));
    ASSERT_TRUE(RunUntil([&] {
      return kThreadSanitizer ? pair.server->srq.counters().taken > round
                              : begun.load(std::memory_order_relaxed) != 0;
    }));
    Check(theirs.Close());
  }
  const std::vector<ReceiveWr> all(places, {.local = pair.server->slice(0, 8)});
  EXPECT_THAT(pair.server->srq.PostReceive(all), Posted(places, PostError::kNone));
}

TEST_P(SharedReceives, WriteWithImmTakesFromIt) {
  // Expect: one receive of the shared queue, with the immediate.
  if (!client().devices()[0]->capabilities().immediate) GTEST_SKIP() << "capability: immediate";
  Pair pair = MakeShared();
  PostShared(pair, 1);
  PostShared(pair, 2);
  Post(pair.client->qp, {.opcode = Opcode::kWriteWithImm,
                         .local = pair.client->slice(0, 100),
                         .remote = pair.server->at(8192),
                         .id = 3,
                         .immediate = 4});
  const WorkCompletion wc = WaitOne(pair.server->cq);
  EXPECT_THAT(wc, Succeeded(1));
  EXPECT_EQ(wc.immediate_or_key, 4u);
  EXPECT_EQ(pair.server->srq.counters().taken, 1u);
}

TEST_P(SharedReceives, InterleavedLargeMessages) {
  // Two connections send messages of many frames at once into shared receives.
  // Expect: each message in one receive, whole, though they arrive side by side.
  constexpr uint32_t kSize = 300000;
  Pair pair = MakePair(*this, {.server = {.memory = 4 * kSize, .shared_receive_queue = SrqLimits{}},
                               .client = {.memory = 2 * kSize}});
  QueuePair ours = pair.client->NewQueuePair(), theirs = pair.server->NewQueuePair();
  Connect(*this, ours, theirs);
  for (uint64_t id = 0; id < 4; ++id) {
    Check(pair.server->srq.PostReceive({.local = pair.server->slice(id * kSize, kSize), .id = id}));
  }
  for (uint64_t i = 0; i < 2; ++i) Fill(pair.client->bytes(i * kSize, kSize), i);
  for (int round = 0; round < 2; ++round) {
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, kSize)});
    Post(ours, {.opcode = Opcode::kSend, .local = pair.client->slice(kSize, kSize)});
  }
  for (const WorkCompletion& wc : WaitFor(pair.server->cq, 4)) {
    ASSERT_TRUE(wc.ok());
    EXPECT_EQ(wc.length, kSize);
    EXPECT_THAT(pair.server->bytes(wc.id * kSize, kSize),
                HasPattern(wc.qp_number == theirs.number() ? 1u : 0u));
  }
  WaitFor(pair.client->cq, 4);
}

}  // namespace
}  // namespace verbena::conformance
