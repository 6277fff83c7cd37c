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
  const Capabilities can = client().devices()[0]->capabilities();
  if (!can.rnr) GTEST_SKIP() << "capability: rnr";
  if (!can.atomics) GTEST_SKIP() << "capability: atomics";
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
  if (!can.peer_counters) return;
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

TEST_P(Counters, OfAChannel) {
  // Expect: an event is counted when it came and when it was taken.
  Pair pair = MakePair(*this, {.client = {.channel = true}});
  Check(pair.client->cq.RequestNotify());
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), 1));
  Check(pair.client->channel.Next(kLong));
  const ChannelCounters counters = pair.client->channel.counters();
  EXPECT_EQ(counters.events, 1u);
  EXPECT_EQ(counters.taken, 1u);
}

TEST_P(Counters, OfADomainAndAWindow) {
  // A region, a window on it that the peer writes through.
  // Expect: objects, registrations, binds, and what the peer did, where the device knows.
  const Capabilities can = server().devices()[0]->capabilities();
  if (!can.memory_windows) GTEST_SKIP() << "capability: memory_windows";
  Pair pair = MakePair(*this);
  const DomainCounters before = pair.server->pd.counters();
  Buffer memory(4096);
  const MemoryRegion region = Check(pair.server->pd.Register(memory.bytes(), kEverything));
  MemoryWindow window = Check(pair.server->pd.AllocateWindow());
  EXPECT_EQ(pair.server->pd.counters().objects, before.objects + 2);
  EXPECT_EQ(pair.server->pd.counters().registrations, before.registrations + 1);
  Post(pair.server->qp, {.opcode = Opcode::kBindWindow,
                         .id = 1,
                         .bind = {.window = &window,
                                  .region = &region,
                                  .address = region.address(),
                                  .length = 4096,
                                  .access = Access::kRemoteWrite}});
  WaitOne(pair.server->cq);
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, window.remote().at(0), 2));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(2));
  EXPECT_EQ(window.counters().binds, 1u);
  EXPECT_EQ(window.counters().remote_writes, can.peer_counters ? 1u : 0u);
}

TEST_P(Counters, OfEvents) {
  // Expect: what a connect caused came, and what was taken is known.
  Pair pair = MakePair(*this);
  Check(pair.client->qp.Disconnect());
  WaitForEvent(client(), EventType::kDisconnected);
  const EventCounters counters = client().events().counters();
  EXPECT_GE(counters.events, counters.taken);
  EXPECT_GE(counters.taken, 1u);
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
