// SPDX-License-Identifier: Apache-2.0
// Unreliable connections: what the peer does not take is dropped, and nobody says so. IBTA 9.8.2,
// 9.9.3 (classes A, D, D1, E), 10.3.1.6; docs/decisions/0023-unreliable-connections.md.
#include <cerrno>
#include <random>

#include "absl/strings/match.h"
#include "fallback/engine/handshake.h"
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

using wire::ControlType;
using wire::NakCode;

constexpr uint32_t kSeveral = 150'000;  // bytes of more segments than two

SendWr SendImmOf(const Sge& sge, uint32_t immediate, uint64_t id) {
  return {.opcode = Opcode::kSendWithImm, .local = sge, .id = id, .immediate = immediate};
}
SendWr WriteImmOf(const Sge& sge, RemoteAddress to, uint32_t immediate, uint64_t id) {
  return {.opcode = Opcode::kWriteWithImm,
          .local = sge,
          .remote = to,
          .id = id,
          .immediate = immediate};
}

struct Row {
  std::string name;
  size_t chunk;  // 0: whole
  bool crc;
};

class Unreliable : public testing::TestWithParam<Row> {
 protected:
  explicit Unreliable(SideOptions right = {.type = QpType::kUc, .number = 2})
      : w_(Chunks(GetParam().chunk), GetParam().crc, {.type = QpType::kUc}, right) {}

  void ExpectAllWell() {  // the next message arrives
    w_.a.Post(SendOf(from_.sge(0, 8), 90));
    w_.b.PostReceive({.local = to_.sge(0, 8), .id = 91});
    w_.cable.Run();
    EXPECT_EQ(w_.a.Sends() + ", " + w_.b.Receives(), "90 SUCCESS, 91 SUCCESS");
    EXPECT_EQ(w_.a.qp.state(), QpState::kRts);
    EXPECT_EQ(w_.b.qp.state(), QpState::kRts);
    EXPECT_TRUE(w_.b.events.empty() || !w_.b.Had(EventType::kQpAccessError));
  }

  Wired w_;
  Memory from_{&w_.a, kSeveral}, to_{&w_.b, kSeveral};
};

INSTANTIATE_TEST_SUITE_P(All, Unreliable,
                         testing::Values(Row{"Whole", 0, false}, Row{"Bytewise", 7, false},
                                         Row{"Crc", 1000, true}),
                         [](const auto& info) { return info.param.name; });

TEST_P(Unreliable, MessagesArriveAsOnReliableOnes) {
  // A send, one with immediate, a write, one with immediate; small and of several segments.
  // Expect: all there, each completion says so.
  for (const uint32_t n : {8u, kSeveral}) {
    from_.Fill(static_cast<uint8_t>(n));
    for (uint64_t id : {11, 12, 13}) w_.b.PostReceive({.local = to_.sge(), .id = id});
    w_.a.Post(SendOf(from_.sge(0, n), 1));
    w_.a.Post(SendImmOf(from_.sge(0, n), 0x11, 2));
    w_.a.Post(WriteOf(from_.sge(0, n), to_.at(), 3));
    w_.a.Post(WriteImmOf(from_.sge(0, n), to_.at(), 0x22, 4));
    w_.cable.Run();
    EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 SUCCESS, 3 SUCCESS, 4 SUCCESS");
    EXPECT_EQ(w_.b.NextReceive().length, n);
    EXPECT_EQ(w_.b.NextReceive().immediate_or_key, 0x11u);
    const WorkCompletion last = w_.b.NextReceive();
    EXPECT_EQ(last.opcode, WcOpcode::kReceiveWriteWithImm);
    EXPECT_EQ(last.length, n);
    EXPECT_TRUE(to_.Has(static_cast<uint8_t>(n), 0, n));
  }
}

