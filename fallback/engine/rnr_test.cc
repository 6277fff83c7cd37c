// SPDX-License-Identifier: Apache-2.0
// A send that finds no receive posted (IBTA 9.7.5.2.8, docs/wire.md "No receive posted"), with
// other requests behind it on the wire.
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

constexpr Nanos kMs = 1000000;

class Rnr : public testing::Test {
 protected:
  SendWr Send(uint64_t id) { return {.opcode = Opcode::kSend, .local = from_.sge(0, 8), .id = id}; }
  SendWr Write(uint64_t id, uint64_t offset) {
    return {.opcode = Opcode::kWrite, .local = from_.sge(0, 8), .remote = to_.at(offset), .id = id};
  }
  SendWr Read(uint64_t id) {
    return {.opcode = Opcode::kRead, .local = back_.sge(0, 8), .remote = to_.at(), .id = id};
  }
  SendWr Add(uint64_t id) {
    return {.opcode = Opcode::kFetchAdd,
            .local = back_.sge(8, 8),
            .remote = to_.at(16),
            .id = id,
            .atomic = {.compare_add = 5}};
  }
  void PostReceive(uint64_t id) { w_.b.PostReceive({.local = into_.sge(), .id = id}); }
  void After(Nanos time) {
    w_.cable.now += time;
    w_.cable.Run();
  }

  Wired w_;
  Memory from_{&w_.a, 256 << 10}, back_{&w_.a, 64}, to_{&w_.b, 64}, into_{&w_.b, 256 << 10};
};

TEST_F(Rnr, NothingBehindItIsApplied) {
  // Send, write, fetch-and-add, read, send are on the wire when the first is refused.
  // Expect: none of them happens, nothing completes, and no error.
  from_.Fill(1);
  for (const SendWr& wr : {Send(1), Write(2, 0), Add(3), Read(4), Send(5)}) w_.a.Post(wr);
  w_.cable.Send(0);
  EXPECT_EQ(w_.cable.Trace(0), "Send* Write* Atomic Read Send*");
  w_.cable.Run();
  EXPECT_EQ(w_.cable.Trace(1), "RNR-NAK(2)");
  EXPECT_TRUE(to_.IsZero());
  EXPECT_EQ(w_.a.Sends(), "");
  EXPECT_EQ(w_.b.Receives(), "");
  EXPECT_EQ(w_.a.qp.counters().rnr_naks_received, 1u);
  EXPECT_EQ(w_.b.qp.counters().rnr_naks_sent, 1u);
}

TEST_F(Rnr, ReadyCutsTheWait) {
  // The same, then two receives are posted.
  // Expect: the peer says so; the refused one goes alone, then, after its acknowledgement, the
  // rest: each is applied once.
  from_.Fill(1);
  to_.word(2) = 7;
  for (const SendWr& wr : {Send(1), Write(2, 0), Add(3), Read(4), Send(5)}) w_.a.Post(wr);
  w_.cable.Run();
  w_.cable.Trace(0);
  PostReceive(11);
  PostReceive(12);
  w_.cable.Send(1);
  w_.cable.Deliver(1);
  w_.cable.Send(0);
  EXPECT_EQ(w_.cable.Trace(0), "RESUME(2) Send*");
  w_.cable.Run();
  EXPECT_EQ(w_.cable.Trace(0), "Write* Atomic Read Send*");
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 SUCCESS, 3 SUCCESS, 4 SUCCESS, 5 SUCCESS");
  EXPECT_EQ(w_.b.Receives(), "11 SUCCESS, 12 SUCCESS");
  EXPECT_EQ(to_.word(2), 12u);
  EXPECT_EQ(back_.word(1), 7u);
  EXPECT_TRUE(back_.Has(1, 0, 8));
}

TEST_F(Rnr, ReceiveWakesTheOwner) {
  // Expect: the post after a refusal says that somebody waits, the next one does not.
  w_.a.Post(Send(1));
  w_.cable.Run();
  EXPECT_TRUE(w_.b.PostReceive({.local = into_.sge(), .id = 11}));
  EXPECT_FALSE(w_.b.PostReceive({.local = into_.sge(), .id = 12}));
}

