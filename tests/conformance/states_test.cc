// SPDX-License-Identifier: Apache-2.0
// The queue pair's states: IBTA 10.3.1, ibv_modify_qp(3), ibv_post_send(3), ibv_post_recv(3).
#include <algorithm>
#include <vector>

#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

using testing::ElementsAre;

CONFORMANCE_SUITE(States);

TEST_P(States, NewQueuePairIsInInitWithAtLeastTheLimitsAskedFor) {
  // Expect: INIT, limits no smaller than the request, a number of its own.
  Pair pair;
  End end(*client().devices()[0], {.limits = {.max_send_wr = 10,
                                              .max_receive_wr = 20,
                                              .max_send_sge = 2,
                                              .max_receive_sge = 3,
                                              .max_inline = 100}});
  const QpAttributes attributes = end.qp.Query();
  EXPECT_EQ(attributes.state, QpState::kInit);
  EXPECT_GE(attributes.limits.max_send_wr, 10u);
  EXPECT_GE(attributes.limits.max_receive_wr, 20u);
  EXPECT_GE(attributes.limits.max_send_sge, 2u);
  EXPECT_GE(attributes.limits.max_receive_sge, 3u);
  EXPECT_GE(attributes.limits.max_inline, 100u);
  QueuePair other = end.NewQueuePair();
  EXPECT_NE(end.qp.number(), other.number());
}

TEST_P(States, ReceivesPostedInInitServeTheConnection) {
  // Receives are posted before connecting.
  // Expect: a message that the peer sends at once finds them.
  End server_end(*server().devices()[0], {}), client_end(*client().devices()[0], {});
  PostReceive(server_end.qp, {.local = server_end.slice(0, 100), .id = 1});
  Connect(*this, client_end.qp, server_end.qp);
  Post(client_end.qp, {.opcode = Opcode::kSend, .local = client_end.slice(0, 10), .id = 2});
  EXPECT_THAT(WaitOne(server_end.cq), Succeeded(1));
  EXPECT_THAT(WaitOne(client_end.cq), Succeeded(2));
}

TEST_P(States, ErrFlushesBothQueuesInOrder) {
  // Five sends that wait for receives, five receives, then ERR.
  // Expect: sends and receives flush, each queue in posting order; the cause is ours: OK.
  if (!client().devices()[0]->capabilities().rnr) GTEST_SKIP() << "capability: rnr";
  Pair pair = MakePair(*this, Both({.separate_receive_cq = true}));
  for (uint64_t i = 0; i < 5; ++i) {
    PostReceive(pair.client->qp, {.local = pair.client->slice(0, 8), .id = 10 + i});
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = i});
  }
  Check(pair.client->qp.Modify({.state = QpState::kErr}));
  EXPECT_THAT(WaitFor(pair.client->cq, 5),
              ElementsAre(Flushed(0), Flushed(1), Flushed(2), Flushed(3), Flushed(4)));
  EXPECT_THAT(WaitFor(pair.client->receive_cq, 5),
              ElementsAre(Flushed(10), Flushed(11), Flushed(12), Flushed(13), Flushed(14)));
  EXPECT_THAT(pair.client->qp.cause(), IsOk());
}

TEST_P(States, FlushCompletesUnsignalledRequestsToo) {
  // Unsignalled sends that wait, then ERR (IBTA 10.8: errors always complete).
  // Expect: a flush completion for each of them.
  if (!client().devices()[0]->capabilities().rnr) GTEST_SKIP() << "capability: rnr";
  Pair pair = MakePair(*this, Both({.signal = Signal::kSelective}));
  for (uint64_t i = 0; i < 3; ++i) {
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = i});
  }
  Check(pair.client->qp.Modify({.state = QpState::kErr}));
  EXPECT_THAT(WaitFor(pair.client->cq, 3), ElementsAre(Flushed(0), Flushed(1), Flushed(2)));
}

TEST_P(States, ErrAtOneEndReachesTheOther) {
  // The client goes to ERR while the server has work outstanding.
  // Expect: the server is told: ERR, kDisconnected, everything flushed.
  Pair pair = MakePair(*this);
  for (uint64_t i = 0; i < 3; ++i) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = i});
  }
  Check(pair.client->qp.Modify({.state = QpState::kErr}));
  EXPECT_THAT(WaitFor(pair.server->cq, 3), ElementsAre(Flushed(0), Flushed(1), Flushed(2)));
  EXPECT_EQ(pair.server->qp.state(), QpState::kErr);
  EXPECT_EQ(WaitForEvent(server(), EventType::kDisconnected).context, pair.server.get());
}

