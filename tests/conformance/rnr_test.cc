// SPDX-License-Identifier: Apache-2.0
// Receiver not ready: IBTA 9.7.5.2.8, ibv_modify_qp(3) min_rnr_timer and rnr_retry.
#include <vector>

#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

using testing::ElementsAre;

class Rnr : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    if (!client().devices()[0]->capabilities().rnr) GTEST_SKIP() << "capability: rnr";
  }

  // Until the client has been refused at least once. (The kernel reads a device's counters anew
  // every 10 ms only: /sys/class/infiniband/*/ports/*/hw_counters/lifespan.)
  void WaitForNak(Pair& pair) {
    ASSERT_TRUE(RunUntil([&] { return pair.client->qp.counters().rnr_naks_received > 0; }));
  }
};
CONFORMANCE_RUN(Rnr);

constexpr uint8_t kShort = 1;    // 0.01 ms
constexpr uint8_t kLongest = 0;  // 655.36 ms

SendWr Message(const End& from, uint64_t id, uint32_t length = 100) {
  return {.opcode = Opcode::kSend, .local = from.slice(0, length), .id = id};
}

TEST_P(Rnr, SendWaitsForAReceive) {
  // A send meets no receive; one is posted later.
  // Expect: nothing fails meanwhile; then both complete with the right content.
  Pair pair = MakePair(*this, {.server_min_rnr_timer = kShort});
  Fill(pair.client->bytes(0, 100), 1);
  Post(pair.client->qp, Message(*pair.client, 1));
  WaitForNak(pair);
  EXPECT_TRUE(StaysEmpty(pair.client->cq));
  EXPECT_EQ(pair.client->qp.state(), QpState::kRts);
  EXPECT_EQ(pair.server->qp.state(), QpState::kRts);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 100), .id = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(2));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_THAT(pair.server->bytes(0, 100), HasPattern(1));
}

TEST_P(Rnr, LargeSendWaitsForAReceive) {
  // The same with a message of many frames: it is refused at its first.
  constexpr uint32_t kSize = 200000;
  Pair pair = MakePair(*this, {.server_min_rnr_timer = kShort});
  Fill(pair.client->bytes(0, kSize), 1);
  Post(pair.client->qp, Message(*pair.client, 1, kSize));
  WaitForNak(pair);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, kSize), .id = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(2));
  EXPECT_THAT(pair.server->bytes(0, kSize), HasPattern(1));
}

TEST_P(Rnr, RetriesAreCounted) {
  // rnr_retry 2 and no receive, with more requests queued behind.
  // Expect: refused three times, then RNR_RETRY_EXC_ERR, the rest flushed, ERR.
  Pair pair = MakePair(*this, {.connect = {.rnr_retry = 2}, .server_min_rnr_timer = kShort});
  PostReceive(pair.client->qp, {.local = pair.client->slice(4096, 8), .id = 9});
  Post(pair.client->qp, Message(*pair.client, 1));
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), 2));
  std::vector<WorkCompletion> done = WaitFor(pair.client->cq, 3);
  EXPECT_THAT(done[0], Completed(1, WcStatus::kRnrRetryExceeded));
  EXPECT_THAT((std::vector{done[1], done[2]}),
              testing::UnorderedElementsAre(Flushed(2), Flushed(9)));
  EXPECT_TRUE(RunUntil([&] { return pair.client->qp.counters().rnr_naks_received >= 3; }));
  EXPECT_EQ(pair.client->qp.counters().rnr_naks_received, 3u);
  EXPECT_EQ(pair.server->qp.counters().rnr_naks_sent, 3u);
  EXPECT_EQ(pair.client->qp.state(), QpState::kErr);
  EXPECT_THAT(pair.server->buffer.bytes(), IsZero());
}

TEST_P(Rnr, NoRetryAtAll) {
  // rnr_retry 0.
  // Expect: the first refusal is final.
  Pair pair = MakePair(*this, {.connect = {.rnr_retry = 0}});
  Post(pair.client->qp, Message(*pair.client, 1));
  EXPECT_THAT(WaitOne(pair.client->cq), Completed(1, WcStatus::kRnrRetryExceeded));
  EXPECT_TRUE(RunUntil([&] { return pair.client->qp.counters().rnr_naks_received > 0; }));
  EXPECT_EQ(pair.client->qp.counters().rnr_naks_received, 1u);
}

