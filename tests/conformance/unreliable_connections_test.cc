// SPDX-License-Identifier: Apache-2.0
// Unreliable connections: IBTA 9.8.2 (UC), 9.9.3 (what a responder drops), 10.3.1 (states);
// ibv_post_send(3), ibv_modify_qp(3). They are connected out of band, as devices have it.
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;

class UnreliableConnections : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    if (!capabilities().unreliable_connection) {
      GTEST_SKIP() << "capability: unreliable_connection";
    }
  }
  Capabilities capabilities() { return client().devices()[0]->capabilities(); }

  Pair MakeTwo(EndOptions options = {}, QpType client_type = QpType::kUc) {
    options.type = QpType::kUc;
    options.separate_receive_cq = true;
    Pair pair;
    pair.server = std::make_unique<End>(*server().devices()[0], options);
    options.type = client_type;
    options.shared_receive_queue.reset();
    pair.client = std::make_unique<End>(*client().devices()[0], options);
    const std::string there = Check(pair.server->qp.address());
    const std::string here = Check(pair.client->qp.address());
    Check(pair.client->qp.StartConnect(there));
    Check(pair.server->qp.StartConnect(here));
    return pair;
  }
  Pair Connected(const EndOptions& options = {}) {
    Pair pair = MakeTwo(options);
    WaitForEvent(server(), EventType::kEstablished);
    WaitForEvent(client(), EventType::kEstablished);
    return pair;
  }
  static SendWr SendOf(const End& from, uint32_t length, uint64_t id) {
    return {.opcode = Opcode::kSend, .local = from.slice(0, length), .id = id};
  }
  // Nothing is amiss with either end: a message arrives.
  void ExpectAllWell(Pair& pair) {
    Fill(pair.client->bytes(0, 64), 90);
    PostReceive(pair.server->qp, {.local = pair.server->slice(8192, 64), .id = 91});
    Post(pair.client->qp, SendOf(*pair.client, 64, 90));
    EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(90));
    EXPECT_THAT(WaitOne(pair.server->receives()), Succeeded(91));
    EXPECT_THAT(pair.server->bytes(8192, 64), HasPattern(90));
    for (End* end : {pair.server.get(), pair.client.get()}) {
      EXPECT_EQ(end->qp.state(), QpState::kRts);
    }
  }
  // Of a device nobody tells when it has dropped something.
  void WaitForDrops(End& to, uint64_t QpCounters::*count, uint64_t all) {
    if (to.device.capabilities().peer_counters) {
      EXPECT_TRUE(RunUntil([&] { return to.qp.counters().*count == all; }));
    }
    RunFor(kAWhile);
  }
};
CONFORMANCE_RUN(UnreliableConnections);

TEST_P(UnreliableConnections, MessagesArrive) {
  // Sends and writes, with immediate data and without, of one packet and of many.
  // Expect: as on a reliable connection.
  Pair pair = Connected();
  EXPECT_EQ(pair.client->qp.Query().type, QpType::kUc);
  for (const uint32_t size : {64u, 100'000u}) {
    Fill(pair.client->bytes(0, size), size);
    for (uint64_t id : {11, 12, 13}) {
      PostReceive(pair.server->qp, {.local = pair.server->slice(0, size), .id = id});
    }
    const Sge from = pair.client->slice(0, size);
    const RemoteAddress to = pair.server->at(131072);
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = from, .id = 1});
    Post(pair.client->qp,
         {.opcode = Opcode::kSendWithImm, .local = from, .id = 2, .immediate = 0x11});
    Post(pair.client->qp, {.opcode = Opcode::kWrite, .local = from, .remote = to, .id = 3});
    Post(
        pair.client->qp,
        {.opcode = Opcode::kWriteWithImm, .local = from, .remote = to, .id = 4, .immediate = 0x22});
    EXPECT_THAT(WaitFor(pair.client->cq, 4),
                ElementsAre(Succeeded(1), Succeeded(2), Succeeded(3), Succeeded(4)));
    const auto got = WaitFor(pair.server->receives(), 3);
    EXPECT_THAT(got, ElementsAre(Succeeded(11), Succeeded(12), Succeeded(13)));
    EXPECT_EQ(got[0].length, size);
    EXPECT_EQ(got[1].immediate_or_key, 0x11u);
    EXPECT_EQ(got[2].immediate_or_key, 0x22u);
    EXPECT_EQ(got[2].opcode, WcOpcode::kReceiveWriteWithImm);
    EXPECT_THAT(pair.server->bytes(0, size - size % 8), HasPattern(size));
    EXPECT_THAT(pair.server->bytes(131072, size - size % 8), HasPattern(size));
  }
}