TEST_P(States, ResetForgetsWhatWasPosted) {
  // Sends that wait and receives, then RESET (IBTA 10.3.1.1: cleared without completions).
  // Expect: no completion; the peer loses the connection.
  Pair pair = MakePair(*this);
  PostReceive(pair.client->qp, {.local = pair.client->slice(0, 8), .id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = 2});
  Check(pair.client->qp.Modify({.state = QpState::kReset}));
  EXPECT_TRUE(StaysEmpty(pair.client->cq));
  EXPECT_EQ(pair.client->qp.Query().send_outstanding, 0u);
  WaitForEvent(server(), EventType::kDisconnected);
  EXPECT_EQ(pair.server->qp.state(), QpState::kErr);
}

TEST_P(States, ResetQueuePairConnectsAgain) {
  // Connect, fail, RESET, INIT, connect again: three times with the same queue pairs.
  // Expect: each connection works as the first; its completions carry the number of now.
  Pair pair = MakePair(*this);
  for (uint32_t round = 0; round < 3; ++round) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 1000), .id = 1});
    Fill(pair.client->bytes(0, 1000), round);
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 1000), .id = 2});
    Post(pair.client->qp, {.opcode = Opcode::kRead,
                           .local = pair.client->slice(2000, 1000),
                           .remote = pair.server->at(0),
                           .id = 3});
    const WorkCompletion received = WaitOne(pair.server->cq);
    EXPECT_THAT(received, Succeeded(1));
    EXPECT_EQ(received.qp_number, pair.server->qp.number());
    EXPECT_THAT(WaitFor(pair.client->cq, 2), ElementsAre(Succeeded(2), Succeeded(3)));
    EXPECT_THAT(pair.client->bytes(2000, 1000), HasPattern(round));
    Check(pair.client->qp.Disconnect());
    WaitForEvent(server(), EventType::kDisconnected);
    WaitForEvent(client(), EventType::kDisconnected);
    for (End* end : {pair.server.get(), pair.client.get()}) {
      Check(end->qp.Modify({.state = QpState::kReset}));
      Check(end->qp.Modify({.state = QpState::kInit}));
      EXPECT_THAT(end->qp.cause(), IsOk());
    }
    Connect(*this, pair.client->qp, pair.server->qp);
  }
}

TEST_P(States, SqdDrainsThenSaysSo) {
  // Sends of which the first has been refused for want of a receive, then SQD, then the receives.
  // Expect: draining while the one that has begun waits, kSendQueueDrained when it has completed
  // (IBTA 10.3.1.5); whatever had not begun runs after RTS.
  if (!client().devices()[0]->capabilities().rnr) GTEST_SKIP() << "capability: rnr";
  Pair pair = MakePair(*this, {.server_min_rnr_timer = 1});
  for (uint64_t i = 0; i < 3; ++i) {
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = i});
  }
  ASSERT_TRUE(RunUntil([&] { return pair.client->qp.counters().rnr_naks_received > 0; }));
  Check(pair.client->qp.Modify({.state = QpState::kSqd}));
  EXPECT_TRUE(pair.client->qp.Query().draining);
  for (uint64_t i = 0; i < 3; ++i) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = i});
  }
  const Event drained = WaitForEvent(client(), EventType::kSendQueueDrained);
  EXPECT_EQ(drained.context, pair.client.get());
  EXPECT_EQ(pair.client->qp.state(), QpState::kSqd);
  EXPECT_FALSE(pair.client->qp.Query().draining);
  Check(pair.client->qp.Modify({.state = QpState::kRts}));
  EXPECT_THAT(WaitFor(pair.client->cq, 3), ElementsAre(Succeeded(0), Succeeded(1), Succeeded(2)));
}

TEST_P(States, SqdOfAnIdleQueuePairDrainsAtOnce) {
  // Expect: kSendQueueDrained though nothing was outstanding.
  Pair pair = MakePair(*this);
  Check(pair.client->qp.Modify({.state = QpState::kSqd}));
  WaitForEvent(client(), EventType::kSendQueueDrained);
  EXPECT_FALSE(pair.client->qp.Query().draining);
}