TEST_P(Rnr, SevenMeansForEver) {
  // rnr_retry 7 and more than 7 refusals.
  // Expect: still waiting; a receive ends it well.
  Pair pair = MakePair(*this, {.connect = {.rnr_retry = 7}, .server_min_rnr_timer = kShort});
  Post(pair.client->qp, Message(*pair.client, 1));
  ASSERT_TRUE(RunUntil([&] { return pair.client->qp.counters().rnr_naks_received > 20; }));
  EXPECT_EQ(pair.client->qp.state(), QpState::kRts);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 100), .id = 2});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
}

TEST_P(Rnr, ProgressRenewsTheRetries) {
  // rnr_retry 1; each of 5 messages is refused once or twice before its receive comes.
  // Expect: the count starts anew with each acknowledged request (IBTA 9.7.5.2.8).
  Pair pair = MakePair(*this, {.connect = {.rnr_retry = 1}, .server_min_rnr_timer = 26});
  for (uint64_t i = 0; i < 5; ++i) {
    const uint64_t before = pair.client->qp.counters().rnr_naks_received;
    Post(pair.client->qp, Message(*pair.client, i));
    ASSERT_TRUE(RunUntil([&] { return pair.client->qp.counters().rnr_naks_received > before; }));
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 100), .id = i});
    ASSERT_THAT(WaitOne(pair.client->cq), Succeeded(i));
  }
}

TEST_P(Rnr, ReceiveMayCutTheTimerShort) {
  // The longest timer, and a receive right after the refusal.
  // Expect: the message arrives; it need not wait for the whole 655 ms, but may.
  Pair pair = MakePair(*this, {.server_min_rnr_timer = kLongest});
  Post(pair.client->qp, Message(*pair.client, 1));
  WaitForNak(pair);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 100), .id = 2});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(2));
}

TEST_P(Rnr, OtherDirectionGoesOn) {
  // While the client's send waits, the server sends, writes and reads.
  // Expect: all of it completes: the responder side of a refused connection never stops.
  Pair pair = MakePair(*this, {.server_min_rnr_timer = kLongest});
  Post(pair.client->qp, Message(*pair.client, 1));
  WaitForNak(pair);
  PostReceive(pair.client->qp, {.local = pair.client->slice(4096, 100), .id = 2});
  Fill(pair.server->bytes(0, 100), 7);
  const SendWr requests[] = {Message(*pair.server, 3),
                             {.opcode = Opcode::kWrite,
                              .local = pair.server->slice(0, 100),
                              .remote = pair.client->at(8192),
                              .id = 4},
                             {.opcode = Opcode::kRead,
                              .local = pair.server->slice(1000, 100),
                              .remote = pair.client->at(8192),
                              .id = 5}};
  Check(pair.server->qp.PostSend(requests));
  EXPECT_THAT(WaitFor(pair.server->cq, 3), ElementsAre(Succeeded(3), Succeeded(4), Succeeded(5)));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(2));
  EXPECT_THAT(pair.client->bytes(4096, 100), HasPattern(7));
  EXPECT_THAT(pair.server->bytes(1000, 100), HasPattern(7));
}

TEST_P(Rnr, BothDirectionsRefusedAtOnce) {
  // Both ends send to each other without receives, then both post them.
  // Expect: both messages arrive.
  Pair pair = MakePair(*this, {.server_min_rnr_timer = kShort});
  Check(pair.client->qp.Modify({.min_rnr_timer = kShort}));
  End* ends[] = {pair.client.get(), pair.server.get()};
  for (End* end : ends) Post(end->qp, Message(*end, 1));
  for (End* end : ends) {
    ASSERT_TRUE(RunUntil([&] { return end->qp.counters().rnr_naks_received > 0; }));
  }
  for (End* end : ends) PostReceive(end->qp, {.local = end->slice(4096, 100), .id = 2});
  for (End* end : ends) {
    EXPECT_THAT(WaitFor(end->cq, 2), testing::UnorderedElementsAre(Succeeded(1), Succeeded(2)));
  }
}

