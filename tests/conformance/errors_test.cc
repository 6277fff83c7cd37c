// SPDX-License-Identifier: Apache-2.0
// What an error does to both queues of both ends: IBTA 9.9, 10.8, 11.6.2.
#include <string>
#include <vector>

#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

using testing::ElementsAre;
using testing::UnorderedElementsAre;

enum class Offence { kBadKey, kReadBounds, kMisaligned, kNotAllowed, kLocalKey, kAtomicSize };

struct OffenceRow {
  std::string name;
  Offence offence;
  WcStatus status;
  bool remote;      // the peer found it
  EventType event;  // at the peer, if it did
};

const OffenceRow kOffences[] = {
    {"RemoteKey", Offence::kBadKey, WcStatus::kRemoteAccessError, true, EventType::kQpAccessError},
    {"RemoteBounds", Offence::kReadBounds, WcStatus::kRemoteAccessError, true,
     EventType::kQpAccessError},
    {"MisalignedAtomic", Offence::kMisaligned, WcStatus::kRemoteInvalidRequest, true,
     EventType::kQpRequestError},
    {"QueuePairRights", Offence::kNotAllowed, WcStatus::kRemoteInvalidRequest, true,
     EventType::kQpRequestError},
    {"LocalKey", Offence::kLocalKey, WcStatus::kLocalProtectionError, false, {}},
    {"AtomicSize", Offence::kAtomicSize, WcStatus::kLocalLengthError, false, {}},
};

SendWr Offend(Offence offence, const Pair& pair) {
  const End& from = *pair.client;
  const RemoteAddress to = pair.server->at(0);
  switch (offence) {
    case Offence::kBadKey:
      return OneSided(Opcode::kWrite, from, {to.address, to.key ^ 1}, 3);
    case Offence::kReadBounds:
      return OneSided(Opcode::kRead, from, pair.server->at(pair.server->buffer.size()), 3);
    case Offence::kMisaligned:
      return OneSided(Opcode::kFetchAdd, from, pair.server->at(4), 3);
    case Offence::kNotAllowed:
      return OneSided(Opcode::kCompareSwap, from, to, 3);
    case Offence::kLocalKey: {
      SendWr request = OneSided(Opcode::kWrite, from, to, 3);
      request.local = Sge{from.region.address(), 8, from.region.local_key() ^ 1};
      return request;
    }
    case Offence::kAtomicSize:
      return OneSided(Opcode::kFetchAdd, from, to, 3, 4);
  }
  return {};
}

CONFORMANCE_TABLE(ErrorMatrix, OffenceRow, kOffences);

TEST_P(ErrorMatrix, EveryQueueOfBothEnds) {
  // The server has receives outstanding, and sends that wait because the client has posted none.
  // The client posts a write, a large read, the offence, a write and a send.
  // Expect, in order: success, success, the offence's status, flush, flush; at the server receives
  // and sends flush; one kDisconnected at each end; the server's event if it found the offence.
  if (!client().devices()[0]->capabilities().atomics) GTEST_SKIP() << "capability: atomics";
  EndOptions server_options{.separate_receive_cq = true};
  if (row().offence == Offence::kNotAllowed) {
    server_options.qp_access = Access::kRemoteRead | Access::kRemoteWrite;
  }
  Pair pair = MakePair(*this, {.server = server_options, .client = {.separate_receive_cq = true}});
  End& client_end = *pair.client;
  End& server_end = *pair.server;
  for (uint64_t id : {11, 12}) {
    PostReceive(server_end.qp, {.local = server_end.slice(0, 8), .id = id});
  }
  // Data for the read that is under way when the offence comes.
  Fill(server_end.bytes(8192, 100000), 1);
  SendWr read = OneSided(Opcode::kRead, client_end, server_end.at(8192), 2, 100000);
  read.local = client_end.slice(8192, 100000);
  const SendWr requests[] = {OneSided(Opcode::kWrite, client_end, server_end.at(0), 1),
                             read,
                             Offend(row().offence, pair),
                             OneSided(Opcode::kWrite, client_end, server_end.at(64), 4),
                             {.opcode = Opcode::kSend, .local = client_end.slice(0, 8), .id = 5}};
  // The server's own: no receive is posted at the client, so they wait.
  for (uint64_t id : {21, 22}) {
    Post(server_end.qp, {.opcode = Opcode::kSend, .local = server_end.slice(0, 8), .id = id});
  }
  ASSERT_TRUE(RunUntil([&] { return server_end.qp.counters().rnr_naks_received > 0; }));
  EXPECT_THAT(client_end.qp.PostSend(requests), Posted(5, PostError::kNone));
  EXPECT_THAT(
      WaitFor(client_end.cq, 5),
      ElementsAre(Succeeded(1), Succeeded(2), Completed(3, row().status), Flushed(4), Flushed(5)));
  EXPECT_THAT(client_end.bytes(8192, 100000), HasPattern(1));
  EXPECT_THAT(WaitFor(server_end.cq, 2), ElementsAre(Flushed(21), Flushed(22)));
  EXPECT_THAT(WaitFor(server_end.receive_cq, 2), ElementsAre(Flushed(11), Flushed(12)));
  if (row().remote && server_end.device.capabilities().responder_events) {
    WaitForEvent(server(), row().event);
  }
  for (Context* host : {&server(), &client()}) {
    WaitForEvent(*host, EventType::kDisconnected);
    EXPECT_TRUE(NoEvent(*host, EventType::kDisconnected));
  }
  EXPECT_TRUE(StaysEmpty(client_end.cq));
  EXPECT_TRUE(StaysEmpty(server_end.cq));
  EXPECT_THAT(server_end.bytes(64, 8), IsZero());
}

