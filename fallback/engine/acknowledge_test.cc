// SPDX-License-Identifier: Apache-2.0
// When a request is complete, and how few acknowledgements that takes (docs/wire.md).
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

constexpr SideOptions kSelective = {.signal_all = false};

SendWr WriteTo(Memory& from, Memory& to, uint64_t id, SendFlags flags = SendFlags::kNone) {
  return {.opcode = Opcode::kWrite,
          .local = from.sge(0, 8),
          .remote = to.at(),
          .id = id,
          .flags = flags};
}

TEST(Acknowledge, NothingCompletesBeforeIt) {
  // A signalled write has arrived and is applied; its acknowledgement is still on the cable.
  // Expect: a completion when that arrives, not before.
  Wired w;
  Memory from(&w.a, 8), to(&w.b, 8);
  from.Fill(1);
  w.a.Post(WriteTo(from, to, 1));
  w.cable.Send(0);
  EXPECT_EQ(w.a.Sends(), "");
  w.cable.Deliver(0);
  EXPECT_TRUE(to.Has(1, 0, 8));
  w.cable.Send(1);
  EXPECT_EQ(w.a.Sends(), "");
  w.cable.Deliver(1);
  EXPECT_EQ(w.a.Sends(), "1 SUCCESS");
}

TEST(Acknowledge, OneForMany) {
  // Ten writes arrive in one piece.
  // Expect: ten completions from one message.
  Wired w;
  Memory from(&w.a, 8), to(&w.b, 8);
  for (uint64_t i = 1; i <= 10; ++i) w.a.Post(WriteTo(from, to, i));
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(),
            "1 SUCCESS, 2 SUCCESS, 3 SUCCESS, 4 SUCCESS, 5 SUCCESS, 6 SUCCESS, 7 SUCCESS, "
            "8 SUCCESS, 9 SUCCESS, 10 SUCCESS");
  EXPECT_EQ(w.cable.Trace(1), "ACK(11)");
}

TEST(Acknowledge, RidesInFrontOfData) {
  // The target is still being polled, and then has something to say itself.
  // Expect: no lone message; the acknowledgement in front of the data, in one batch.
  Wired w;
  Memory from(&w.a, 8), to(&w.b, 8);
  w.a.Post(WriteTo(from, to, 1));
  w.cable.Send(0);
  w.cable.Deliver(0);
  w.cable.Send(1, /*idle=*/false);
  EXPECT_EQ(w.cable.OnTheWay(1), 0u);
  w.b.Post(WriteTo(to, from, 2));
  w.cable.Send(1, /*idle=*/false);
  EXPECT_EQ(w.cable.Trace(1), "ACK(2) Write*");
}

TEST(Acknowledge, GoesAloneWhenIdle) {
  // Nothing more was there to read.
  // Expect: the acknowledgement goes out by itself, once.
  Wired w;
  Memory from(&w.a, 8), to(&w.b, 8);
  w.a.Post(WriteTo(from, to, 1));
  w.cable.Send(0);
  w.cable.Deliver(0);
  w.cable.Send(1, /*idle=*/false);
  w.cable.Send(1, /*idle=*/true);
  w.cable.Send(1, /*idle=*/true);
  EXPECT_EQ(w.cable.Trace(1), "ACK(2)");
}

TEST(Acknowledge, GoesAloneAfterManyRequests) {
  // A poller that never sees an empty socket.
  // Expect: silence for 127 requests, then an acknowledgement.
  SideOptions wide;
  wide.limits.max_send_wr = 256;
  Wired w(Chunks(0), false, wide);
  Memory from(&w.a, 8), to(&w.b, 8);
  for (uint64_t i = 0; i < kAckEveryRequests - 2; ++i) w.a.Post(WriteTo(from, to, i));
  w.cable.Send(0);
  w.cable.Deliver(0);
  w.cable.Send(1, /*idle=*/false);
  EXPECT_EQ(w.cable.Trace(1), "");
  for (uint64_t i = 0; i < 2; ++i) w.a.Post(WriteTo(from, to, i));
  w.cable.Send(0);
  w.cable.Deliver(0);
  w.cable.Send(1, /*idle=*/false);
  EXPECT_EQ(w.cable.Trace(1), "ACK(129)");
}