TEST_P(Rnr, NothingOvertakesTheRefusedSend) {
  // A refused send with a write, an atomic and a read behind it, all on the wire already.
  // Expect: none of them is applied before the send is (IBTA 9.5: in order); then all, in order.
  if (!client().devices()[0]->capabilities().atomics) GTEST_SKIP() << "capability: atomics";
  Pair pair = MakePair(*this, {.server_min_rnr_timer = kShort});
  Fill(pair.client->bytes(0, 100), 1);
  SendWr add = OneSided(Opcode::kFetchAdd, *pair.client, pair.server->at(512), 3);
  add.local = pair.client->slice(1024, 8);
  SendWr read = OneSided(Opcode::kRead, *pair.client, pair.server->at(512), 4);
  read.local = pair.client->slice(2048, 8);
  const SendWr requests[] = {Message(*pair.client, 1),
                             OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), 2), add,
                             read, Message(*pair.client, 5)};
  Check(pair.client->qp.PostSend(requests));
  WaitForNak(pair);
  RunFor(kAWhile);
  EXPECT_THAT(pair.server->buffer.bytes(), IsZero());
  EXPECT_TRUE(StaysEmpty(pair.client->cq));
  PostReceive(pair.server->qp, {.local = pair.server->slice(4096, 100), .id = 6});
  PostReceive(pair.server->qp, {.local = pair.server->slice(8192, 100), .id = 7});
  EXPECT_THAT(WaitFor(pair.client->cq, 5),
              ElementsAre(Succeeded(1), Succeeded(2), Succeeded(3), Succeeded(4), Succeeded(5)));
  EXPECT_THAT(WaitFor(pair.server->cq, 2), ElementsAre(Succeeded(6), Succeeded(7)));
  EXPECT_THAT(pair.server->bytes(0, 8), HasPattern(1));
  EXPECT_EQ(pair.server->buffer.word(512), 5u);  // added once
  EXPECT_EQ(pair.client->buffer.word(2048), 5u);
}

TEST_P(Rnr, EarlierReadsStillAnswer) {
  // Reads, then a send that is refused.
  // Expect: the reads complete while the send waits.
  Pair pair = MakePair(*this, {.server_min_rnr_timer = kLongest});
  Fill(pair.server->bytes(0, 100000), 1);
  for (uint64_t i = 0; i < 4; ++i) {
    Post(pair.client->qp, {.opcode = Opcode::kRead,
                           .local = pair.client->slice(0, 100000),
                           .remote = pair.server->at(0),
                           .id = i});
  }
  Post(pair.client->qp, Message(*pair.client, 9));
  EXPECT_THAT(WaitFor(pair.client->cq, 4),
              ElementsAre(Succeeded(0), Succeeded(1), Succeeded(2), Succeeded(3)));
  EXPECT_TRUE(StaysEmpty(pair.client->cq));
  EXPECT_THAT(pair.client->bytes(0, 100000), HasPattern(1));
}

TEST_P(Rnr, FencedReadIsSentAgain) {
  // A send that is refused, and behind it a read with a fence, which has to be sent again with it.
  // Expect: when a receive is there both complete: no request waits for itself.
  Pair pair = MakePair(*this, {.server_min_rnr_timer = kShort});
  SendWr read = OneSided(Opcode::kRead, *pair.client, pair.server->at(0), 2);
  read.flags = SendFlags::kFence;
  Check(pair.client->qp.PostSend(std::vector<SendWr>{Message(*pair.client, 1), read}));
  WaitForNak(pair);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 100), .id = 3});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(2));
}

TEST_P(Rnr, WriteWithImmWaitsForAReceive) {
  // WriteWithImm without a receive at the peer, then with one.
  // Expect: it waits; then the immediate arrives once and the data are there.
  if (!client().devices()[0]->capabilities().immediate) GTEST_SKIP() << "capability: immediate";
  Pair pair = MakePair(*this, {.server_min_rnr_timer = kShort});
  Fill(pair.client->bytes(0, 100000), 1);
  Post(pair.client->qp, {.opcode = Opcode::kWriteWithImm,
                         .local = pair.client->slice(0, 100000),
                         .remote = pair.server->at(0),
                         .id = 1,
                         .immediate = 3});
  WaitForNak(pair);
  EXPECT_TRUE(StaysEmpty(pair.client->cq));
  PostReceive(pair.server->qp, {.id = 2});
  const WorkCompletion received = WaitOne(pair.server->cq);
  EXPECT_THAT(received, Succeeded(2));
  EXPECT_EQ(received.length, 100000u);
  EXPECT_EQ(received.immediate_or_key, 3u);
  EXPECT_THAT(pair.server->bytes(0, 100000), HasPattern(1));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
}