TEST_P(Unreliable, WithoutAReceiveItIsDropped) {
  // Sends of all sizes and a write with immediate while no receive is posted.
  // Expect: all succeed at the sender; the write's bytes are there; nothing is left of them.
  from_.Fill(3);
  w_.a.Post(SendOf(from_.sge(0, 0), 1));
  w_.a.Post(SendOf(from_.sge(0, 8), 2));
  w_.a.Post(SendOf(from_.sge(), 3));
  w_.a.Post(WriteImmOf(from_.sge(), to_.at(), 7, 4));
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 SUCCESS, 3 SUCCESS, 4 SUCCESS");
  EXPECT_TRUE(to_.Has(3, 0, kSeveral));
  EXPECT_EQ(w_.b.qp.counters().dropped_no_receive, 4u);
  EXPECT_EQ(w_.b.qp.counters().rnr_naks_sent, 0u);
  ExpectAllWell();
}

TEST_P(Unreliable, ATooSmallReceiveStaysForTheNext) {
  // A message of several segments, a small one that is too long, and one that fits.
  // Expect: the receive is the last one's; nothing beyond it was written.
  from_.Fill(4);
  w_.b.PostReceive({.local = to_.sge(0, 70'000), .id = 11});
  w_.a.Post(SendOf(from_.sge(), 1));
  w_.a.Post(SendOf(from_.sge(0, 70'001), 2));
  w_.a.Post(SendOf(from_.sge(0, 16), 3));
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 SUCCESS, 3 SUCCESS");
  const WorkCompletion got = w_.b.NextReceive();
  EXPECT_EQ(got.id, 11u);
  EXPECT_EQ(got.status, WcStatus::kSuccess);
  EXPECT_EQ(got.length, 16u);
  EXPECT_EQ(*(to_.data() + 70'000), std::byte{0});
  EXPECT_EQ(w_.b.qp.counters().dropped_no_receive, 2u);
  ExpectAllWell();
}

TEST_P(Unreliable, AHeldReceiveServesAnImmediate) {
  // The receive was too small for a message; a write with immediate needs no room.
  w_.b.PostReceive({.local = to_.sge(0, 4), .id = 11});
  w_.a.Post(SendOf(from_.sge(0, 8), 1));
  w_.a.Post(WriteImmOf(from_.sge(0, 8), to_.at(), 5, 2));
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends() + ", " + w_.b.Receives(), "1 SUCCESS, 2 SUCCESS, 11 SUCCESS");
  ExpectAllWell();
}

TEST_P(Unreliable, WhatIsNotAllowedIsDropped) {
  // Writes with a wrong key, beyond the region, to one without the right, with immediate too.
  // Expect: success at the sender; no byte, no completion, no event at the target.
  Memory closed(&w_.b, 64, Access::kLocalWrite);
  from_.Fill(5);
  w_.b.PostReceive({.local = to_.sge(0, 8), .id = 11});
  RemoteAddress wrong = to_.at();
  wrong.key ^= 1;
  w_.a.Post(WriteOf(from_.sge(), wrong, 1));
  w_.a.Post(WriteOf(from_.sge(), to_.at(1), 2));  // its first segments are inside
  w_.a.Post(WriteOf(from_.sge(0, 8), closed.at(), 3));
  w_.a.Post(WriteImmOf(from_.sge(), wrong, 9, 4));
  w_.a.Post(WriteImmOf(from_.sge(0, 0), to_.at(), 10, 5));
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 SUCCESS, 3 SUCCESS, 4 SUCCESS, 5 SUCCESS");
  const WorkCompletion got = w_.b.NextReceive();
  EXPECT_EQ(got.immediate_or_key, 10u);
  EXPECT_EQ(got.length, 0u);
  EXPECT_TRUE(closed.IsZero());
  EXPECT_EQ(w_.b.qp.counters().dropped_other, 4u);
  EXPECT_EQ(w_.b.qp.counters().protection_errors, 4u);
  ExpectAllWell();
}

TEST_P(Unreliable, TheQueuePairsOwnRightsCount) {
  // Expect: writes are dropped while the target takes none.
  ASSERT_TRUE(w_.b.qp.Modify({.access = Access::kLocalWrite}).ok());
  from_.Fill(6);
  w_.a.Post(WriteOf(from_.sge(), to_.at(), 1));
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS");
  EXPECT_TRUE(to_.IsZero());
  ASSERT_TRUE(w_.b.qp.Modify({.access = kEverything}).ok());
  ExpectAllWell();
}

TEST_P(Unreliable, ARegionThatGoesTakesTheRestOfAMessage) {
  // It is deregistered when a part of a write is there.
  // Expect: nothing is written any more, no failure, and the next message arrives.
  Memory target(&w_.b, kSeveral);
  from_.Fill(7);
  w_.a.Post(WriteOf(from_.sge(), target.at(), 1));
  w_.cable.Send(0);
  w_.cable.Deliver(0);
  target.Kill();
  const std::vector<std::byte> before(target.data(), target.data() + kSeveral);
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS");
  EXPECT_TRUE(std::equal(before.begin(), before.end(), target.data()));
  ExpectAllWell();
}

TEST_P(Unreliable, AFailedRequestStopsTheSendQueueAlone) {
  // A good send, one with a wrong local key, one behind it; then one posted in SQE.
  // Expect: success, LOC_PROT_ERR, flush; SQE, with its cause; receives go on; RTS goes on.
  w_.b.PostReceive({.local = to_.sge(0, 8), .id = 11});
  Sge wrong = from_.sge(0, 8);
  wrong.key ^= 1;
  w_.a.Post(SendOf(from_.sge(0, 8), 1));
  w_.a.Post(SendOf(wrong, 2));
  w_.a.Post(SendOf(from_.sge(0, 8), 3));
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 LOC_PROT_ERR, 3 WR_FLUSH_ERR");
  EXPECT_EQ(w_.a.qp.state(), QpState::kSqe);
  EXPECT_FALSE(w_.a.qp.cause().ok());
  EXPECT_TRUE(w_.a.Post(SendOf(from_.sge(0, 8), 4)).ok());
  w_.a.PostReceive({.local = from_.sge(0, 8), .id = 12});
  w_.b.Post(SendOf(to_.sge(0, 8), 5));
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends() + ", " + w_.a.Receives(), "4 WR_FLUSH_ERR, 12 SUCCESS");
  ASSERT_TRUE(w_.a.qp.Modify({.state = QpState::kRts}).ok());
  EXPECT_TRUE(w_.a.qp.cause().ok());
  EXPECT_EQ(w_.b.Receives() + w_.b.Sends(), "11 SUCCESS5 SUCCESS");
  ExpectAllWell();
}

TEST_P(Unreliable, WhatWasHalfSentIsTakenBack) {
  // Requests of several segments whose last entry has a wrong key, of each kind; then a write with
  // immediate, whose length counts nothing of them.
  // Expect: nothing of the failed ones is delivered, the receive is the next message's.
  Sge parts[] = {from_.sge(0, 140'000), from_.sge(0, 8)};
  parts[1].key ^= 1;
  const std::span<const Sge> broken(parts);
  const SendWr kinds[] = {
      {.opcode = Opcode::kSend, .local = broken, .id = 1},
      {.opcode = Opcode::kWrite, .local = broken, .remote = to_.at(), .id = 1},
      {.opcode = Opcode::kWriteWithImm, .local = broken, .remote = to_.at(), .id = 1}};
  w_.b.PostReceive({.local = to_.sge(), .id = 11});
  for (const SendWr& kind : kinds) {
    w_.a.Post(kind);
    w_.cable.Run();
    EXPECT_EQ(w_.a.Sends(), "1 LOC_PROT_ERR");
    EXPECT_EQ(w_.b.Receives(), "");
    ASSERT_TRUE(w_.a.qp.Modify({.state = QpState::kRts}).ok());
  }
  EXPECT_EQ(w_.b.qp.counters().dropped_other, 3u);
  w_.a.Post(WriteImmOf(from_.sge(0, 8), to_.at(), 5, 2));
  w_.cable.Run();
  const WorkCompletion got = w_.b.NextReceive();
  EXPECT_EQ(got.id, 11u);
  EXPECT_EQ(got.length, 8u);
  EXPECT_EQ(w_.a.Sends(), "2 SUCCESS");
  ExpectAllWell();
}

TEST_P(Unreliable, AReceiveThatMayNotBeFilledEndsTheQueuePair) {
  // Class A: the target's own fault.
  // Expect: LOC_PROT_ERR and ERR there; the sender hears a goodbye, and no reason.
  Sge wrong = to_.sge(0, 8);
  wrong.key ^= 1;
  w_.b.PostReceive({.local = wrong, .id = 11});
  w_.a.Post(SendOf(from_.sge(0, 8), 1));
  w_.cable.Run();
  EXPECT_EQ(w_.b.Receives(), "11 LOC_PROT_ERR");
  EXPECT_EQ(w_.b.qp.state(), QpState::kErr);
  EXPECT_FALSE(w_.b.qp.cause().ok());
  EXPECT_EQ(w_.a.Sends(), "1 WR_FLUSH_ERR");
  EXPECT_TRUE(w_.a.Had(EventType::kDisconnected) && w_.a.qp.cause().ok());
  EXPECT_TRUE(absl::StrContains(w_.cable.Trace(1), "BYE"));
}

TEST_P(Unreliable, ALostStreamFlushesAll) {
  // The connection breaks with requests under way.
  // Expect: nobody is to blame: all flushed, the cause is told.
  for (uint64_t id : {1, 2}) w_.a.Post(WriteOf(from_.sge(0, 8), to_.at(), id));
  w_.cable.Send(0);
  w_.cable.Cut(1, ECONNRESET);
  EXPECT_EQ(w_.a.Sends(), "1 WR_FLUSH_ERR, 2 WR_FLUSH_ERR");
  EXPECT_EQ(w_.a.qp.state(), QpState::kErr);
  EXPECT_EQ(w_.a.qp.cause().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(w_.a.Had(EventType::kDisconnected));
}

TEST_P(Unreliable, WithoutAManagerNobodyMissesThePeer) {
  // The peer leaves with requests under way, queued and half sent; more are posted, one with a
  // wrong key.
  // Expect: success for all that could be sent; the wrong one stops the send queue; RTS all along.
  w_.a.qp.SetUnmanaged();
  w_.a.Post(WriteOf(from_.sge(0, 8), to_.at(), 1));
  w_.a.Post(SendOf(from_.sge(), 2));
  w_.cable.Send(0);
  w_.a.Post(SendOf(from_.sge(), 3));
  w_.cable.Cut(1, ECONNRESET);
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 SUCCESS, 3 SUCCESS");
  ASSERT_TRUE(w_.a.qp.over());
  w_.a.qp.Detach();
  Sge wrong = from_.sge();
  wrong.key ^= 1;
  w_.a.Post(SendOf(from_.sge(0, 8), 4));
  w_.a.Post(SendOf(wrong, 5));
  w_.a.qp.PeerLost("it has left");
  EXPECT_EQ(w_.a.Sends(), "4 SUCCESS, 5 LOC_PROT_ERR");
  EXPECT_EQ(w_.a.qp.state(), QpState::kSqe);
  ASSERT_TRUE(w_.a.qp.Modify({.state = QpState::kRts}).ok());
  w_.a.Post(SendOf(from_.sge(0, 8), 6));
  w_.a.qp.PeerLost("it has left");
  EXPECT_EQ(w_.a.Sends(), "6 SUCCESS");
  EXPECT_TRUE(w_.a.events.empty());
}

TEST_P(Unreliable, APeerThatComesLateGetsTheRest) {
  // The driver gives requests up before there is a peer; then it comes.
  // Expect: what was given up is lost, what is posted then arrives.
  Side a({.type = QpType::kUc}), b({.type = QpType::kUc, .number = 2});
  Memory from(&a, kSeveral), to(&b, kSeveral);
  a.qp.SetUnmanaged();
  a.qp.Start();
  a.Post(SendOf(from.sge(), 1));
  a.Post(WriteImmOf(from.sge(), to.at(), 3, 2));
  a.qp.PeerLost("it did not come");
  EXPECT_EQ(a.Sends(), "1 SUCCESS, 2 SUCCESS");
  b.PostReceive({.local = to.sge(), .id = 11});
  a.Post(SendOf(from.sge(), 3));
  Cable cable(&a, &b, Chunks(GetParam().chunk));
  a.qp.Connected(OwnSession(true, GetParam().crc, 16, QpType::kUc));
  b.qp.Connected(OwnSession(false, GetParam().crc, 16, QpType::kUc));
  cable.Run();
  EXPECT_EQ(a.Sends() + ", " + b.Receives(), "3 SUCCESS, 11 SUCCESS");
}

TEST_P(Unreliable, AnyMixOfGoodAndBad) {
  // Messages of all kinds and sizes, some without a receive, some too long, some not allowed, some
  // that fail at the sender.
  // Expect: exactly those arrive of which the model says so, in order.
  std::minstd_rand random(static_cast<uint32_t>(GetParam().chunk) + 1);
  uint32_t tag = 0;
  for (int round = 0; round < 150; ++round) {
    const bool has_receive = random() % 3 != 0, small = random() % 4 == 0;
    const bool allowed = random() % 4 != 0, fails = random() % 5 == 0;
    const bool write = random() % 2 == 0;
    const uint32_t n = random() % 2 == 0 ? 100 : 130'000 + random() % 10'000;
    Sge parts[] = {from_.sge(0, n), from_.sge(0, 8)};
    if (fails) parts[1].key ^= 1;
    SendWr wr = write ? WriteImmOf(parts[0], to_.at(), ++tag, 1) : SendImmOf(parts[0], ++tag, 1);
    wr.local = std::span<const Sge>(parts);
    if (!allowed) wr.remote.key ^= 1;
    const bool arrives = has_receive && !fails && (write ? allowed : !small);
    if (has_receive) {
      w_.b.PostReceive({.local = to_.sge(0, small ? 50 : kSeveral), .id = 11});
    }
    w_.a.Post(wr);
    w_.cable.Run();
    EXPECT_EQ(w_.a.Sends(), fails ? "1 LOC_PROT_ERR" : "1 SUCCESS");
    if (fails) {
      ASSERT_TRUE(w_.a.qp.Modify({.state = QpState::kRts}).ok());
    }
    if (arrives) {
      const WorkCompletion got = w_.b.NextReceive();
      EXPECT_EQ(got.status, WcStatus::kSuccess);
      EXPECT_EQ(got.immediate_or_key, tag);
      EXPECT_EQ(got.length, n + 8);
    } else if (has_receive) {  // it is still there
      w_.a.Post(WriteImmOf(from_.sge(0, 0), to_.at(), 0, 2));
      w_.cable.Run();
      EXPECT_EQ(w_.a.Sends() + ", " + w_.b.Receives(), "2 SUCCESS, 11 SUCCESS");
    }
    EXPECT_EQ(w_.b.Receives(), "");
  }
  ExpectAllWell();
}

TEST(UnreliableShared, AReceiveThatIsTakenCompletes) {
  // Shared receives: one too small; one whose message the sender takes back.
  // Expect: REM_INV_REQ_ERR each (class E), and the queue pair goes on.
  ReceiveQueue shared(16, 4);
  Wired w(Chunks(0), false, {.type = QpType::kUc},
          {.type = QpType::kUc, .number = 2, .shared = &shared});
  Memory from(&w.a, kSeveral), to(&w.b, kSeveral);
  bool wake = false;
  const Sge small = to.sge(0, 4), large = to.sge();
  const ReceiveWr receives[] = {
      {.local = small, .id = 11}, {.local = large, .id = 12}, {.local = large, .id = 13}};
  shared.Post(receives, &wake);
  w.a.Post(SendOf(from.sge(), 1));
  w.cable.Run();
  Sge parts[] = {from.sge(0, 140'000), from.sge(0, 8)};
  parts[1].key ^= 1;
  w.a.Post({.opcode = Opcode::kSend, .local = std::span<const Sge>(parts), .id = 2});
  w.cable.Run();
  ASSERT_TRUE(w.a.qp.Modify({.state = QpState::kRts}).ok());
  w.a.Post(SendOf(from.sge(), 3));
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "1 SUCCESS, 2 LOC_PROT_ERR, 3 SUCCESS");
  EXPECT_EQ(w.b.Receives(), "11 REM_INV_REQ_ERR, 12 REM_INV_REQ_ERR, 13 SUCCESS");
  EXPECT_EQ(w.b.qp.state(), QpState::kRts);
}

TEST(UnreliablePosts, OnlyItsOwnOpcodes) {
  // ibv_post_send(3). Expect: no reads, atomics or invalidations at the peer; windows are bound.
  Wired w(Chunks(0), false, {.type = QpType::kUc}, {.type = QpType::kUc, .number = 2});
  Memory memory(&w.a, 64), there(&w.b, 64);
  for (const Opcode op :
       {Opcode::kRead, Opcode::kCompareSwap, Opcode::kFetchAdd, Opcode::kSendWithInvalidate}) {
    const PostResult result =
        w.a.Post({.opcode = op, .local = memory.sge(0, 8), .remote = there.at(), .id = 1});
    EXPECT_EQ(result.error, PostError::kInvalidOpcode) << static_cast<int>(op);
  }
  Window window(&w.a);
  w.a.Post(window.Bind(&memory, 0, 8, Access::kRemoteWrite, 2));
  w.cable.Run();
  w.b.Post(WriteOf(there.sge(0, 8), {memory.at().address, window.key()}, 3));
  w.cable.Run();
  w.a.Post({.opcode = Opcode::kLocalInvalidate, .id = 4, .invalidate = window.key()});
  w.cable.Run();
  EXPECT_EQ(w.a.Sends() + ", " + w.b.Sends(), "2 SUCCESS, 4 SUCCESS, 3 SUCCESS");
  EXPECT_EQ(w.a.qp.counters().remote_writes, 1u);
}

TEST(UnreliableStates, TakeWhatIsOfAnyConnection) {
  // ibv_modify_qp(3), of IBV_QPT_UC. Expect: rights, but neither timers nor retries nor a Q_Key.
  Side side({.type = QpType::kUc});
  EXPECT_TRUE(side.qp.Modify({.access = Access::kLocalRead}).ok());
  for (const QpModify& change :
       {QpModify{.min_rnr_timer = 1}, QpModify{.rnr_retry = 1}, QpModify{.retry_count = 1},
        QpModify{.timeout = 1}, QpModify{.qkey = 1}}) {
    EXPECT_EQ(side.qp.Modify(change).code(), absl::StatusCode::kInvalidArgument);
  }
  const QpAttributes q = side.qp.Query();
  EXPECT_EQ(q.type, QpType::kUc);
  EXPECT_EQ(q.timeout + q.retry_count + q.rnr_retry + q.min_rnr_timer, 0);
  const Capabilities c = side.qp.capabilities();
  EXPECT_TRUE(c.unreliable_connection && c.immediate && c.memory_windows);
  EXPECT_FALSE(c.atomics || c.rnr || c.remote_completion || c.send_with_invalidate);
}

TEST(UnreliableHostile, WhatItNeverSaysEndsTheConnection) {
  // A peer that asks for reads and atomics, invalidates, refuses for now, or takes back what is not
  // its next request.
  // Expect: ERR, a NAK that says so, and no crash.
  const Bytes bad[] = {
      MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, 1), wire::AsBytes(wire::ReadRequest{})),
      MakeFpdu(UntaggedOf(wire::Opcode::kAtomicRequest, 1), wire::AsBytes(wire::AtomicRequest{})),
      MakeControlFpdu({ControlType::kRnrNak, NakCode::kNone, 1, 0}),
      MakeControlFpdu({ControlType::kReady, NakCode::kNone, 1, 0}),
      MakeControlFpdu({ControlType::kResume, NakCode::kNone, 2, 0}),
      MakeControlFpdu({ControlType::kAck, NakCode::kNone, 1, 0}),
  };
  for (const Bytes& each : bad) {
    Side side({.type = QpType::kUc});
    side.qp.Connected(OwnSession(false, false, 16, QpType::kUc));
    side.Feed(each);
    EXPECT_EQ(side.qp.state(), QpState::kErr) << TraceOf(each);
    EXPECT_TRUE(absl::StrContains(TraceOf(side.Drain()), "NAK")) << TraceOf(each);
  }
  Side side({.type = QpType::kUc});
  Memory to(&side, 64);
  side.qp.Connected(OwnSession(false, false, 16, QpType::kUc));
  side.PostReceive({.local = to.sge(), .id = 11});
  side.Feed(MakeFpdu(UntaggedOf(wire::Opcode::kSendInvalidate, 1)));
  EXPECT_EQ(side.Receives(), "11 WR_FLUSH_ERR");
}

class UnreliableHandshake : public testing::TestWithParam<std::pair<QpType, QpType>> {};

INSTANTIATE_TEST_SUITE_P(All, UnreliableHandshake,
                         testing::Values(std::pair(QpType::kRc, QpType::kRc),
                                         std::pair(QpType::kUc, QpType::kUc),
                                         std::pair(QpType::kRc, QpType::kUc),
                                         std::pair(QpType::kUc, QpType::kRc)));

TEST_P(UnreliableHandshake, BothEndsHaveOneType) {
  // Expect: agreed, with the features of the type; or refused with both types named.
  const auto [caller, listener] = GetParam();
  Offer mine, theirs;
  mine.type = caller;
  theirs.type = listener;
  const auto peer = DecodeRequest(EncodeRequest(mine));
  ASSERT_TRUE(peer.ok());
  const auto agreed = Agree(*peer, theirs);
  if (caller != listener) {
    EXPECT_EQ(agreed.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(absl::StrContains(agreed.status().message(), "type UC") &&
                absl::StrContains(agreed.status().message(), "type RC"))
        << agreed.status();
    return;
  }
  ASSERT_TRUE(agreed.ok()) << agreed.status();
  EXPECT_EQ(agreed->features.features, FeaturesOf(caller));
  const auto reply = DecodeReply(EncodeReply(*peer, theirs, *agreed), mine);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->session.features, agreed->features);
}

TEST(UnreliableNegotiation, EndsThatDoNotKnowItRefuse) {
  // A version that knows the other features alone, and a plain iWARP end.
  // Expect: the former rejects by the bit that is required; the latter is refused here.
  Offer mine;
  mine.type = QpType::kUc;
  const auto peer = DecodeRequest(EncodeRequest(mine));
  ASSERT_TRUE(peer.ok());
  wire::Record old;
  old.role = wire::kRoleReply;
  old.features = FeaturesOf(QpType::kRc);
  const auto settled = wire::Negotiate(old, peer->record);
  EXPECT_TRUE(absl::StrContains(settled.status().message(), "is required by the peer"))
      << settled.status();
  wire::MpaFrame plain;
  plain.revision = 2;
  std::vector<std::byte> frame(wire::kMpaMaxFrame);
  frame.resize(wire::EncodeMpa(plain, frame));
  const auto foreign = DecodeRequest(frame);
  ASSERT_TRUE(foreign.ok());
  EXPECT_EQ(Agree(*foreign, mine).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace verbena::engine