TEST(Acknowledge, GoesAloneAfterManyBytes) {
  // The same by volume.
  Wired w;
  Memory from(&w.a, kAckEveryBytes), to(&w.b, kAckEveryBytes);
  w.a.Post({.opcode = Opcode::kWrite, .local = from.sge(), .remote = to.at(), .id = 1});
  w.cable.Send(0);
  w.cable.Deliver(0);
  w.cable.Send(1, /*idle=*/false);
  EXPECT_EQ(w.cable.Trace(1), "ACK(2)");
}

struct AskRow {
  const char* name;
  SendFlags flags;
  int posts;
  const char* trace;
};

// A queue of 8, nothing signalled by itself.
constexpr AskRow kAsks[] = {
    {"Unsignalled", SendFlags::kNone, 1, "Write"},
    {"Signalled", SendFlags::kSignaled, 1, "Write*"},
    {"Fenced", SendFlags::kFence, 1, "Write*"},
    {"Solicited", SendFlags::kSolicited, 1, "Write"},
    {"HalfTheQueue", SendFlags::kNone, 4, "Write Write Write Write"},
    {"MoreThanHalfTheQueue", SendFlags::kNone, 5, "Write* Write* Write* Write* Write*"},
};

class AckRequest : public testing::TestWithParam<AskRow> {};

TEST_P(AckRequest, BitOfTheLastSegment) {
  SideOptions options = kSelective;
  options.limits.max_send_wr = 8;
  Side side(options);
  side.qp.Connected(OwnSession(true));
  Memory from(&side, 8);
  for (int i = 0; i < GetParam().posts; ++i) {
    side.Post({.opcode = Opcode::kWrite,
               .local = from.sge(),
               .remote = {0x1000, 7},
               .flags = GetParam().flags});
  }
  EXPECT_EQ(TraceOf(side.Drain()), GetParam().trace);
}

INSTANTIATE_TEST_SUITE_P(Rows, AckRequest, testing::ValuesIn(kAsks),
                         [](const auto& i) { return std::string(i.param.name); });

TEST(AckRequest, OnlyInTheLastSegment) {
  // A write, a send of three segments, and a write with an immediate.
  // Expect: the bit in the last of each; with an immediate that is the Immediate.
  Side side;
  side.qp.Connected(OwnSession(true));
  Memory from(&side, 150000);
  side.Post({.opcode = Opcode::kWrite, .local = from.sge(), .remote = {0, 7}});
  side.Post({.opcode = Opcode::kSend, .local = from.sge()});
  side.Post({.opcode = Opcode::kWriteWithImm, .local = from.sge(0, 8), .remote = {0, 7}});
  EXPECT_EQ(TraceOf(side.Drain()), "Write~ Write~ Write* Send~ Send~ Send* Write# Imm*");
}

// What is not signalled asks for no acknowledgement; whoever needs to know that it is done must
// hear of it all the same. Each scenario: an unsignalled write, then something that waits for it.
class Unsignalled : public testing::Test {
 protected:
  Unsignalled() { w_.a.Post(WriteTo(from_, to_, 1)); }
  Wired w_{Chunks(0), false, kSelective};
  Memory from_{&w_.a, 8}, to_{&w_.b, 8};
};

TEST_F(Unsignalled, CompletesSilently) {
  // A signalled one follows.
  // Expect: one completion.
  w_.a.Post(WriteTo(from_, to_, 2, SendFlags::kSignaled));
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "2 SUCCESS");
  EXPECT_EQ(w_.a.qp.outstanding(), 0u);
}

TEST_F(Unsignalled, DrainedInSqd) {
  // Expect: SQD reports the drained queue (IBTA 10.3.1.5).
  w_.cable.Run();
  ASSERT_TRUE(w_.a.qp.Modify({.state = QpState::kSqd}).ok());
  w_.cable.Run();
  EXPECT_TRUE(w_.a.Had(EventType::kSendQueueDrained));
}

