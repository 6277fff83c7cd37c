// SPDX-License-Identifier: Apache-2.0
// Every operation at every size on the tables of sizes.h: whole messages, inline data, lists of
// entries.
#include "tests/conformance/sizes.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

using testing::AllOf;
using testing::Field;

CONFORMANCE_TABLE(SendSizes, SizeRow, MessageSizes());

TEST_P(SendSizes, ArrivesWhole) {
  // A message of every size on the table, into a receive of exactly that size.
  // Expect: its length and content; the bytes around it untouched.
  const uint32_t size = row().bytes;
  if (size > client().devices()[0]->attributes().max_message) GTEST_SKIP() << "limit: max_message";
  Pair pair = MakePair(*this, Both({.memory = size + 8192}));
  Fill(pair.client->bytes(0, size), size);
  PostReceive(pair.server->qp, {.local = pair.server->slice(4096, size), .id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, size), .id = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), AllOf(Succeeded(1), Field(&WorkCompletion::length, size)));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(2));
  EXPECT_THAT(pair.server->bytes(4096, size), HasPattern(size));
  EXPECT_THAT(pair.server->bytes(0, 4096), IsZero());
  EXPECT_THAT(pair.server->bytes(4096 + size, 4096), IsZero());
}

CONFORMANCE_TABLE(SendInline, SizeRow, InlineSizes());

TEST_P(SendInline, DataIsCopiedAtPost) {
  // Inline data from memory that is not registered and is overwritten right after the post.
  // Expect: the receiver sees what was there at the post, even when it posts its receive later.
  const uint32_t size = row().bytes;
  if (!client().devices()[0]->capabilities().rnr) GTEST_SKIP() << "capability: rnr";
  Pair pair = MakePair(*this, {.server_min_rnr_timer = 1});
  ASSERT_GE(pair.client->qp.Query().limits.max_inline, size);
  std::vector<std::byte> data(size + 1);
  Fill(std::span(data).first(size), size);
  Post(pair.client->qp, {.opcode = Opcode::kSend,
                         .local = Sge{reinterpret_cast<uint64_t>(data.data()), size, 0},
                         .id = 1,
                         .flags = SendFlags::kInline});
  std::fill(data.begin(), data.end(), std::byte{0xee});
  RunFor(absl::Milliseconds(2));
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 4096), .id = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), AllOf(Succeeded(2), Field(&WorkCompletion::length, size)));
  EXPECT_THAT(pair.server->bytes(0, size), HasPattern(size));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
}

CONFORMANCE_TABLE(SendEntries, SizeRow, EntryCounts());

TEST_P(SendEntries, GatheredAndScattered) {
  // A message in N odd pieces into a receive of N other odd pieces, all backwards in memory.
  // Expect: the bytes in the order of the lists.
  const uint32_t count = row().bytes;
  if (client().devices()[0]->attributes().max_sge < count) GTEST_SKIP() << "limit: max_sge";
  const uint32_t most = std::min(16u, client().devices()[0]->attributes().max_sge);
  Pair pair = MakePair(*this, Both({.limits = {.max_send_sge = most, .max_receive_sge = most}}));
  std::vector<std::byte> message;
  std::vector<Sge> gather, scatter;
  uint32_t total = 0;
  for (uint32_t i = 0; i < count; ++i) total += 1 + i * 731 % 1999;
  message.resize(total);
  Fill(message, count);
  for (uint32_t i = 0, done = 0; i < count; ++i) {
    const uint32_t length = 1 + i * 731 % 1999;
    gather.push_back(pair.client->slice((count - i) * 4096 + i, length));
    std::copy_n(message.begin() + done, length,
                pair.client->bytes((count - i) * 4096 + i, length).begin());
    done += length;
  }
  for (uint32_t i = 0, done = 0; i < count; ++i) {
    const uint32_t length = i + 1 < count ? total / count + i % 2 : total - done;
    scatter.push_back(pair.server->slice((count - i) * 8192 + i, length));
    done += length;
  }
  PostReceive(pair.server->qp, {.local = SgeList(scatter), .id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = SgeList(gather), .id = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), AllOf(Succeeded(1), Field(&WorkCompletion::length, total)));
  std::vector<std::byte> arrived;
  for (const Sge& entry : scatter) {
    const auto piece =
        pair.server->bytes(entry.address - pair.server->region.address(), entry.length);
    arrived.insert(arrived.end(), piece.begin(), piece.end());
  }
  EXPECT_THAT(arrived, HasPattern(count));
}

CONFORMANCE_TABLE(OneSidedSizes, SizeRow, MessageSizes());

TEST_P(OneSidedSizes, WriteAndReadBack) {
  // Every size on the table, between unaligned places.
  // Expect: the content there and back; the bytes around it untouched.
  const uint32_t size = row().bytes;
  if (size > client().devices()[0]->attributes().max_message) GTEST_SKIP() << "limit: max_message";
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
  if (size > client().devices()[0]->attributes().max_message) GTEST_SKIP() << "limit: max_message";
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
  const uint32_t most = std::min(16u, client().devices()[0]->attributes().max_sge);
  Pair pair = MakePair(*this, Both({.limits = {.max_send_sge = most, .max_receive_sge = most}}));
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
