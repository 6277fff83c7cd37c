// SPDX-License-Identifier: Apache-2.0
// The order in which requests of one queue pair take effect, and how many reads run at once: IBTA
// 10.8.3.3, ibv_post_send(3).
#include <vector>

#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

CONFORMANCE_SUITE(Ordering);

TEST_P(Ordering, WritesAreVisibleWhenALaterSendArrives) {
  // 20 writes, then a send.
  // Expect: when the receive completes, all that was written before is there (IBTA 9.4.1: in
  // order).
  Pair pair = MakePair(*this);
  for (uint32_t round = 0; round < 10; ++round) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = round});
    for (uint32_t i = 0; i < 20; ++i) {
      Fill(pair.client->bytes(i * 4096, 4000), round * 100 + i);
      Post(pair.client->qp, {.opcode = Opcode::kWrite,
                             .local = pair.client->slice(i * 4096, 4000),
                             .remote = pair.server->at((i + 1) * 4096),
                             .id = i});
    }
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = 99});
    EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(round));
    for (uint32_t i = 0; i < 20; ++i) {
      ASSERT_THAT(pair.server->bytes((i + 1) * 4096, 4000), HasPattern(round * 100 + i));
    }
    WaitFor(pair.client->cq, 21);
  }
}

TEST_P(Ordering, LastOfManyWritesToOnePlaceWins) {
  // 100 writes of one word.
  // Expect: they are applied in order, so the last value stands.
  Pair pair = MakePair(*this);
  for (uint32_t i = 0; i < 100; ++i) {
    pair.client->buffer.word(8 * i) = i + 1;
    Post(pair.client->qp, {.opcode = Opcode::kWrite,
                           .local = pair.client->slice(8 * i, 8),
                           .remote = pair.server->at(64),
                           .id = i});
  }
  const std::vector<WorkCompletion> done = WaitFor(pair.client->cq, 100);
  for (uint32_t i = 0; i < 100; ++i) EXPECT_THAT(done[i], Succeeded(i));
  EXPECT_EQ(pair.server->buffer.word(64), 100u);
}

TEST_P(Ordering, ReadAfterWriteSeesIt) {
  // A write and a read of the same place, posted together, 50 times.
  // Expect: each read returns what the write before it brought.
  Pair pair = MakePair(*this);
  for (uint32_t i = 0; i < 50; ++i) {
    Fill(pair.client->bytes(0, 3000), i);
    Post(pair.client->qp, {.opcode = Opcode::kWrite,
                           .local = pair.client->slice(0, 3000),
                           .remote = pair.server->at(0),
                           .id = 1});
    Post(pair.client->qp, {.opcode = Opcode::kRead,
                           .local = pair.client->slice(4096, 3000),
                           .remote = pair.server->at(0),
                           .id = 2});
    EXPECT_THAT(WaitFor(pair.client->cq, 2), testing::ElementsAre(Succeeded(1), Succeeded(2)));
    ASSERT_THAT(pair.client->bytes(4096, 3000), HasPattern(i));
  }
}

TEST_P(Ordering, FencedWriteDoesNotOvertakeARead) {
  // A read, then a fenced write of the same place (IBTA 10.8.3.3: only a fence orders them).
  // Expect: the read returns the old content, the place has the new.
  constexpr uint32_t kSize = 100000;
  Pair pair = MakePair(*this);
  for (uint32_t i = 0; i < 10; ++i) {
    Fill(pair.server->bytes(0, kSize), i);
    Fill(pair.client->bytes(0, kSize), 1000 + i);
    Post(pair.client->qp, {.opcode = Opcode::kRead,
                           .local = pair.client->slice(kSize, kSize),
                           .remote = pair.server->at(0),
                           .id = 1});
    Post(pair.client->qp, {.opcode = Opcode::kWrite,
                           .local = pair.client->slice(0, kSize),
                           .remote = pair.server->at(0),
                           .id = 2,
                           .flags = SendFlags::kFence});
    EXPECT_THAT(WaitFor(pair.client->cq, 2), testing::ElementsAre(Succeeded(1), Succeeded(2)));
    ASSERT_THAT(pair.client->bytes(kSize, kSize), HasPattern(i));
    ASSERT_THAT(pair.server->bytes(0, kSize), HasPattern(1000 + i));
  }
}