TEST_F(Rnr, TimerWithoutReady) {
  // A peer that never says that a receive is there; its timer code 12 is 0.64 ms.
  // Expect: nothing before that time, RESUME and the request then.
  w_.a.Post(Send(1));
  w_.cable.Send(0);
  w_.cable.Trace(0);
  w_.a.Feed(MakeControlFpdu({wire::ControlType::kRnrNak, wire::NakCode::kNone, 2, 12}));
  EXPECT_EQ(w_.a.qp.deadline(), 640000);
  w_.a.qp.Tick(639999);
  EXPECT_EQ(TraceOf(w_.a.Drain()), "");
  w_.a.qp.Tick(640000);
  EXPECT_EQ(TraceOf(w_.a.Drain()), "RESUME(2) Send*");
  EXPECT_EQ(w_.a.qp.deadline(), kNever);
}

TEST_F(Rnr, TimerCodeIsTheRefusersOwn) {
  // min_rnr_timer 31 at the target.
  ASSERT_TRUE(w_.b.qp.Modify({.state = QpState::kSqd}).ok());
  ASSERT_TRUE(w_.b.qp.Modify({.min_rnr_timer = 31}).ok());
  w_.a.Post(Send(1));
  w_.cable.Run();
  EXPECT_EQ(w_.a.qp.deadline(), 491520000);
}

TEST_F(Rnr, SequenceNumbersGoBack) {
  // Send 1 is refused with Send 2, a read and an atomic behind it.
  // Expect: the second time they carry the numbers of the first time.
  for (const SendWr& wr : {Send(1), Read(2), Send(3), Add(4)}) w_.a.Post(wr);
  const std::vector<Fpdu> before = ParseFpdus(w_.a.Drain());
  ASSERT_EQ(before.size(), 4u);
  w_.a.Feed(MakeControlFpdu({wire::ControlType::kRnrNak, wire::NakCode::kNone, 2, 1}));
  w_.a.qp.Tick(kMs);
  std::vector<Fpdu> after = ParseFpdus(w_.a.Drain());
  ASSERT_EQ(after.size(), 2u);
  w_.a.Feed(MakeControlFpdu({wire::ControlType::kAck, wire::NakCode::kNone, 2, 0}));
  for (Fpdu& f : ParseFpdus(w_.a.Drain())) after.push_back(f);
  ASSERT_EQ(after.size(), 5u);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(after[i + 1].opcode(), before[i].opcode());
    EXPECT_EQ(uint32_t{after[i + 1].untagged.msn}, uint32_t{before[i].untagged.msn}) << i;
  }
}

TEST_F(Rnr, DroppedReadsGiveTheirPlacesBack) {
  // As many reads as the peer takes are behind the refused send; all are dropped.
  // Expect: they go again, all at once, and complete.
  SideOptions left, right;
  right.number = 2;
  Side a(left), b(right);
  a.qp.Connected(OwnSession(true, false, 2));
  b.qp.Connected(OwnSession(false, false, 2));
  Cable cable(&a, &b);
  Memory from(&a, 8), to(&b, 8), into(&b, 8);
  a.Post({.opcode = Opcode::kSend, .local = from.sge(), .id = 1});
  for (uint64_t id : {2, 3}) {
    a.Post({.opcode = Opcode::kRead, .local = from.sge(), .remote = to.at(), .id = id});
  }
  cable.Run();
  cable.Trace(0);
  b.PostReceive({.local = into.sge(), .id = 11});
  cable.Run();
  EXPECT_EQ(cable.Trace(0), "RESUME(1) Send* Read Read");
  EXPECT_EQ(a.Sends(), "1 SUCCESS, 2 SUCCESS, 3 SUCCESS");
}

TEST_F(Rnr, EarlierReadsStand) {
  // A read before the refused send; its answer comes after the refusal.
  // Expect: it is not sent again.
  for (const SendWr& wr : {Read(1), Send(2), Read(3)}) w_.a.Post(wr);
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS");
  w_.cable.Trace(0);
  PostReceive(11);
  w_.cable.Run();
  EXPECT_EQ(w_.cable.Trace(0), "RESUME(3) Send* Read");
  EXPECT_EQ(w_.a.Sends(), "2 SUCCESS, 3 SUCCESS");
}

TEST_F(Rnr, RefusalAcknowledgesWhatCameBefore) {
  // A write, then the send that is refused; the write's own acknowledgement is not sent.
  // Expect: the refusal completes the write.
  w_.a.Post(Write(1, 0));
  w_.a.Post(Send(2));
  w_.a.Drain();
  w_.a.Feed(MakeControlFpdu({wire::ControlType::kRnrNak, wire::NakCode::kNone, 3, 1}));
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS");
}