TEST_P(ErrorMatrix, PostsAfterTheErrorFlush) {
  // The offence, then posts to both queues of the failed queue pair.
  // Expect: accepted, and flushed at once, in order.
  if (!client().devices()[0]->capabilities().atomics) GTEST_SKIP() << "capability: atomics";
  Pair pair = MakePair(
      *this, {.server = {.qp_access = row().offence == Offence::kNotAllowed ? Access::kRemoteWrite
                                                                            : kEverything}});
  Post(pair.client->qp, Offend(row().offence, pair));
  EXPECT_THAT(WaitOne(pair.client->cq), Completed(3, row().status));
  for (uint64_t id : {1, 2}) {
    Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), id));
  }
  PostReceive(pair.client->qp, {.local = pair.client->slice(0, 8), .id = 3});
  EXPECT_THAT(WaitFor(pair.client->cq, 3),
              UnorderedElementsAre(Flushed(1), Flushed(2), Flushed(3)));
  EXPECT_THAT(pair.server->buffer.bytes(), IsZero());
}

CONFORMANCE_SUITE(Errors);

TEST_P(Errors, FirstOfTwoOffencesWins) {
  // Two writes with wrong keys.
  // Expect: the first has the error, the second is flushed: it was never judged.
  Pair pair = MakePair(*this);
  for (uint64_t id : {1, 2}) {
    Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, {.address = 8, .key = 9}, id));
  }
  EXPECT_THAT(WaitFor(pair.client->cq, 2),
              ElementsAre(Completed(1, Refusal(WcStatus::kRemoteAccessError)), Flushed(2)));
}

TEST_P(Errors, FailingReadAmongReads) {
  // Ten reads of 20 KB of which the sixth has a wrong key.
  // Expect: the five before it complete with their data, those behind are flushed.
  if (!client().devices()[0]->capabilities().refusal_reasons) {
    GTEST_SKIP() << "capability: refusal_reasons";
  }
  Pair pair = MakePair(*this);
  Fill(pair.server->bytes(0, 20000), 1);
  for (uint64_t id = 0; id < 10; ++id) {
    RemoteAddress remote = pair.server->at(0);
    if (id == 5) remote.key ^= 4;
    SendWr read = OneSided(Opcode::kRead, *pair.client, remote, id, 20000);
    read.local = pair.client->slice(20000 * id, 20000);
    Post(pair.client->qp, read);
  }
  const std::vector<WorkCompletion> done = WaitFor(pair.client->cq, 10);
  for (uint64_t id = 0; id < 5; ++id) {
    EXPECT_THAT(done[id], Succeeded(id));
    EXPECT_THAT(pair.client->bytes(20000 * id, 20000), HasPattern(1));
  }
  EXPECT_THAT(done[5], Completed(5, Refusal(WcStatus::kRemoteAccessError)));
  for (uint64_t id = 6; id < 10; ++id) EXPECT_THAT(done[id], Flushed(id));
}