TEST_P(Rnr, InlineDataIsKept) {
  // A refused inline send whose source is overwritten meanwhile.
  // Expect: what was there at the post arrives.
  Pair pair = MakePair(*this, {.server_min_rnr_timer = kShort});
  Fill(pair.client->bytes(0, 100), 1);
  SendWr message = Message(*pair.client, 1);
  message.flags = SendFlags::kInline;
  Post(pair.client->qp, message);
  WaitForNak(pair);
  Fill(pair.client->bytes(0, 100), 2);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 100), .id = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(2));
  EXPECT_THAT(pair.server->bytes(0, 100), HasPattern(1));
}

TEST_P(Rnr, OneReceiveForOneMessage) {
  // 50 sends at once; receives are posted one by one, each when the one before has been used.
  // Expect: one message per receive, in order, none lost and none twice.
  Pair pair = MakePair(*this, {.server_min_rnr_timer = kShort});
  for (uint64_t i = 0; i < 50; ++i) {
    pair.client->buffer.word(8 * i) = i;
    Post(pair.client->qp,
         {.opcode = Opcode::kSend, .local = pair.client->slice(8 * i, 8), .id = i});
  }
  for (uint64_t i = 0; i < 50; ++i) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = 100 + i});
    ASSERT_THAT(WaitOne(pair.server->cq), Succeeded(100 + i));
    ASSERT_EQ(pair.server->buffer.word(0), i);
  }
  WaitFor(pair.client->cq, 50);
  EXPECT_TRUE(StaysEmpty(pair.server->cq));
}

TEST_P(Rnr, ErrorWhileWaitingFlushes) {
  // The client goes to ERR, or the server disconnects, while a send waits.
  // Expect: the send is flushed, not RNR_RETRY_EXC_ERR.
  for (bool ours : {true, false}) {
    Pair pair = MakePair(*this, {.server_min_rnr_timer = kLongest});
    Post(pair.client->qp, Message(*pair.client, 1));
    WaitForNak(pair);
    Check(ours ? pair.client->qp.Modify({.state = QpState::kErr}) : pair.server->qp.Disconnect());
    EXPECT_THAT(WaitOne(pair.client->cq), Flushed(1));
  }
}

TEST_P(Rnr, SharedQueueThatIsEmptyRefusesToo) {
  // The server takes its receives from a shared queue, which is empty.
  // Expect: as without: the sender waits; a receive posted to the shared queue ends it.
  Pair pair = MakePair(
      *this, {.server = {.shared_receive_queue = SrqLimits{}}, .server_min_rnr_timer = kShort});
  Fill(pair.client->bytes(0, 100), 1);
  Post(pair.client->qp, Message(*pair.client, 1));
  WaitForNak(pair);
  if (server().devices()[0]->capabilities().peer_counters) {
    EXPECT_GE(pair.server->srq.counters().empty, 1u);
  }
  Check(pair.server->srq.PostReceive({.local = pair.server->slice(0, 100), .id = 2}));
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(2));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_THAT(pair.server->bytes(0, 100), HasPattern(1));
}

TEST_P(Rnr, SharedQueueWakesEveryQueuePairThatWaits) {
  // Two connections wait on one empty shared queue with the longest timer; two receives come.
  // Expect: both messages arrive.
  Pair pair = MakePair(
      *this, {.server = {.shared_receive_queue = SrqLimits{}}, .server_min_rnr_timer = kLongest});
  QueuePair ours = pair.client->NewQueuePair(), theirs = pair.server->NewQueuePair();
  Connect(*this, ours, theirs);
  Check(theirs.Modify({.min_rnr_timer = kLongest}));
  Post(pair.client->qp, Message(*pair.client, 1));
  Post(ours, Message(*pair.client, 2));
  WaitForNak(pair);
  ASSERT_TRUE(RunUntil([&] { return ours.counters().rnr_naks_received > 0; }));
  for (uint64_t i = 0; i < 2; ++i) {
    Check(pair.server->srq.PostReceive({.local = pair.server->slice(100 * i, 100), .id = 5 + i}));
  }
  EXPECT_THAT(WaitFor(pair.server->cq, 2),
              testing::UnorderedElementsAre(Succeeded(5), Succeeded(6)));
  EXPECT_THAT(WaitFor(pair.client->cq, 2),
              testing::UnorderedElementsAre(Succeeded(1), Succeeded(2)));
}

}  // namespace
}  // namespace verbena::conformance