TEST_F(Unsignalled, LocalErrorBehindIt) {
  // A request with an unknown local key follows.
  // Expect: its error in its turn.
  w_.a.Post({.opcode = Opcode::kSend, .local = Sge{0x1000, 8, 0xbad}, .id = 2});
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "2 LOC_PROT_ERR");
}

TEST_F(Unsignalled, LocalOperationBehindIt) {
  // A signalled bind follows: it involves no peer.
  // Expect: its completion.
  Window window(&w_.a);
  SendWr bind = window.Bind(&from_, 0, 8, Access::kRemoteRead, 2);
  bind.flags = SendFlags::kSignaled;
  w_.a.Post(bind);
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "2 SUCCESS");
}

TEST_F(Unsignalled, ReadAnswersForIt) {
  // A signalled read follows.
  // Expect: its answer acknowledges both.
  w_.a.Post({.opcode = Opcode::kRead,
             .local = from_.sge(),
             .remote = to_.at(),
             .id = 2,
             .flags = SendFlags::kSignaled});
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "2 SUCCESS");
  EXPECT_EQ(w_.a.qp.outstanding(), 0u);
}

TEST_F(Unsignalled, RefusedSend) {
  // An unsignalled send is refused for want of a receive and goes again; a signalled one follows.
  // Expect: both arrive, though the first asks for no acknowledgement.
  Memory into(&w_.b, 8);
  w_.a.Post({.opcode = Opcode::kSend, .local = from_.sge(), .id = 2});
  w_.a.Post(
      {.opcode = Opcode::kSend, .local = from_.sge(), .id = 3, .flags = SendFlags::kSignaled});
  w_.cable.Run();
  w_.b.PostReceive({.local = into.sge(), .id = 11});
  w_.b.PostReceive({.local = into.sge(), .id = 12});
  w_.cable.Run();
  EXPECT_EQ(w_.b.Receives(), "11 SUCCESS, 12 SUCCESS");
  EXPECT_EQ(w_.a.Sends(), "3 SUCCESS");
}

TEST(Acknowledge, ReadAnswersNeedNone) {
  // A read and an atomic.
  // Expect: the answers are the acknowledgement.
  Wired w;
  Memory from(&w.a, 8), to(&w.b, 8);
  w.a.Post({.opcode = Opcode::kRead, .local = from.sge(), .remote = to.at(), .id = 1});
  w.a.Post({.opcode = Opcode::kFetchAdd, .local = from.sge(), .remote = to.at(), .id = 2});
  w.cable.Run();
  EXPECT_EQ(w.cable.Trace(1), "Data Original");
  EXPECT_EQ(w.a.Sends(), "1 SUCCESS, 2 SUCCESS");
}

TEST(Acknowledge, CompletionsKeepPostingOrder) {
  // A read whose answer is held back, and writes behind it that are acknowledged.
  // Expect: nothing completes before the read does.
  Wired w;
  Memory from(&w.a, 8), to(&w.b, 8);
  w.a.Post({.opcode = Opcode::kRead, .local = from.sge(), .remote = to.at(), .id = 1});
  w.a.Post(WriteTo(from, to, 2));
  w.cable.Send(0);
  w.a.Feed(MakeControlFpdu({wire::ControlType::kAck, wire::NakCode::kNone, 3, 0}));
  EXPECT_EQ(w.a.Sends(), "");
  w.cable.Deliver(0);
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "1 SUCCESS, 2 SUCCESS");
}

TEST(Acknowledge, LocalOperationsKeepPostingOrder) {
  // A bind, a write that is on its way, and an invalidation of the window, which needs no peer.
  // Expect: the window is dead at once, its completion comes after the write's.
  Wired w;
  Memory from(&w.a, 8), to(&w.b, 8);
  Window window(&w.a);
  w.a.Post(window.Bind(&from, 0, 8, Access::kRemoteRead, 1));
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "1 SUCCESS");
  const uint32_t key = window.key();
  w.a.Post(WriteTo(from, to, 2));
  w.a.Post({.opcode = Opcode::kLocalInvalidate, .id = 3, .invalidate = key});
  w.cable.Send(0);
  EXPECT_EQ(w.a.keys.Find(key), nullptr);
  EXPECT_EQ(w.a.Sends(), "");
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "2 SUCCESS, 3 SUCCESS");
}