TEST_P(UnreliableConnections, InlineDataIsCopiedAtPost) {
  // Expect: what was there at the post arrives.
  Pair pair = Connected({.limits = {.max_inline = 64}});
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 64), .id = 11});
  Fill(pair.client->bytes(0, 64), 1);
  SendWr send = SendOf(*pair.client, 64, 1);
  send.flags = SendFlags::kInline;
  Post(pair.client->qp, send);
  Fill(pair.client->bytes(0, 64), 2);
  EXPECT_THAT(WaitOne(pair.server->receives()), Succeeded(11));
  EXPECT_THAT(pair.server->bytes(0, 64), HasPattern(1));
}

TEST_P(UnreliableConnections, WithoutAReceiveTheyAreDropped) {
  // Sends of one packet and of many, and a write with immediate data; receives are posted later.
  // Expect: the sends succeed and are lost; the next message gets the receive.
  Pair pair = Connected();
  Post(pair.client->qp, SendOf(*pair.client, 64, 1));
  Post(pair.client->qp, SendOf(*pair.client, 100'000, 2));
  Post(pair.client->qp, {.opcode = Opcode::kWriteWithImm,
                         .local = pair.client->slice(0, 8),
                         .remote = pair.server->at(0),
                         .id = 3});
  EXPECT_THAT(WaitFor(pair.client->cq, 3), ElementsAre(Succeeded(1), Succeeded(2), Succeeded(3)));
  WaitForDrops(*pair.server, &QpCounters::dropped_no_receive, 3);
  EXPECT_TRUE(StaysEmpty(pair.server->receives()));
  ExpectAllWell(pair);
}

TEST_P(UnreliableConnections, AReceiveThatIsTooSmallStays) {
  // A message that is longer than the receive, then one that is not.
  // Expect: the first is dropped, the second gets the receive.
  Pair pair = Connected();
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 32), .id = 11});
  Fill(pair.client->bytes(0, 64), 3);
  Post(pair.client->qp, SendOf(*pair.client, 64, 1));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  WaitForDrops(*pair.server, &QpCounters::dropped_no_receive, 1);
  EXPECT_TRUE(StaysEmpty(pair.server->receives()));
  Post(pair.client->qp, SendOf(*pair.client, 16, 2));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(2));
  const WorkCompletion got = WaitOne(pair.server->receives());
  EXPECT_THAT(got, Succeeded(11));
  EXPECT_EQ(got.length, 16u);
  EXPECT_THAT(pair.server->bytes(32, 64), IsZero());
  ExpectAllWell(pair);
}

TEST_P(UnreliableConnections, WhatIsNotAllowedIsDropped) {
  // Writes with a wrong key, beyond the region, and to a region that takes none.
  // Expect: success at the sender; not a byte, no event at the target.
  Pair pair = Connected();
  Buffer memory(4096);
  MemoryRegion closed = Check(pair.server->pd.Register(memory.bytes(), Access::kLocalWrite));
  RemoteAddress wrong = pair.server->at(0);
  wrong.key ^= 0x10000;
  const RemoteAddress beyond = pair.server->at(pair.server->buffer.size() - 4);
  Fill(pair.client->bytes(0, 8), 4);
  uint64_t id = 0;
  for (const RemoteAddress& to : {wrong, beyond, closed.remote().at(0)}) {
    Post(pair.client->qp,
         {.opcode = Opcode::kWrite, .local = pair.client->slice(0, 8), .remote = to, .id = ++id});
    EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(id));
  }
  WaitForDrops(*pair.server, &QpCounters::dropped_other, 3);
  EXPECT_THAT(pair.server->buffer.bytes(), IsZero());
  EXPECT_THAT(memory.bytes(), IsZero());
  EXPECT_TRUE(NoEvent(server(), EventType::kQpAccessError));
  ExpectAllWell(pair);
}