TEST_P(States, DrainingAgainBeforeItWasSaidStrandsNothing) {
  // A full send queue, and SQD and RTS in quick turns: events of one drain come during the next.
  // Expect: no turn is refused, everything completes, and the last SQD is said to have drained.
  constexpr uint64_t kCount = 16;
  constexpr uint32_t kSize = 20000;
  Pair pair = MakePair(*this, Both({.limits = {.max_send_wr = kCount}}));
  const auto turn = [&](QpState to) { Check(pair.client->qp.Modify({.state = to})); };
  for (int round = 0; round < 50; ++round) {
    for (uint64_t i = 0; i < kCount; ++i) {
      Post(pair.client->qp, {.opcode = Opcode::kWrite,
                             .local = pair.client->slice(0, kSize),
                             .remote = pair.server->at(0),
                             .id = i});
    }
    for (int turns = round % 4; turns >= 0; --turns) {
      turn(QpState::kSqd);
      RunFor(absl::Microseconds(10 * (round % 7)));
      turn(QpState::kRts);
    }
    const std::vector<WorkCompletion> done = WaitFor(pair.client->cq, kCount);
    for (uint64_t i = 0; i < kCount; ++i) ASSERT_THAT(done[i], Succeeded(i));
  }
  turn(QpState::kSqd);
  EXPECT_TRUE(RunUntil([&] { return !pair.client->qp.Query().draining; }));
  WaitForEvent(client(), EventType::kSendQueueDrained);
}

TEST_P(States, ResetWhileDraining) {
  // Sends that wait for receives, SQD, and RESET before it has drained.
  // Expect: RESET is taken (IBTA 10.3.1.1), no completions, and it connects again.
  if (!client().devices()[0]->capabilities().rnr) GTEST_SKIP() << "capability: rnr";
  Pair pair = MakePair(*this);
  for (uint64_t i = 0; i < 3; ++i) {
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = i});
  }
  Check(pair.client->qp.Modify({.state = QpState::kSqd}));
  Check(pair.client->qp.Modify({.state = QpState::kReset}));
  EXPECT_TRUE(StaysEmpty(pair.client->cq));
  WaitForEvent(server(), EventType::kDisconnected);
  Check(pair.server->qp.Modify({.state = QpState::kReset}));
  for (End* end : {pair.server.get(), pair.client.get()}) {
    Check(end->qp.Modify({.state = QpState::kInit}));
  }
  Connect(*this, pair.client->qp, pair.server->qp);
  Post(pair.client->qp, {.opcode = Opcode::kWrite,
                         .local = pair.client->slice(0, 8),
                         .remote = pair.server->at(0),
                         .id = 5});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(5));
}

TEST_P(States, PostsInSqdRunAfterRts) {
  // Ten writes are posted in SQD.
  // Expect: none runs until RTS; then all, in order.
  Pair pair = MakePair(*this);
  Check(pair.client->qp.Modify({.state = QpState::kSqd}));
  pair.client->buffer.word(0) = 5;
  for (uint64_t i = 0; i < 10; ++i) {
    Post(pair.client->qp, {.opcode = Opcode::kWrite,
                           .local = pair.client->slice(0, 8),
                           .remote = pair.server->at(0),
                           .id = i});
  }
  EXPECT_TRUE(StaysEmpty(pair.client->cq));
  EXPECT_EQ(pair.server->buffer.word(0), 0u);
  Check(pair.client->qp.Modify({.state = QpState::kRts}));
  const std::vector<WorkCompletion> done = WaitFor(pair.client->cq, 10);
  for (uint64_t i = 0; i < 10; ++i) EXPECT_THAT(done[i], Succeeded(i));
  EXPECT_EQ(pair.server->buffer.word(0), 5u);
}

TEST_P(States, SqdStopsOnlyTheSendQueue) {
  // In SQD the peer sends, writes and reads.
  // Expect: all of it works: the responder side goes on (IBTA 10.3.1.5).
  Pair pair = MakePair(*this);
  Check(pair.client->qp.Modify({.state = QpState::kSqd}));
  PostReceive(pair.client->qp, {.local = pair.client->slice(0, 100), .id = 1});
  Fill(pair.server->bytes(0, 100), 1);
  Post(pair.server->qp, {.opcode = Opcode::kSend, .local = pair.server->slice(0, 100), .id = 2});
  Post(pair.server->qp, {.opcode = Opcode::kWrite,
                         .local = pair.server->slice(0, 100),
                         .remote = pair.client->at(4096),
                         .id = 3});
  Post(pair.server->qp, {.opcode = Opcode::kRead,
                         .local = pair.server->slice(4096, 100),
                         .remote = pair.client->at(4096),
                         .id = 4});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_THAT(WaitFor(pair.server->cq, 3), ElementsAre(Succeeded(2), Succeeded(3), Succeeded(4)));
  EXPECT_THAT(pair.client->bytes(4096, 100), HasPattern(1));
}

