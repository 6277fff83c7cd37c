// SPDX-License-Identifier: Apache-2.0
// What objects count, for those who look after a running program: transport/counters.h.
#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

CONFORMANCE_SUITE(Counters);

TEST_P(Counters, OfAQueuePair) {
  // One of each: send, write, read, atomic, a refused send, receives.
  // Expect: every counter that these concern has moved at its end.
  Pair pair = MakePair(*this, {.server_min_rnr_timer = 1});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = 1});
  ASSERT_TRUE(RunUntil([&] { return pair.client->qp.counters().rnr_naks_received > 0; }));
  PostReceive(pair.server->qp, {.local = pair.server->slice(64, 8), .id = 2});
  for (Opcode opcode : kOneSided) {
    Post(pair.client->qp, OneSided(opcode, *pair.client, pair.server->at(0), 3));
  }
  WaitFor(pair.client->cq, 5);
  WaitOne(pair.server->cq);
  const QpCounters ours = pair.client->qp.counters(), theirs = pair.server->qp.counters();
  EXPECT_EQ(ours.sends_posted, 5u);
  EXPECT_EQ(ours.send_completions, 5u);
  EXPECT_EQ(theirs.receives_posted, 1u);
  EXPECT_EQ(theirs.receive_completions, 1u);
  EXPECT_GE(ours.rnr_naks_received, 1u);
  if (!client().devices()[0]->capabilities().peer_counters) return;
  EXPECT_GT(ours.bytes_sent, 0u);
  EXPECT_GT(ours.bytes_received, 0u);
  EXPECT_GT(ours.send_calls, 0u);
  EXPECT_GT(ours.receive_calls, 0u);
  EXPECT_EQ(theirs.rnr_naks_sent, ours.rnr_naks_received);
  EXPECT_GT(theirs.acks_sent, 0u);
  EXPECT_GT(ours.acks_received, 0u);
  EXPECT_EQ(theirs.remote_reads, 1u);
  EXPECT_EQ(theirs.remote_writes, 1u);
  EXPECT_EQ(theirs.remote_atomics, 2u);
  EXPECT_EQ(theirs.protection_errors, 0u);
}

TEST_P(Counters, OfACompletionQueue) {
  // Expect: completions, polls and empty polls are counted.
  Pair pair = MakePair(*this);
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), 1));
  WaitOne(pair.client->cq);
  WorkCompletion none;
  EXPECT_EQ(pair.client->cq.Poll({&none, 1}), 0u);
  const CqCounters counters = pair.client->cq.counters();
  EXPECT_EQ(counters.completions, 1u);
  EXPECT_GE(counters.polls, 2u);
  EXPECT_GE(counters.empty_polls, 1u);
  EXPECT_EQ(counters.overflows, 0u);
}

TEST_P(Counters, OfConnections) {
  // A connection, a rejection, and a connect to nobody.
  // Expect: connects, accepts, rejects, requests and failures are counted where they happened.
  Pair pair = MakePair(*this);
  EXPECT_EQ(client().devices()[0]->counters().connects, 1u);
  EXPECT_EQ(server().devices()[0]->counters().accepts, 1u);
  QueuePair other = pair.client->NewQueuePair();
  Listener listener = Check(server().Listen(AnyPort()));
  Path path = Check(client().Resolve(listener.address()));
  Check(path.StartConnect(other));
  Check(Check(listener.Next(kLong)).Reject());
  WaitForEvent(client(), EventType::kRejected);
  EXPECT_EQ(listener.counters().requests, 1u);
  EXPECT_EQ(server().devices()[0]->counters().rejects, 1u);
}

}  // namespace
}  // namespace verbena::conformance