TEST(Acknowledge, OfTheSameRequestTwice) {
  // Expect: harmless.
  Wired w;
  w.a.Feed(MakeControlFpdu({wire::ControlType::kAck, wire::NakCode::kNone, 1, 0}));
  w.a.Feed(MakeControlFpdu({wire::ControlType::kAck, wire::NakCode::kNone, 1, 0}));
  EXPECT_EQ(w.a.qp.state(), QpState::kRts);
}

TEST(Fence, WaitsForReadsOnly) {
  // Write, read, fenced write.
  // Expect: the first two go at once, the fenced one when the read is answered.
  Wired w;
  Memory from(&w.a, 8), to(&w.b, 8);
  w.a.Post(WriteTo(from, to, 1));
  w.a.Post({.opcode = Opcode::kRead, .local = from.sge(), .remote = to.at(), .id = 2});
  w.a.Post(WriteTo(from, to, 3, SendFlags::kFence));
  w.cable.Send(0);
  EXPECT_EQ(w.cable.Trace(0), "Write* Read");
  w.cable.Deliver(0);
  w.cable.Send(0);
  EXPECT_EQ(w.cable.Trace(0), "");
  w.cable.Send(1);
  w.cable.Deliver(1);
  w.cable.Send(0);
  EXPECT_EQ(w.cable.Trace(0), "Write*");
}

class Depth : public testing::TestWithParam<uint32_t> {};

TEST_P(Depth, IsNeverExceeded) {
  // More reads and atomics than the peer takes at once.
  // Expect: so many on the way; each answer lets one more go.
  const uint32_t depth = GetParam();
  Side side;
  side.qp.Connected(OwnSession(true, false, depth));
  Memory into(&side, 8);
  for (uint64_t i = 0; i < depth + 2; ++i) {
    const Opcode op = i % 2 == 0 ? Opcode::kRead : Opcode::kFetchAdd;
    side.Post({.opcode = op, .local = into.sge(), .remote = {0x1000, 7}, .id = i});
  }
  std::vector<Fpdu> sent = ParseFpdus(side.Drain());
  ASSERT_EQ(sent.size(), depth);
  const auto request = wire::Load<wire::ReadRequest>(sent[0].payload.data());
  wire::TaggedHeader h;
  h.ddp |= wire::kLast;
  h.rdmap = wire::RdmapByte(wire::Opcode::kReadResponse);
  h.stag = request.sink_stag;
  side.Feed(MakeFpdu(h, Bytes(8)));
  EXPECT_EQ(side.Sends(), "0 SUCCESS");
  EXPECT_EQ(ParseFpdus(side.Drain()).size(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Reads, Depth, testing::Values(1, 2, 7, 32),
                         [](const auto& i) { return "Of" + std::to_string(i.param); });

TEST(Depth, NamesItsSinkOnce) {
  // Reads into one region.
  // Expect: each names a key of its own, none of them the region's.
  Side side;
  side.qp.Connected(OwnSession(true));
  Memory into(&side, 8);
  for (int i = 0; i < 2; ++i) {
    side.Post({.opcode = Opcode::kRead, .local = into.sge(), .remote = {0x1000, 7}});
  }
  const std::vector<Fpdu> sent = ParseFpdus(side.Drain());
  ASSERT_EQ(sent.size(), 2u);
  const auto first = wire::Load<wire::ReadRequest>(sent[0].payload.data());
  const auto second = wire::Load<wire::ReadRequest>(sent[1].payload.data());
  EXPECT_NE(uint32_t{first.sink_stag}, uint32_t{second.sink_stag});
  EXPECT_NE(uint32_t{first.sink_stag}, uint32_t{into.key()});
}

}  // namespace
}  // namespace verbena::engine