TEST_P(Errors, ManyGoodRequestsBeforeTheBadOne) {
  // 100 writes, then a wrong key, all in one post.
  // Expect: 100 successes, then the error: none of them is lost in the failure.
  if (!client().devices()[0]->capabilities().refusal_reasons) {
    GTEST_SKIP() << "capability: refusal_reasons";
  }
  Pair pair = MakePair(*this);
  std::vector<SendWr> batch;
  for (uint64_t id = 0; id < 100; ++id) {
    batch.push_back(OneSided(Opcode::kWrite, *pair.client, pair.server->at(64 * id), id));
  }
  batch.push_back(OneSided(Opcode::kWrite, *pair.client, {.address = 1, .key = 2}, 100));
  Check(pair.client->qp.PostSend(batch));
  const std::vector<WorkCompletion> done = WaitFor(pair.client->cq, 101);
  for (uint64_t id = 0; id < 100; ++id) ASSERT_THAT(done[id], Succeeded(id));
  EXPECT_THAT(done[100], Completed(100, Refusal(WcStatus::kRemoteAccessError)));
}

TEST_P(Errors, LargeWriteIsRefusedAtItsBegin) {
  // A write of 200 KB to a key that is wrong, from both ends at once.
  // Expect: both fail; each write has REM_ACCESS_ERR or, where its own end failed first over the
  // other's write, a flush.
  Pair pair = MakePair(*this);
  for (End* end : {pair.client.get(), pair.server.get()}) {
    Post(end->qp, OneSided(Opcode::kWrite, *end, {.address = 8, .key = 9}, 1, 200000));
  }
  for (End* end : {pair.client.get(), pair.server.get()}) {
    EXPECT_THAT(WaitOne(end->cq).status,
                testing::AnyOf(Refusal(WcStatus::kRemoteAccessError), WcStatus::kFlushed));
    EXPECT_EQ(end->qp.state(), QpState::kErr);
  }
}

TEST_P(Errors, OtherConnectionsGoOn) {
  // Two connections share queues and domains; one fails.
  // Expect: the other never notices.
  Pair pair = MakePair(*this);
  QueuePair ours = pair.client->NewQueuePair(), theirs = pair.server->NewQueuePair();
  Connect(*this, ours, theirs);
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, {.address = 8, .key = 9}, 1));
  EXPECT_THAT(WaitOne(pair.client->cq), Completed(1, Refusal(WcStatus::kRemoteAccessError)));
  for (uint64_t id = 2; id < 12; ++id) {
    Post(ours, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), id));
    EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(id));
  }
  EXPECT_EQ(ours.state(), QpState::kRts);
  EXPECT_EQ(theirs.state(), QpState::kRts);
}

TEST_P(Errors, PeerVanishes) {
  // The connection breaks without a goodbye while sends wait and receives are posted.
  // Expect: RETRY_EXC_ERR on the oldest send, the rest flushed; ERR, kDisconnected, and a cause, at
  // both ends.
  if (!client().devices()[0]->capabilities().rnr) GTEST_SKIP() << "capability: rnr";
  Pair pair = MakePair(*this, Both({.separate_receive_cq = true}));
  PostReceive(pair.client->qp, {.local = pair.client->slice(0, 8), .id = 9});
  for (uint64_t id : {1, 2, 3}) {
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = id});
  }
  ASSERT_TRUE(RunUntil([&] { return pair.client->qp.counters().rnr_naks_received > 0; }));
  if (!ground().Cut(pair.client->qp)) GTEST_SKIP() << "network: cannot be cut";
  EXPECT_THAT(WaitFor(pair.client->cq, 3),
              ElementsAre(Completed(1, Refusal(WcStatus::kRetryExceeded)), Flushed(2), Flushed(3)));
  EXPECT_THAT(WaitOne(pair.client->receive_cq), Flushed(9));
  WaitForEvent(client(), EventType::kDisconnected);
  WaitForEvent(server(), EventType::kDisconnected);
  EXPECT_THAT(pair.client->qp.cause(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(pair.server->qp.cause(), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_P(Errors, PeerVanishesDuringAStream) {
  // The connection breaks in the middle of 200 writes of 20 KB.
  // Expect: successes in order, then one RETRY_EXC_ERR, then flushes; nothing missing. What
  // succeeded is at the peer.
  Pair pair = MakePair(*this, {.client = {.limits = {.max_send_wr = 256}}});
  for (uint64_t id = 0; id < 200; ++id) {
    Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), id, 20000));
  }
  std::vector<WorkCompletion> done = WaitFor(pair.client->cq, 20);
  if (!ground().Cut(pair.client->qp)) GTEST_SKIP() << "network: cannot be cut";
  for (const WorkCompletion& wc : WaitFor(pair.client->cq, 180)) done.push_back(wc);
  uint64_t id = 0;
  for (; id < 200 && done[id].ok(); ++id) EXPECT_EQ(done[id].id, id);
  if (id == 200) return;  // all had been acknowledged
  EXPECT_THAT(done[id], Completed(id, Refusal(WcStatus::kRetryExceeded)));
  for (++id; id < 200; ++id) EXPECT_THAT(done[id], Flushed(id));
}

