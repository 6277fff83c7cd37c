// SPDX-License-Identifier: Apache-2.0
// Compare-and-swap and fetch-and-add: IBTA 9.4.5; RFC 7306 5.
#include <algorithm>
#include <atomic>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Field;

class Atomics : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    if (!client().devices()[0]->capabilities().atomics) GTEST_SKIP() << "capability: atomics";
  }
};
CONFORMANCE_RUN(Atomics);

SendWr FetchAdd(const End& from, uint64_t result, RemoteAddress to, uint64_t add, uint64_t id) {
  return {.opcode = Opcode::kFetchAdd,
          .local = from.slice(result, 8),
          .remote = to,
          .id = id,
          .atomic = {.compare_add = add}};
}

SendWr CompareSwap(const End& from, uint64_t result, RemoteAddress to, uint64_t compare,
                   uint64_t swap, uint64_t id) {
  return {.opcode = Opcode::kCompareSwap,
          .local = from.slice(result, 8),
          .remote = to,
          .id = id,
          .atomic = {.compare_add = compare, .swap = swap}};
}

TEST_P(Atomics, FetchAddReturnsTheFormerValue) {
  // Expect: old value here, sum there, in host byte order at both ends.
  Pair pair = MakePair(*this);
  pair.server->buffer.word(8) = 0x1122334455667788;
  Post(pair.client->qp, FetchAdd(*pair.client, 0, pair.server->at(8), 0x10, 1));
  const WorkCompletion done = WaitOne(pair.client->cq);
  EXPECT_THAT(done, AllOf(Succeeded(1), Field(&WorkCompletion::length, 8u)));
  EXPECT_EQ(done.opcode, WcOpcode::kFetchAdd);
  EXPECT_EQ(pair.client->buffer.word(0), 0x1122334455667788u);
  EXPECT_EQ(pair.server->buffer.word(8), 0x1122334455667798u);
}

TEST_P(Atomics, FetchAddWrapsAround) {
  // Expect: unsigned 64-bit arithmetic (IBTA 9.4.5).
  Pair pair = MakePair(*this);
  pair.server->buffer.word(0) = std::numeric_limits<uint64_t>::max();
  Post(pair.client->qp, FetchAdd(*pair.client, 0, pair.server->at(0), 3, 1));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_EQ(pair.client->buffer.word(0), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(pair.server->buffer.word(0), 2u);
}

TEST_P(Atomics, FetchAddOfZeroReads) {
  // Expect: the value, unchanged.
  Pair pair = MakePair(*this);
  pair.server->buffer.word(0) = 77;
  Post(pair.client->qp, FetchAdd(*pair.client, 0, pair.server->at(0), 0, 1));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_EQ(pair.client->buffer.word(0), 77u);
  EXPECT_EQ(pair.server->buffer.word(0), 77u);
}

TEST_P(Atomics, CompareSwapSwapsWhatItExpects) {
  // Expect: the former value here, the new one there.
  Pair pair = MakePair(*this);
  pair.server->buffer.word(0) = 5;
  Post(pair.client->qp, CompareSwap(*pair.client, 0, pair.server->at(0), 5, 9, 1));
  const WorkCompletion done = WaitOne(pair.client->cq);
  EXPECT_THAT(done, AllOf(Succeeded(1), Field(&WorkCompletion::length, 8u)));
  EXPECT_EQ(done.opcode, WcOpcode::kCompareSwap);
  EXPECT_EQ(pair.client->buffer.word(0), 5u);
  EXPECT_EQ(pair.server->buffer.word(0), 9u);
}

TEST_P(Atomics, CompareSwapLeavesWhatItDoesNot) {
  // Expect: success all the same, with the value that was found.
  Pair pair = MakePair(*this);
  pair.server->buffer.word(0) = 6;
  Post(pair.client->qp, CompareSwap(*pair.client, 0, pair.server->at(0), 5, 9, 1));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_EQ(pair.client->buffer.word(0), 6u);
  EXPECT_EQ(pair.server->buffer.word(0), 6u);
}

TEST_P(Atomics, TheyRunInPostingOrder) {
  // Write 10, add 1, swap 11 for 50, add 2, read: posted together, many times.
  // Expect: each sees what the one before left (IBTA 10.8.3.3).
  Pair pair = MakePair(*this);
  for (uint64_t round = 0; round < 20; ++round) {
    pair.client->buffer.word(0) = 10;
    const SendWr requests[] = {OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), 1),
                               FetchAdd(*pair.client, 8, pair.server->at(0), 1, 2),
                               CompareSwap(*pair.client, 16, pair.server->at(0), 11, 50, 3),
                               FetchAdd(*pair.client, 24, pair.server->at(0), 2, 4),
                               {.opcode = Opcode::kRead,
                                .local = pair.client->slice(32, 8),
                                .remote = pair.server->at(0),
                                .id = 5}};
    Check(pair.client->qp.PostSend(requests));
    EXPECT_THAT(WaitFor(pair.client->cq, 5),
                ElementsAre(Succeeded(1), Succeeded(2), Succeeded(3), Succeeded(4), Succeeded(5)));
    EXPECT_EQ(pair.client->buffer.word(8), 10u);
    EXPECT_EQ(pair.client->buffer.word(16), 11u);
    EXPECT_EQ(pair.client->buffer.word(24), 50u);
    EXPECT_EQ(pair.client->buffer.word(32), 52u);
  }
}

