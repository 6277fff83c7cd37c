// SPDX-License-Identifier: Apache-2.0
// Writes and reads: ibv_post_send(3), IBTA 9.4.3 and 9.4.4.
#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

using testing::AllOf;
using testing::Field;

CONFORMANCE_SUITE(OneSided);

TEST_P(OneSided, WriteIsSilentAtThePeer) {
  // A write while the peer has a receive posted.
  // Expect: the bytes are there when the writer's completion is; no completion at the peer and no
  // receive taken.
  Pair pair = MakePair(*this);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 100), .id = 1});
  Fill(pair.client->bytes(0, 1000), 1);
  Post(pair.client->qp, {.opcode = Opcode::kWrite,
                         .local = pair.client->slice(0, 1000),
                         .remote = pair.server->at(4096),
                         .id = 2});
  const WorkCompletion wrote = WaitOne(pair.client->cq);
  EXPECT_THAT(wrote, Succeeded(2));
  EXPECT_EQ(wrote.opcode, WcOpcode::kWrite);
  EXPECT_THAT(pair.server->bytes(4096, 1000), HasPattern(1));
  EXPECT_TRUE(StaysEmpty(pair.server->cq));
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 10), .id = 3});
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(1));
}

TEST_P(OneSided, ReadIsSilentAtThePeer) {
  // Expect: the peer's bytes at the reader, the completion's length, nothing at the peer.
  Pair pair = MakePair(*this);
  Fill(pair.server->bytes(8192, 1000), 1);
  Post(pair.client->qp, {.opcode = Opcode::kRead,
                         .local = pair.client->slice(0, 1000),
                         .remote = pair.server->at(8192),
                         .id = 2});
  const WorkCompletion read = WaitOne(pair.client->cq);
  EXPECT_THAT(read, AllOf(Succeeded(2), Field(&WorkCompletion::length, 1000u)));
  EXPECT_EQ(read.opcode, WcOpcode::kRead);
  EXPECT_THAT(pair.client->bytes(0, 1000), HasPattern(1));
  EXPECT_TRUE(StaysEmpty(pair.server->cq));
}

TEST_P(OneSided, TheAcceptingEndMayInitiateToo) {
  // Reads and writes from the end that accepted the connection.
  // Expect: the two ends are equals.
  Pair pair = MakePair(*this);
  Fill(pair.server->bytes(0, 5000), 1);
  Post(pair.server->qp, {.opcode = Opcode::kWrite,
                         .local = pair.server->slice(0, 5000),
                         .remote = pair.client->at(0),
                         .id = 1});
  Post(pair.server->qp, {.opcode = Opcode::kRead,
                         .local = pair.server->slice(8192, 5000),
                         .remote = pair.client->at(0),
                         .id = 2});
  EXPECT_THAT(WaitFor(pair.server->cq, 2), testing::ElementsAre(Succeeded(1), Succeeded(2)));
  EXPECT_THAT(pair.client->bytes(0, 5000), HasPattern(1));
  EXPECT_THAT(pair.server->bytes(8192, 5000), HasPattern(1));
}

TEST_P(OneSided, LargeReadsBothWaysAtOnce) {
  // Each end reads 4 MiB from the other in 16 reads.
  // Expect: both finish: read responses never wait for the local send queue.
  constexpr uint32_t kSize = 256 << 10, kCount = 16;
  Pair pair = MakePair(*this, Both({.memory = 2 * kSize}));
  Fill(pair.server->bytes(0, kSize), 1);
  Fill(pair.client->bytes(0, kSize), 2);
  for (uint32_t i = 0; i < kCount; ++i) {
    for (auto [from, to] : {std::pair(pair.server.get(), pair.client.get()),
                            std::pair(pair.client.get(), pair.server.get())}) {
      Post(to->qp, {.opcode = Opcode::kRead,
                    .local = to->slice(kSize, kSize),
                    .remote = from->at(0),
                    .id = i});
    }
  }
  for (End* end : {pair.server.get(), pair.client.get()}) {
    const std::vector<WorkCompletion> done = WaitFor(end->cq, kCount);
    for (uint32_t i = 0; i < kCount; ++i) EXPECT_THAT(done[i], Succeeded(i));
  }
  EXPECT_THAT(pair.client->bytes(kSize, kSize), HasPattern(1));
  EXPECT_THAT(pair.server->bytes(kSize, kSize), HasPattern(2));
}

