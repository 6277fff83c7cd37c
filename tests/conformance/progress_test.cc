// SPDX-License-Identifier: Apache-2.0
// Nobody need call the library for the peer's one-sided operations to be served, for messages to
// be acknowledged, or for errors to arrive: IBTA 9.4.3 to 9.4.5 involve no consumer at the target.
#include <atomic>
#include <vector>

#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

// In these cases nothing of the server's is called between MakePair and the last expectation.
CONFORMANCE_SUITE(Progress);

// Read without the completion that would order it behind the write: as a program polls memory.
uint64_t Published(uint64_t& word) { return std::atomic_ref(word).load(std::memory_order_acquire); }

TEST_P(Progress, TargetNeverEntersTheLibrary) {
  // 300 writes, reads and additions to a target whose application does nothing.
  // Expect: all complete with the right content.
  const bool atomics = client().devices()[0]->capabilities().atomics;
  Pair pair = MakePair(*this);
  uint64_t sum = 0;
  for (uint64_t i = 0; i < 300; ++i) {
    const Opcode opcode = i % 3 == 0               ? Opcode::kWrite
                          : i % 3 == 1 || !atomics ? Opcode::kRead
                                                   : Opcode::kFetchAdd;
    SendWr request = OneSided(opcode, *pair.client, pair.server->at(0), i);
    if (opcode == Opcode::kWrite) pair.client->buffer.word(0) = i;
    Post(pair.client->qp, request);
    ASSERT_THAT(WaitOne(pair.client->cq), Succeeded(i));
    sum = opcode == Opcode::kWrite ? i : opcode == Opcode::kFetchAdd ? sum + 5 : sum;
    ASSERT_EQ(pair.server->buffer.word(0), sum);
  }
}

TEST_P(Progress, LargeReadsOfAPassiveTarget) {
  // 32 reads of 256 KiB at once.
  // Expect: all complete.
  constexpr uint32_t kSize = 256 << 10;
  Pair pair = MakePair(*this);
  Fill(pair.server->buffer.bytes(), 1);
  for (uint64_t i = 0; i < 32; ++i) {
    Post(pair.client->qp, OneSided(Opcode::kRead, *pair.client, pair.server->at(0), i, kSize));
  }
  for (const WorkCompletion& wc : WaitFor(pair.client->cq, 32)) EXPECT_TRUE(wc.ok());
  EXPECT_THAT(pair.client->buffer.bytes(), HasPattern(1));
}

TEST_P(Progress, MessagesAreAcknowledgedThoughNobodyPolls) {
  // The receiver has posted receives and never polls.
  // Expect: the sender's completions come.
  Pair pair = MakePair(*this);
  for (uint64_t i = 0; i < 100; ++i) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 64), .id = i});
  }
  for (uint64_t i = 0; i < 100; ++i) {
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = i});
    ASSERT_THAT(WaitOne(pair.client->cq), Succeeded(i));
  }
  EXPECT_EQ(WaitFor(pair.server->cq, 100).back().id, 99u);
}

TEST_P(Progress, PostedAndForgotten) {
  // The sender posts and never polls either.
  // Expect: the bytes arrive at the target.
  Pair pair = MakePair(*this);
  for (uint64_t i = 0; i < 50; ++i) {
    pair.client->buffer.word(8 * i) = i + 1;
    Post(pair.client->qp, {.opcode = Opcode::kWrite,
                           .local = pair.client->slice(8 * i, 8),
                           .remote = pair.server->at(8 * i),
                           .id = i});
  }
  EXPECT_TRUE(RunUntil([&] { return pair.client->qp.counters().send_completions == 50; }));
  for (uint64_t i = 0; i < 50; ++i) EXPECT_EQ(Published(pair.server->buffer.word(8 * i)), i + 1);
}

TEST_P(Progress, PollingStopsAndOthersTakeOver) {
  // The sender polls for a while, then posts once more and goes away.
  // Expect: what it posted last arrives all the same.
  Pair pair = MakePair(*this);
  for (uint64_t round = 1; round <= 20; ++round) {
    WorkCompletion none;
    for (int i = 0; i < 100; ++i) EXPECT_EQ(pair.client->cq.Poll({&none, 1}), 0u);
    pair.client->buffer.word(0) = round;
    Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), round));
    ASSERT_TRUE(RunUntil([&] { return pair.client->qp.counters().send_completions == round; }));
    ASSERT_EQ(Published(pair.server->buffer.word(0)), round);
    EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(round));
  }
}

TEST_P(Progress, ErrorsArriveThoughNobodyPolls) {
  // The peer disconnects; this end only waits for events.
  // Expect: kDisconnected, and the flush is in the queue.
  Pair pair = MakePair(*this);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 64), .id = 1});
  Check(pair.client->qp.Disconnect());
  WaitForEvent(server(), EventType::kDisconnected);
  WorkCompletion wc;
  ASSERT_EQ(pair.server->cq.Poll({&wc, 1}), 1u);
  EXPECT_THAT(wc, Flushed(1));
}

TEST_P(Progress, ManyConnectionsToAPassiveTarget) {
  // 32 connections, one write on each.
  // Expect: all complete.
  Pair pair = MakePair(*this);
  std::vector<QueuePair> ours, theirs;
  for (uint64_t i = 0; i < 32; ++i) {
    ours.push_back(pair.client->NewQueuePair());
    theirs.push_back(pair.server->NewQueuePair());
    Connect(*this, ours.back(), theirs.back());
  }
  Fill(pair.client->bytes(0, 8), 1);
  for (uint64_t i = 0; i < 32; ++i) {
    Post(ours[i], OneSided(Opcode::kWrite, *pair.client, pair.server->at(8 * i), i));
  }
  for (const WorkCompletion& wc : WaitFor(pair.client->cq, 32)) EXPECT_TRUE(wc.ok());
  for (uint64_t i = 0; i < 32; ++i) EXPECT_THAT(pair.server->bytes(8 * i, 8), HasPattern(1));
}

}  // namespace
}  // namespace verbena::conformance