TEST_F(Rnr, LargeSendStopsAtItsFirstSegment) {
  // A send of four segments is refused while its later ones are still to be framed.
  // Expect: those do not follow; after RESUME it begins anew.
  from_.Fill(3);
  w_.a.Post({.opcode = Opcode::kSend, .local = from_.sge(0, 200000), .id = 1});
  w_.cable.Run();
  EXPECT_TRUE(w_.cable.Trace(0).starts_with("Send~ Send~"));
  PostReceive(11);
  w_.cable.Run();
  EXPECT_EQ(w_.cable.Trace(0), "RESUME(2) Send~ Send~ Send~ Send*");
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS");
  EXPECT_TRUE(into_.Has(3, 0, 200000));
}

TEST_F(Rnr, WriteWithImmediate) {
  // The receive is missed at the Immediate, when the write's bytes are placed already.
  // Expect: the whole request again, one completion with its length.
  w_.a.Post({.opcode = Opcode::kWriteWithImm,
             .local = from_.sge(0, 32),
             .remote = to_.at(),
             .id = 1,
             .immediate = 0x01020304});
  w_.a.Post(Write(2, 40));
  w_.cable.Run();
  w_.cable.Trace(0);
  EXPECT_EQ(w_.a.Sends(), "");
  PostReceive(11);
  w_.cable.Run();
  EXPECT_EQ(w_.cable.Trace(0), "RESUME(2) Write# Imm* Write*");
  const WorkCompletion wc = w_.b.NextReceive();
  EXPECT_EQ(wc.id, 11u);
  EXPECT_EQ(wc.length, 32u);
  EXPECT_EQ(wc.immediate_or_key, 0x01020304u);
  EXPECT_EQ(w_.b.Receives(), "");
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 SUCCESS");
}

TEST_F(Rnr, LocalOperationsBehindItRunOnce) {
  // A bind behind the refused send ran before the refusal came back.
  // Expect: it does not run again (the window is bound), and completes in its turn.
  Window window(&w_.a);
  w_.a.Post(Send(1));
  w_.a.Post(window.Bind(&from_, 0, 8, Access::kRemoteRead, 2));
  w_.cable.Run();
  const uint32_t key = window.key();
  EXPECT_NE(w_.a.keys.Find(key), nullptr);
  PostReceive(11);
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 SUCCESS");
  EXPECT_EQ(window.key(), key);
}

TEST_F(Rnr, OtherDirectionFlows) {
  // The refused end's own answers and acknowledgements go on.
  // Expect: the target's write and read complete meanwhile.
  Memory mine(&w_.b, 16);
  w_.a.Post(Send(1));
  w_.cable.Run();
  w_.b.Post({.opcode = Opcode::kWrite, .local = mine.sge(0, 8), .remote = from_.at(), .id = 21});
  w_.b.Post({.opcode = Opcode::kRead, .local = mine.sge(8, 8), .remote = from_.at(), .id = 22});
  w_.cable.Run();
  EXPECT_EQ(w_.b.Sends(), "21 SUCCESS, 22 SUCCESS");
}

TEST_F(Rnr, BothDirectionsRefused) {
  w_.a.Post(Send(1));
  Memory mine(&w_.b, 8), space(&w_.a, 8);
  w_.b.Post({.opcode = Opcode::kSend, .local = mine.sge(), .id = 2});
  w_.cable.Run();
  PostReceive(11);
  w_.a.PostReceive({.local = space.sge(), .id = 12});
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends() + " " + w_.b.Sends(), "1 SUCCESS 2 SUCCESS");
}

struct RetryRow {
  uint8_t retries;
  int refusals;  // until it fails
};

class RnrRetry : public Rnr, public testing::WithParamInterface<RetryRow> {};

TEST_P(RnrRetry, AreCounted) {
  // No receive ever comes, and no READY.
  // Expect: RNR_RETRY_EXC_ERR after so many refusals, the rest flushed; 7 is for ever.
  ASSERT_TRUE(w_.a.qp.Modify({.state = QpState::kSqd}).ok());
  ASSERT_TRUE(w_.a.qp.Modify({.rnr_retry = GetParam().retries}).ok());
  ASSERT_TRUE(w_.a.qp.Modify({.state = QpState::kRts}).ok());
  w_.a.Post(Send(1));
  w_.a.Post(Write(2, 0));
  w_.cable.Run();
  for (int i = 1; i < GetParam().refusals; ++i) {
    ASSERT_EQ(w_.a.Sends(), "") << i;
    After(kMs);
  }
  if (GetParam().retries == 7) return;
  EXPECT_EQ(w_.a.Sends(), "1 RNR_RETRY_EXC_ERR, 2 WR_FLUSH_ERR");
  EXPECT_EQ(w_.a.qp.state(), QpState::kErr);
  EXPECT_EQ(w_.b.qp.state(), QpState::kErr);
  EXPECT_EQ(w_.a.qp.counters().rnr_naks_received, static_cast<uint64_t>(GetParam().refusals));
}