TEST_P(OneSided, LastWordOfAWriteAppearsAtOnce) {
  // 500 writes of 520 bytes, one after another; the target polls their last word, an aligned one.
  // Expect: it has the former value or the new one, nothing between; with the new one, all before
  // it is there.
  constexpr uint32_t kSize = 520;
  constexpr uint64_t kEachByte = 0x0101010101010101;
  Pair pair = MakePair(*this);
  for (uint64_t round = 1; round <= 500; ++round) {
    const auto value = static_cast<std::byte>(1 + round % 255);
    std::ranges::fill(pair.client->bytes(0, kSize), value);
    std::atomic_ref last(pair.server->buffer.word(kSize - 8));
    const uint64_t former = last.load();
    uint64_t seen = former;
    Post(pair.client->qp, {.opcode = Opcode::kWrite,
                           .local = pair.client->slice(0, kSize),
                           .remote = pair.server->at(0),
                           .id = round});
    ASSERT_TRUE(Spin([&] {
      WorkCompletion none;
      EXPECT_EQ(pair.server->cq.Poll({&none, 1}), 0u);
      seen = last.load(std::memory_order_acquire);
      return seen != former;
    }));
    ASSERT_EQ(seen, std::to_integer<uint64_t>(value) * kEachByte);
    for (const std::byte b : pair.server->bytes(0, kSize)) ASSERT_EQ(b, value);
    ASSERT_THAT(WaitOne(pair.client->cq), Succeeded(round));
  }
}

TEST_P(OneSided, WriteWithImmTakesOneReceiveAndSaysTheLength) {
  // WriteWithImm of 3000 bytes; the peer has two receives with memory of their own.
  // Expect: the first receive completes with the immediate and the write's length; its own memory
  // stays untouched; the second stays posted.
  if (!client().devices()[0]->capabilities().immediate) GTEST_SKIP() << "capability: immediate";
  Pair pair = MakePair(*this);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 64), .id = 1});
  PostReceive(pair.server->qp, {.local = pair.server->slice(64, 64), .id = 2});
  Fill(pair.client->bytes(0, 3000), 1);
  Post(pair.client->qp, {.opcode = Opcode::kWriteWithImm,
                         .local = pair.client->slice(0, 3000),
                         .remote = pair.server->at(4096),
                         .id = 3,
                         .immediate = 0x01020304});
  const WorkCompletion received = WaitOne(pair.server->cq);
  EXPECT_THAT(received, AllOf(Succeeded(1), Field(&WorkCompletion::length, 3000u)));
  EXPECT_EQ(received.opcode, WcOpcode::kReceiveWriteWithImm);
  EXPECT_TRUE(received.has_immediate);
  EXPECT_EQ(received.immediate_or_key, 0x01020304u);
  EXPECT_THAT(pair.server->bytes(4096, 3000), HasPattern(1));
  EXPECT_THAT(pair.server->bytes(0, 128), IsZero());
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(3));
  EXPECT_TRUE(StaysEmpty(pair.server->cq));
}

TEST_P(OneSided, WriteWithImmNeedsNoMemoryInTheReceive) {
  // WriteWithImm of no bytes and of many frames, into receives without entries.
  // Expect: both complete with their lengths.
  if (!client().devices()[0]->capabilities().immediate) GTEST_SKIP() << "capability: immediate";
  Pair pair = MakePair(*this);
  PostReceive(pair.server->qp, {.id = 1});
  PostReceive(pair.server->qp, {.id = 2});
  Fill(pair.client->bytes(0, 200000), 1);
  Post(pair.client->qp, {.opcode = Opcode::kWriteWithImm, .id = 3, .immediate = 1});
  Post(pair.client->qp, {.opcode = Opcode::kWriteWithImm,
                         .local = pair.client->slice(0, 200000),
                         .remote = pair.server->at(0),
                         .id = 4,
                         .immediate = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), AllOf(Succeeded(1), Field(&WorkCompletion::length, 0u)));
  EXPECT_THAT(WaitOne(pair.server->cq),
              AllOf(Succeeded(2), Field(&WorkCompletion::length, 200000u)));
  EXPECT_THAT(pair.server->bytes(0, 200000), HasPattern(1));
}

TEST_P(OneSided, ReadNeedsNoRemoteAccessToItsSink) {
  // The reader's region has local write only (IBTA 9.4.4: a read names the sink by a local key).
  // Expect: success, and the sink stays out of the peer's reach.
  Pair pair = MakePair(*this, {.client = {.region_access = Access::kLocalWrite}});
  Fill(pair.server->bytes(0, 5000), 1);
  Post(pair.client->qp, {.opcode = Opcode::kRead,
                         .local = pair.client->slice(0, 5000),
                         .remote = pair.server->at(0),
                         .id = 1});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_THAT(pair.client->bytes(0, 5000), HasPattern(1));
  Post(pair.server->qp, {.opcode = Opcode::kWrite,
                         .local = pair.server->slice(0, 8),
                         .remote = pair.client->at(0),
                         .id = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), Completed(2, Refusal(WcStatus::kRemoteAccessError)));
}

}  // namespace
}  // namespace verbena::conformance
