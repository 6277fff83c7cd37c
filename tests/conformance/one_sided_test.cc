// SPDX-License-Identifier: Apache-2.0
// Writes and reads: ibv_post_send(3), IBTA 9.4.3 and 9.4.4.
#include <atomic>
#include <cstring>
#include <vector>

#include "tests/conformance/pair.h"
#include "tests/conformance/sizes.h"

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

TEST_P(OneSided, WritesAreVisibleWhenALaterSendArrives) {
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

TEST_P(OneSided, LastOfManyWritesToOnePlaceWins) {
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

TEST_P(OneSided, ReadAfterWriteSeesIt) {
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

TEST_P(OneSided, FencedWriteDoesNotOvertakeARead) {
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

TEST_P(OneSided, FencedSendCarriesWhatAReadBrought) {
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

TEST_P(OneSided, SendBehindManyReadsCompletesInPostingOrder) {
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

TEST_P(OneSided, HundredAndTwentyEightReadsInFlight) {
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

TEST_P(OneSided, ReadsBeyondTheDepthWait) {
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
  EXPECT_THAT(WaitOne(pair.server->cq), Completed(2, WcStatus::kRemoteAccessError));
}

CONFORMANCE_TABLE(OneSidedSizes, SizeRow, MessageSizes());

TEST_P(OneSidedSizes, WriteAndReadBack) {
  // Every size on the table, between unaligned places.
  // Expect: the content there and back; the bytes around it untouched.
  const uint32_t size = row().bytes;
  Pair pair = MakePair(*this, Both({.memory = 2 * size + 16384}));
  Fill(pair.client->bytes(3, size), size);
  Post(pair.client->qp, {.opcode = Opcode::kWrite,
                         .local = pair.client->slice(3, size),
                         .remote = pair.server->at(4097),
                         .id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kRead,
                         .local = pair.client->slice(8192 + size, size),
                         .remote = pair.server->at(4097),
                         .id = 2});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_THAT(WaitOne(pair.client->cq), AllOf(Succeeded(2), Field(&WorkCompletion::length, size)));
  EXPECT_THAT(pair.server->bytes(4097, size), HasPattern(size));
  EXPECT_THAT(pair.server->bytes(0, 4097), IsZero());
  EXPECT_THAT(pair.server->bytes(4097 + size, 4096), IsZero());
  EXPECT_THAT(pair.client->bytes(8192 + size, size), HasPattern(size));
  EXPECT_THAT(pair.client->bytes(8192 + 2 * size, 4096), IsZero());
}

TEST_P(OneSidedSizes, LastByteOfAWriteComesLast) {
  // The target polls the last byte of the write while it arrives, as many programs do.
  // Expect: once that byte changes, everything before it is there.
  const uint32_t size = row().bytes;
  if (size == 0) GTEST_SKIP() << "nothing to poll";
  Pair pair = MakePair(*this, Both({.memory = size + 4096}));
  Fill(pair.client->bytes(0, size), size);
  pair.client->buffer.data()[size - 1] = std::byte{0xff};
  Post(pair.client->qp, {.opcode = Opcode::kWrite,
                         .local = pair.client->slice(0, size),
                         .remote = pair.server->at(0),
                         .id = 1});
  const auto last_byte = [&] {
    const End& target = *pair.server;
    if (size % 8 == 0) {  // as a program would that waits for a word
      return std::atomic_ref(target.buffer.word(size - 8)).load(std::memory_order_acquire) >> 56;
    }
    std::atomic_ref last(target.buffer.data()[size - 1]);
    return std::to_integer<uint64_t>(last.load(std::memory_order_acquire));
  };
  ASSERT_TRUE(RunUntil([&] { return last_byte() == 0xff; }));
  EXPECT_EQ(std::memcmp(pair.server->buffer.data(), pair.client->buffer.data(), size), 0);
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
}

CONFORMANCE_TABLE(WriteInline, SizeRow, InlineSizes());

TEST_P(WriteInline, DataIsCopiedAtPost) {
  // Inline writes from unregistered memory that is overwritten right after the post.
  // Expect: what was there at the post.
  const uint32_t size = row().bytes;
  Pair pair = MakePair(*this);
  std::vector<std::byte> data(size + 1);
  Fill(std::span(data).first(size), size);
  Post(pair.client->qp, {.opcode = Opcode::kWrite,
                         .local = Sge{reinterpret_cast<uint64_t>(data.data()), size, 0},
                         .remote = pair.server->at(5),
                         .id = 1,
                         .flags = SendFlags::kInline});
  std::fill(data.begin(), data.end(), std::byte{0xee});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_THAT(pair.server->bytes(5, size), HasPattern(size));
  EXPECT_THAT(pair.server->bytes(5 + size, 100), IsZero());
}

CONFORMANCE_TABLE(OneSidedEntries, SizeRow, EntryCounts());

TEST_P(OneSidedEntries, GatheredByWritesScatteredByReads) {
  // A write gathers N odd pieces, a read scatters the result into N others.
  // Expect: the bytes in the order of the lists.
  const uint32_t count = row().bytes;
  if (client().devices()[0]->attributes().max_sge < count) GTEST_SKIP() << "limit: max_sge";
  Pair pair = MakePair(*this, Both({.limits = {.max_send_sge = 16, .max_receive_sge = 16}}));
  std::vector<Sge> gather, scatter;
  std::vector<std::byte> message;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t length = 1 + i * 577 % 1999;
    Fill(pair.client->bytes(i * 4096 + i, length), i);
    gather.push_back(pair.client->slice(i * 4096 + i, length));
    const auto piece = pair.client->bytes(i * 4096 + i, length);
    message.insert(message.end(), piece.begin(), piece.end());
  }
  for (uint32_t i = 0; i < count; ++i) {  // the same lengths, in the opposite order
    scatter.push_back(pair.client->slice(131072 + i * 4096 + i, gather[count - 1 - i].length));
  }
  const uint32_t total = static_cast<uint32_t>(message.size());
  Post(pair.client->qp,
       {.opcode = Opcode::kWrite, .local = SgeList(gather), .remote = pair.server->at(1), .id = 1});
  Post(pair.client->qp,
       {.opcode = Opcode::kRead, .local = SgeList(scatter), .remote = pair.server->at(1), .id = 2});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_THAT(WaitOne(pair.client->cq), AllOf(Succeeded(2), Field(&WorkCompletion::length, total)));
  EXPECT_EQ(std::memcmp(pair.server->buffer.data() + 1, message.data(), total), 0);
  std::vector<std::byte> back;
  for (const Sge& entry : scatter) {
    const auto piece =
        pair.client->bytes(entry.address - pair.client->region.address(), entry.length);
    back.insert(back.end(), piece.begin(), piece.end());
  }
  EXPECT_EQ(back, message);
}

}  // namespace
}  // namespace verbena::conformance