TEST_P(Atomics, TwoQueuePairsAddToOneWord) {
  // 500 additions from each of two connections, as many at once as the depth allows.
  // Expect: the sum, and every former value exactly once: no addition was lost or done twice.
  constexpr uint64_t kEach = 500;
  Pair pair = MakePair(*this, Both({.limits = {.max_send_wr = kEach}, .cq_entries = 4096}));
  QueuePair ours = pair.client->NewQueuePair(), theirs = pair.server->NewQueuePair();
  Connect(*this, ours, theirs);
  for (uint64_t i = 0; i < kEach; ++i) {
    Post(pair.client->qp, FetchAdd(*pair.client, 16 * i, pair.server->at(0), 1, i));
    Post(ours, FetchAdd(*pair.client, 16 * i + 8, pair.server->at(0), 1, i));
  }
  for (const WorkCompletion& wc : WaitFor(pair.client->cq, 2 * kEach)) ASSERT_TRUE(wc.ok());
  EXPECT_EQ(pair.server->buffer.word(0), 2 * kEach);
  std::vector<uint64_t> former(2 * kEach), expected(2 * kEach);
  for (uint64_t i = 0; i < 2 * kEach; ++i) former[i] = pair.client->buffer.word(8 * i);
  std::sort(former.begin(), former.end());
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(former, expected);
}

TEST_P(Atomics, AreAtomicAgainstTheTargetsProcessor) {
  // The target's own code adds to the word while a peer does.
  // Expect: no addition lost, where the device says that its atomics are global.
  if (!client().devices()[0]->capabilities().global_atomics) {
    GTEST_SKIP() << "capability: global_atomics";
  }
  Pair pair = MakePair(*this);
  std::atomic_ref<uint64_t> word(pair.server->buffer.word(0));
  constexpr uint64_t kRounds = 100;
  for (uint64_t i = 0; i < kRounds; ++i) {
    Post(pair.client->qp, FetchAdd(*pair.client, 0, pair.server->at(0), 1, i));
    for (int j = 0; j < 100; ++j) word.fetch_add(1);
    EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(i));
  }
  EXPECT_EQ(word.load(), kRounds * 101);
}

TEST_P(Atomics, MoreThanTheDepthWait) {
  // Depth 2; 100 additions with sends between.
  // Expect: all complete in order.
  Pair pair = MakePair(*this, {.connect = {.initiator_depth = 2}});
  for (uint64_t i = 0; i < 100; ++i) {
    Post(pair.client->qp, FetchAdd(*pair.client, 8 * i, pair.server->at(0), 1, i));
  }
  const std::vector<WorkCompletion> done = WaitFor(pair.client->cq, 100);
  for (uint64_t i = 0; i < 100; ++i) {
    EXPECT_THAT(done[i], Succeeded(i));
    EXPECT_EQ(pair.client->buffer.word(8 * i), i);
  }
}

TEST_P(Atomics, ResultMayBeScattered) {
  // The former value goes into entries of 3 and 5 bytes.
  // Expect: both get their part.
  Pair pair = MakePair(*this);
  pair.server->buffer.word(0) = 0x0807060504030201;
  const Sge parts[] = {pair.client->slice(0, 3), pair.client->slice(100, 5)};
  SendWr request = FetchAdd(*pair.client, 0, pair.server->at(0), 1, 1);
  request.local = SgeList(parts);
  Post(pair.client->qp, request);
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_EQ(pair.client->bytes(0, 1)[0], std::byte{1});
  EXPECT_EQ(pair.client->bytes(104, 1)[0], std::byte{8});
}

struct AtomicRow {
  std::string name;
  Opcode opcode;
  uint64_t value;
};

std::vector<AtomicRow> Rows(const char* what, std::vector<uint64_t> values) {
  std::vector<AtomicRow> rows;
  for (Opcode opcode : {Opcode::kCompareSwap, Opcode::kFetchAdd}) {
    for (uint64_t value : values) {
      rows.push_back({Name(opcode) + what + std::to_string(value), opcode, value});
    }
  }
  return rows;
}

CONFORMANCE_TABLE(AtomicAlignment, AtomicRow, Rows("At", {1, 2, 3, 4, 5, 6, 7}));

TEST_P(AtomicAlignment, MustBeNatural) {
  // A target address that is no multiple of 8.
  // Expect: REM_INV_REQ_ERR (IBTA 9.4.5), the target is told, nothing changes.
  if (!client().devices()[0]->capabilities().atomics) GTEST_SKIP() << "capability: atomics";
  Pair pair = MakePair(*this);
  Post(pair.client->qp, OneSided(row().opcode, *pair.client, pair.server->at(64 + row().value), 1));
  EXPECT_THAT(WaitOne(pair.client->cq), Completed(1, WcStatus::kRemoteInvalidRequest));
  const EventType told = server().devices()[0]->capabilities().responder_events
                             ? EventType::kQpRequestError
                             : EventType::kDisconnected;
  EXPECT_EQ(WaitForEvent(server(), told).context, pair.server.get());
  EXPECT_EQ(pair.server->qp.state(), QpState::kErr);
  EXPECT_THAT(pair.server->buffer.bytes(), IsZero());
}

CONFORMANCE_TABLE(AtomicSize, AtomicRow, Rows("Bytes", {0, 4, 7, 9, 16}));

TEST_P(AtomicSize, MustBeEight) {
  // A result entry that is not 8 bytes long.
  // Expect: the post is refused, or LOC_LEN_ERR (ibv_post_send(3)); nothing changes at the target.
  if (!client().devices()[0]->capabilities().atomics) GTEST_SKIP() << "capability: atomics";
  Pair pair = MakePair(*this);
  const PostResult result = pair.client->qp.PostSend(OneSided(
      row().opcode, *pair.client, pair.server->at(0), 1, static_cast<uint32_t>(row().value)));
  if (result.ok()) {
    EXPECT_THAT(WaitOne(pair.client->cq), Completed(1, WcStatus::kLocalLengthError));
  }
  EXPECT_THAT(pair.server->buffer.bytes(), IsZero());
}

}  // namespace
}  // namespace verbena::conformance