TEST_P(States, DisconnectEndsBothEnds) {
  // The client disconnects while both ends have work outstanding (rdma_disconnect(3)).
  // Expect: kDisconnected and ERR at both, everything flushed; nobody failed, so the causes are OK.
  Pair pair = MakePair(*this);
  for (End* end : {pair.client.get(), pair.server.get()}) {
    PostReceive(end->qp, {.local = end->slice(0, 8), .id = 1});
  }
  Check(pair.client->qp.Disconnect());
  for (End* end : {pair.client.get(), pair.server.get()}) {
    EXPECT_THAT(WaitOne(end->cq), Flushed(1));
    const Event event =
        WaitForEvent(end == pair.client.get() ? client() : server(), EventType::kDisconnected);
    EXPECT_EQ(event.context, end);
    EXPECT_EQ(event.qp_number, end->qp.number());
    EXPECT_EQ(end->qp.state(), QpState::kErr);
    EXPECT_THAT(end->qp.cause(), IsOk());
    EXPECT_THAT(end->qp.WaitUntilDisconnected(kLong), IsOk());
  }
}

TEST_P(States, DisconnectAfterSendLosesNothingThatCompleted) {
  // A large send, wait for its completion, disconnect at once.
  // Expect: the receiver has the message, then the flush: a completion means applied.
  constexpr uint32_t kSize = 200000;
  Pair pair = MakePair(*this);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, kSize), .id = 1});
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = 2});
  Fill(pair.client->bytes(0, kSize), 1);
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, kSize), .id = 3});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(3));
  Check(pair.client->qp.Disconnect());
  EXPECT_THAT(WaitFor(pair.server->cq, 2), ElementsAre(Succeeded(1), Flushed(2)));
  EXPECT_THAT(pair.server->bytes(0, kSize), HasPattern(1));
}

TEST_P(States, DisconnectAfterReceiveAcknowledgesIt) {
  // The receiver polls until a message is there and disconnects in the same breath.
  // Expect: the send succeeds: it was delivered, and no goodbye overtakes its acknowledgement.
  if (!client().devices()[0]->capabilities().refusal_reasons) {
    GTEST_SKIP() << "capability: refusal_reasons";
  }
  Pair pair = MakePair(*this);
  const auto exchange = [&](uint64_t id) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = id});
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = id});
    WorkCompletion received;
    EXPECT_TRUE(Spin([&] { return pair.server->cq.Poll({&received, 1}) == 1; }));
    EXPECT_THAT(received, Succeeded(id));
  };
  for (uint64_t id = 0; id < 20; ++id) {  // the receiver becomes one that polls
    exchange(id);
    EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(id));
  }
  exchange(20);
  Check(pair.server->qp.Disconnect());
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(20));
}

TEST_P(States, FlushedMemoryIsTheApplicationsAgain) {
  // Large writes are under way at a disconnect; the program takes the flushes for what they say and
  // puts something else where the writes came from.
  // Expect: nothing of that ever reaches the peer.
  constexpr uint32_t kSize = 1 << 20, kCount = 8;
  constexpr std::byte kSent{1}, kLater{2};
  Pair pair = MakePair(*this, Both({.memory = kSize}));
  std::ranges::fill(pair.client->buffer.bytes(), kSent);
  for (uint64_t i = 0; i < kCount; ++i) {
    Post(pair.client->qp, {.opcode = Opcode::kWrite,
                           .local = pair.client->slice(0, kSize),
                           .remote = pair.server->at(0),
                           .id = i});
  }
  Check(pair.client->qp.Disconnect());
  WaitFor(pair.client->cq, kCount);
  std::ranges::fill(pair.client->buffer.bytes(), kLater);
  WaitForEvent(server(), EventType::kDisconnected);
  EXPECT_EQ(std::ranges::count(pair.server->buffer.bytes(), kLater), 0);
}

TEST_P(States, DrainWaitsForSendsOnly) {
  // Drain with sends that wait for receives, with completed ones, and with receives outstanding.
  // Expect: DeadlineExceeded while they wait, OK when they are acknowledged; receives stay posted.
  if (!client().devices()[0]->capabilities().rnr) GTEST_SKIP() << "capability: rnr";
  Pair pair = MakePair(*this, {.server_min_rnr_timer = 1});
  PostReceive(pair.client->qp, {.local = pair.client->slice(0, 8), .id = 9});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = 1});
  EXPECT_THAT(pair.client->qp.Drain(kAWhile), StatusIs(absl::StatusCode::kDeadlineExceeded));
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = 1});
  EXPECT_THAT(pair.client->qp.Drain(kLong), IsOk());
  EXPECT_EQ(pair.client->qp.Query().send_outstanding, 0u);
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  Post(pair.server->qp, {.opcode = Opcode::kSend, .local = pair.server->slice(0, 8), .id = 2});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(9));
}

}  // namespace
}  // namespace verbena::conformance