TEST_P(Ordering, FencedSendCarriesWhatAReadBrought) {
  // A read into a buffer, then a fenced send of that buffer.
  // Expect: the peer receives what was read, not what the buffer held at the post.
  constexpr uint32_t kSize = 60000;
  Pair pair = MakePair(*this);
  Fill(pair.server->bytes(0, kSize), 1);
  PostReceive(pair.server->qp, {.local = pair.server->slice(kSize, kSize), .id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kRead,
                         .local = pair.client->slice(0, kSize),
                         .remote = pair.server->at(0),
                         .id = 2});
  Post(pair.client->qp, {.opcode = Opcode::kSend,
                         .local = pair.client->slice(0, kSize),
                         .id = 3,
                         .flags = SendFlags::kFence});
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(1));
  EXPECT_THAT(pair.server->bytes(kSize, kSize), HasPattern(1));
}

TEST_P(Ordering, SendBehindManyReadsCompletesInPostingOrder) {
  // 20 reads of 8 KiB, then a send.
  // Expect: completions in posting order though the send's acknowledgement may be there first.
  Pair pair = MakePair(*this);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = 99});
  for (uint32_t i = 0; i < 20; ++i) {
    Post(pair.client->qp, {.opcode = Opcode::kRead,
                           .local = pair.client->slice(8192 * i, 8192),
                           .remote = pair.server->at(0),
                           .id = i});
  }
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = 20});
  const std::vector<WorkCompletion> done = WaitFor(pair.client->cq, 21);
  for (uint32_t i = 0; i <= 20; ++i) EXPECT_THAT(done[i], Succeeded(i));
}

TEST_P(Ordering, HundredAndTwentyEightReadsInFlight) {
  // As many reads at once as the default depths allow.
  // Expect: all complete, in order, each with its own content.
  constexpr uint32_t kCount = 128, kSize = 1000;
  Pair pair = MakePair(*this);
  Fill(pair.server->bytes(0, kCount * kSize), 1);
  for (uint32_t i = 0; i < kCount; ++i) {
    Post(pair.client->qp, {.opcode = Opcode::kRead,
                           .local = pair.client->slice(i * kSize, kSize),
                           .remote = pair.server->at(i * kSize),
                           .id = i});
  }
  const std::vector<WorkCompletion> done = WaitFor(pair.client->cq, kCount);
  for (uint32_t i = 0; i < kCount; ++i) EXPECT_THAT(done[i], Succeeded(i));
  EXPECT_THAT(pair.client->bytes(0, kCount * kSize), HasPattern(1));
}

TEST_P(Ordering, ReadsBeyondTheDepthWait) {
  // ORD 1: one read may be in flight; 100 are posted with writes between them.
  // Expect: all complete in order; the depth limits how many run, not how many are posted.
  Pair pair = MakePair(*this, {.connect = {.initiator_depth = 1}});
  EXPECT_EQ(pair.client->qp.Query().initiator_depth, 1u);
  Fill(pair.server->bytes(0, 100 * 64), 1);
  for (uint32_t i = 0; i < 100; ++i) {
    Post(pair.client->qp, {.opcode = i % 10 == 9 ? Opcode::kWrite : Opcode::kRead,
                           .local = pair.client->slice(i * 64, 64),
                           .remote = pair.server->at(i % 10 == 9 ? 100000 : i * 64),
                           .id = i});
  }
  const std::vector<WorkCompletion> done = WaitFor(pair.client->cq, 100);
  for (uint32_t i = 0; i < 100; ++i) EXPECT_THAT(done[i], Succeeded(i));
  EXPECT_THAT(pair.client->bytes(0, 9 * 64), HasPattern(1));
}

}  // namespace
}  // namespace verbena::conformance