TEST_P(UnreliableConnections, TheQueuePairsRightsCount) {
  // A queue pair that takes no writes; then it does.
  // Expect: dropped, then there.
  if (!capabilities().queue_pair_rights) GTEST_SKIP() << "capability: queue_pair_rights";
  Pair pair = Connected();
  Check(pair.server->qp.Modify({.access = Access::kLocalWrite}));
  const SendWr write = {.opcode = Opcode::kWrite,
                        .local = pair.client->slice(0, 64),
                        .remote = pair.server->at(0),
                        .id = 1};
  Fill(pair.client->bytes(0, 64), 5);
  Post(pair.client->qp, write);
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  WaitForDrops(*pair.server, &QpCounters::dropped_other, 1);
  EXPECT_THAT(pair.server->bytes(0, 64), IsZero());
  Check(pair.server->qp.Modify({.access = Access::kLocalWrite | Access::kRemoteWrite}));
  Post(pair.client->qp, write);
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  ExpectAllWell(pair);  // behind the write
  EXPECT_THAT(pair.server->bytes(0, 64), HasPattern(5));
}

TEST_P(UnreliableConnections, AWrongLocalKeyStopsTheSendQueue) {
  // A good send, one with a wrong key, another good one.
  // Expect: success, LOC_PROT_ERR, flush; the state is SQE (or ERR, as some devices have it). From
  // SQE receives go on, and RTS lets sends go on.
  Pair pair = Connected();
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 64), .id = 11});
  SendWr all[] = {SendOf(*pair.client, 8, 1), SendOf(*pair.client, 8, 2),
                  SendOf(*pair.client, 8, 3)};
  Sge wrong = pair.client->slice(0, 8);
  wrong.key ^= 0x10000;
  all[1].local = wrong;
  Check(pair.client->qp.PostSend(all));
  EXPECT_THAT(WaitFor(pair.client->cq, 3),
              ElementsAre(Succeeded(1), Completed(2, WcStatus::kLocalProtectionError), Flushed(3)));
  EXPECT_THAT(WaitOne(pair.server->receives()), Succeeded(11));
  const QpState now = pair.client->qp.state();
  EXPECT_FALSE(pair.client->qp.cause().ok());
  if (now == QpState::kErr) return;
  ASSERT_EQ(now, QpState::kSqe);
  Post(pair.client->qp, SendOf(*pair.client, 8, 4));
  EXPECT_THAT(WaitOne(pair.client->cq), Flushed(4));
  PostReceive(pair.client->qp, {.local = pair.client->slice(0, 64), .id = 12});
  Post(pair.server->qp, SendOf(*pair.server, 8, 5));
  EXPECT_THAT(WaitOne(pair.client->receives()), Succeeded(12));
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(5));
  Check(pair.client->qp.Modify({.state = QpState::kRts}));
  ExpectAllWell(pair);
}

TEST_P(UnreliableConnections, ALargeMessageThatFailsHalfWayIsNotDelivered) {
  // Its last entry has a wrong key; the next message is a good one.
  // Expect: the receive is the next one's.
  Pair pair = Connected();
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 131072), .id = 11});
  Sge parts[] = {pair.client->slice(0, 131072 - 8), pair.client->slice(0, 8)};
  parts[1].key ^= 0x10000;
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = std::span<const Sge>(parts), .id = 1});
  EXPECT_THAT(WaitOne(pair.client->cq), Completed(1, WcStatus::kLocalProtectionError));
  if (pair.client->qp.state() == QpState::kErr) return;
  Check(pair.client->qp.Modify({.state = QpState::kRts}));
  Post(pair.client->qp, SendOf(*pair.client, 16, 2));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(2));
  const WorkCompletion got = WaitOne(pair.server->receives());
  EXPECT_THAT(got, Succeeded(11));
  EXPECT_EQ(got.length, 16u);
  ExpectAllWell(pair);
}