INSTANTIATE_TEST_SUITE_P(Counts, RnrRetry,
                         testing::Values(RetryRow{0, 1}, RetryRow{1, 2}, RetryRow{3, 4},
                                         RetryRow{6, 7}, RetryRow{7, 50}),
                         [](const auto& i) { return "Of" + std::to_string(i.param.retries); });

TEST_F(Rnr, ProgressRenewsTheRetries) {
  // rnr_retry 1; each of three sends is refused once.
  ASSERT_TRUE(w_.a.qp.Modify({.state = QpState::kSqd}).ok());
  ASSERT_TRUE(w_.a.qp.Modify({.rnr_retry = uint8_t{1}}).ok());
  ASSERT_TRUE(w_.a.qp.Modify({.state = QpState::kRts}).ok());
  for (uint64_t id : {1, 2, 3}) {
    w_.a.Post(Send(id));
    w_.cable.Run();
    PostReceive(id);
    w_.cable.Run();
  }
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 SUCCESS, 3 SUCCESS");
}

TEST_F(Rnr, SqdWaitsForTheRefusedRequest) {
  // The queue is told to drain while a refused send waits.
  // Expect: not drained, since it has begun (IBTA 10.3.1.5); it goes again, and then it is. What
  // was posted behind it waits for RTS.
  w_.a.Post(Send(1));
  w_.cable.Run();
  ASSERT_TRUE(w_.a.qp.Modify({.state = QpState::kSqd}).ok());
  w_.a.Post(Write(2, 0));
  w_.cable.Run();
  EXPECT_FALSE(w_.a.Had(EventType::kSendQueueDrained));
  PostReceive(11);
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS");
  EXPECT_TRUE(w_.a.Had(EventType::kSendQueueDrained));
  ASSERT_TRUE(w_.a.qp.Modify({.state = QpState::kRts}).ok());
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "2 SUCCESS");
}

TEST_F(Rnr, SharedQueueWakesWhoWaits) {
  // An empty shared receive queue.
  ReceiveQueue shared(8, 2);
  SideOptions right;
  right.number = 2;
  right.shared = &shared;
  Wired w(Chunks(0), false, {}, right);
  Memory from(&w.a, 8), into(&w.b, 8);
  w.a.Post({.opcode = Opcode::kSend, .local = from.sge(), .id = 1});
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "");
  const ReceiveWr wr{.local = into.sge(), .id = 11};
  bool wake = false;
  EXPECT_TRUE(shared.Post({&wr, 1}, &wake).ok());
  EXPECT_TRUE(wake);
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "1 SUCCESS");
  EXPECT_EQ(w.b.Receives(), "11 SUCCESS");
}

class RnrSplits : public testing::TestWithParam<uint32_t> {};

TEST_P(RnrSplits, EveryRequestIsAppliedOnce) {
  // Twenty sends, fetch-and-adds and writes each, receives coming one by one, bytes in any pieces.
  // Expect: all complete in order; the sum says that each addition ran once.
  Wired w(GetParam() == 0 ? Chunks(1) : Chunks::Seeded(GetParam()));
  Memory from(&w.a, 64), to(&w.b, 64), into(&w.b, 64);
  std::string expected;
  for (uint64_t i = 0; i < 60; i += 3) {
    w.a.Post({.opcode = Opcode::kSend, .local = from.sge(), .id = i});
    w.a.Post({.opcode = Opcode::kFetchAdd,
              .local = from.sge(0, 8),
              .remote = to.at(),
              .id = i + 1,
              .atomic = {.compare_add = 1}});
    w.a.Post({.opcode = Opcode::kWrite, .local = from.sge(8, 8), .remote = to.at(8), .id = i + 2});
    for (uint64_t k = i; k < i + 3; ++k) {
      expected += (k == 0 ? "" : ", ") + std::to_string(k) + " SUCCESS";
    }
  }
  for (uint64_t i = 0; i < 20; ++i) {
    w.cable.Run();
    w.b.PostReceive({.local = into.sge(), .id = i});
  }
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), expected);
  EXPECT_EQ(to.word(0), 20u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RnrSplits, testing::Range(0u, 8u));

}  // namespace
}  // namespace verbena::engine