TEST_P(Errors, IdlePeerVanishes) {
  // The connection breaks while nothing is outstanding but receives.
  // Expect: both ends notice; receives flush.
  Pair pair = MakePair(*this);
  for (End* end : {pair.client.get(), pair.server.get()}) {
    PostReceive(end->qp, {.local = end->slice(0, 8), .id = 1});
  }
  if (!ground().Cut(pair.client->qp)) GTEST_SKIP() << "network: cannot be cut";
  for (End* end : {pair.client.get(), pair.server.get()}) {
    EXPECT_THAT(WaitOne(end->cq), Flushed(1));
    EXPECT_EQ(end->qp.state(), QpState::kErr);
  }
}

TEST_P(Errors, SilentPeerIsFoundOut) {
  // The network stops carrying anything; timeout 14 (67 ms) and 1 retry.
  // Expect: RETRY_EXC_ERR on the oldest request within a bounded time (ibv_modify_qp(3) timeout).
  Pair pair = MakePair(*this, {.connect = {.retry_count = 1, .timeout = 14}});
  if (!ground().Silence(true)) GTEST_SKIP() << "network: cannot be silenced";
  for (uint64_t id : {1, 2}) {
    Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), id));
  }
  EXPECT_THAT(WaitFor(pair.client->cq, 2),
              ElementsAre(Completed(1, Refusal(WcStatus::kRetryExceeded)), Flushed(2)));
  EXPECT_EQ(pair.client->qp.state(), QpState::kErr);
  ground().Silence(false);
}

TEST_P(Errors, ShortSilenceIsSurvived) {
  // The network carries nothing for 100 ms, less than timeout × retries.
  // Expect: everything completes afterwards.
  Pair pair = MakePair(*this);
  if (!ground().Silence(true)) GTEST_SKIP() << "network: cannot be silenced";
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), 1));
  RunFor(absl::Milliseconds(100));
  EXPECT_TRUE(StaysEmpty(pair.client->cq));
  ground().Silence(false);
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
}

TEST_P(Errors, PeersContextGoesAway) {
  // The server closes its queue pair while the client's sends wait.
  // Expect: the client's sends flush or fail in order, and it is told: it never hangs.
  if (!client().devices()[0]->capabilities().rnr) GTEST_SKIP() << "capability: rnr";
  Pair pair = MakePair(*this);
  for (uint64_t id : {1, 2}) {
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = id});
  }
  ASSERT_TRUE(RunUntil([&] { return pair.client->qp.counters().rnr_naks_received > 0; }));
  Check(pair.server->qp.Close());
  const std::vector<WorkCompletion> done = WaitFor(pair.client->cq, 2);
  EXPECT_THAT(done[0].status,
              testing::AnyOf(WcStatus::kFlushed, Refusal(WcStatus::kRetryExceeded)));
  EXPECT_THAT(done[1], Flushed(2));
  WaitForEvent(client(), EventType::kDisconnected);
}

}  // namespace
}  // namespace verbena::conformance