TEST_P(UnreliableConnections, AReceiveThatMayNotBeFilledFails) {
  // A receive with a wrong key.
  // Expect: it fails, and its queue pair is in ERR. The sender is not told why.
  Pair pair = Connected();
  Sge wrong = pair.server->slice(0, 64);
  wrong.key ^= 0x10000;
  PostReceive(pair.server->qp, {.local = wrong, .id = 11});
  Post(pair.client->qp, SendOf(*pair.client, 8, 1));
  EXPECT_THAT(WaitOne(pair.server->receives()), Completed(11, WcStatus::kLocalProtectionError));
  EXPECT_EQ(pair.server->qp.state(), QpState::kErr);
  EXPECT_THAT(WaitOne(pair.client->cq), AnyOf(Succeeded(1), Flushed(1)));
  EXPECT_THAT(pair.client->qp.cause(), IsOk());
}

TEST_P(UnreliableConnections, OnlySendsAndWritesAreTaken) {
  // Reads, atomics, and an invalidation at the peer.
  // Expect: refused at the post.
  Pair pair = Connected();
  for (const Opcode opcode :
       {Opcode::kRead, Opcode::kCompareSwap, Opcode::kFetchAdd, Opcode::kSendWithInvalidate}) {
    SendWr wr = OneSided(opcode, *pair.client, pair.server->at(0), 1);
    EXPECT_THAT(pair.client->qp.PostSend(wr), Refused(PostError::kInvalidOpcode)) << Name(opcode);
  }
  ExpectAllWell(pair);
}

TEST_P(UnreliableConnections, HasNeitherTimersNorRetries) {
  // ibv_modify_qp(3) of IBV_QPT_UC.
  // Expect: rights may be set; what is for acknowledged messages, and for datagrams, may not.
  Pair pair = Connected();
  for (const QpModify& change :
       {QpModify{.min_rnr_timer = 1}, QpModify{.rnr_retry = 1}, QpModify{.retry_count = 1},
        QpModify{.timeout = 1}, QpModify{.qkey = 1}}) {
    EXPECT_THAT(pair.client->qp.Modify(change), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  Check(pair.client->qp.Modify({.access = Access::kLocalWrite}));
  Check(pair.client->qp.Modify({.state = QpState::kSqd}));
  WaitForEvent(client(), EventType::kSendQueueDrained);
  Check(pair.client->qp.Modify({.state = QpState::kRts}));
  ExpectAllWell(pair);
}

TEST_P(UnreliableConnections, BothEndsHaveOneType) {
  // A reliable and an unreliable one, with a listener and without.
  // Expect: not connected, and the reason names the types.
  if (!capabilities().out_of_band_handshake) GTEST_SKIP() << "capability: out_of_band_handshake";
  Pair pair = MakeTwo({}, QpType::kRc);
  for (End* end : {pair.client.get(), pair.server.get()}) {
    const auto status = [&] { return end->qp.impl()->outcome().status; };
    ASSERT_TRUE(RunUntil([&] { return !status().ok(); }));
    EXPECT_THAT(std::string(status().message()),
                testing::AllOf(HasSubstr("type UC"), HasSubstr("type RC")));
    EXPECT_EQ(end->qp.state(), QpState::kInit);
  }
  Listener listener = Check(server().Listen(AnyPort()));
  Path path = Check(client().Resolve(listener.address()));
  Check(path.StartConnect(pair.client->qp));
  ConnectionRequest request = Check(listener.Next(kLong));
  EXPECT_THAT(request.Accept(pair.server->qp),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("type UC")));
  while (!absl::StrContains(WaitForEvent(client(), EventType::kRejected).private_data, "type UC")) {
  }
}

TEST_P(UnreliableConnections, ASharedReceiveQueueServesThem) {
  // Messages for two queue pairs on one shared queue; one that is too long for its receive.
  // Expect: each takes a receive. That of the long one is taken already, and completes in error
  // (class E); the queue pair goes on.
  EndOptions options;
  options.shared_receive_queue = SrqLimits{.max_wr = 16};
  Pair pair = Connected(options);
  for (uint64_t id : {11, 12, 13}) {
    Check(pair.server->srq.PostReceive({.local = pair.server->slice(id * 64, 64), .id = id}));
  }
  Post(pair.client->qp, SendOf(*pair.client, 64, 1));
  Post(pair.client->qp, SendOf(*pair.client, 65, 2));
  Post(pair.client->qp, SendOf(*pair.client, 64, 3));
  EXPECT_THAT(WaitFor(pair.client->cq, 3), ElementsAre(Succeeded(1), Succeeded(2), Succeeded(3)));
  EXPECT_THAT(
      WaitFor(pair.server->receives(), 3),
      ElementsAre(Succeeded(11), Completed(12, WcStatus::kRemoteInvalidRequest), Succeeded(13)));
  EXPECT_EQ(pair.server->qp.state(), QpState::kRts);
}

TEST_P(UnreliableConnections, APeerThatIsGoneIsMissedWhereThereIsAHandshake) {
  // One end disconnects; of another pair the connection breaks.
  // Expect: ERR, kDisconnected and the flush at both ends, and no request's own error.
  if (!capabilities().out_of_band_handshake) GTEST_SKIP() << "capability: out_of_band_handshake";
  for (const bool cut : {false, true}) {
    Pair pair = Connected();
    PostReceive(pair.client->qp, {.local = pair.client->slice(0, 64), .id = 11});
    if (!cut) {
      Check(pair.server->qp.Disconnect());
    } else if (!ground().Cut(pair.server->qp)) {
      return;
    }
    WaitForEvent(client(), EventType::kDisconnected);
    EXPECT_EQ(pair.client->qp.state(), QpState::kErr);
    EXPECT_THAT(WaitOne(pair.client->receives()), Flushed(11));
    EXPECT_EQ(pair.client->qp.cause().ok(), !cut);
    Post(pair.client->qp, SendOf(*pair.client, 8, 1));
    EXPECT_THAT(WaitOne(pair.client->cq), Flushed(1));
  }
}

TEST_P(UnreliableConnections, AListenerConnectsThem) {
  // Path and listener, as reliable ones.
  // Expect: a message arrives; what holds of the connection is told.
  if (!capabilities().out_of_band_handshake) GTEST_SKIP() << "capability: out_of_band_handshake";
  EndOptions options;
  options.type = QpType::kUc;
  options.separate_receive_cq = true;
  Pair pair;
  pair.server = std::make_unique<End>(*server().devices()[0], options);
  pair.client = std::make_unique<End>(*client().devices()[0], options);
  Listener listener = Check(server().Listen(AnyPort()));
  Path path = Check(client().Resolve(listener.address()));
  Check(path.StartConnect(pair.client->qp));
  ConnectionRequest request = Check(listener.Next(kLong));
  Check(request.Accept(pair.server->qp));
  WaitForEvent(client(), EventType::kEstablished);
  WaitForEvent(server(), EventType::kEstablished);
  ExpectAllWell(pair);
  const Capabilities c = pair.client->qp.capabilities();
  EXPECT_TRUE(c.unreliable_connection);
  EXPECT_FALSE(c.remote_completion || c.rnr || c.atomics || c.send_with_invalidate);
}

TEST_P(UnreliableConnections, ResetConnectsAnew) {
  // In SQE, then RESET, INIT, and another connection.
  // Expect: it works as a new one.
  Pair pair = Connected();
  for (End* end : {pair.server.get(), pair.client.get()}) {
    Check(end->qp.Modify({.state = QpState::kReset}));
    Check(end->qp.Modify({.state = QpState::kInit}));
  }
  const std::string there = Check(pair.server->qp.address());
  const std::string here = Check(pair.client->qp.address());
  Check(pair.client->qp.StartConnect(there));
  Check(pair.server->qp.StartConnect(here));
  WaitForEvent(server(), EventType::kEstablished);
  WaitForEvent(client(), EventType::kEstablished);
  ExpectAllWell(pair);
}

}  // namespace
}  // namespace verbena::conformance
