// SPDX-License-Identifier: Apache-2.0
// What RFC 6581 demands and no other test shows: rows of docs/rfc/6581.md.
#include "fallback/engine/handshake.h"
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

constexpr uint16_t kUnspecified = wire::kMpaDepthUnspecified;

wire::MpaFrame FrameOf(bool reply, uint16_t ird, uint16_t ord) {
  wire::MpaFrame f;
  f.reply = reply;
  f.enhanced = true;
  f.ird = ird;
  f.ord = ord;
  return f;
}
Bytes Encoded(const wire::MpaFrame& f) {
  Bytes out(wire::kMpaMaxFrame);
  out.resize(wire::EncodeMpa(f, out));
  return out;
}

// What a listener with depths of 5 answers, and what it goes by.
struct Answer {
  explicit Answer(const wire::MpaFrame& request) {
    const Offer mine{"", 5, 5, {}};
    peer = *DecodeRequest(Encoded(request));
    session = *Agree(peer, mine);
    bytes = EncodeReply(peer, mine, session);
    frame = *wire::DecodeMpa(bytes);
  }
  PeerRequest peer;
  Session session;
  Bytes bytes;
  wire::MpaFrame frame;
};

TEST(Depths, NotNegotiatedIsAnsweredInKind) {
  // 9.1. Each of the initiator's depths is 0x3fff in turn.
  // Expect: 0x3fff for the one that answers it; the responder's own depth holds there.
  const Answer ord(FrameOf(false, 3, kUnspecified));
  EXPECT_EQ(ord.frame.ird, kUnspecified);
  EXPECT_EQ(ord.session.ird, 5u);
  EXPECT_EQ(ord.frame.ord, 3);
  const Answer ird(FrameOf(false, kUnspecified, 3));
  EXPECT_EQ(ird.frame.ord, kUnspecified);
  EXPECT_EQ(ird.session.ord, 5u);
  EXPECT_EQ(ird.frame.ird, 3);
}

TEST(Depths, NotNegotiatedLeavesTheInitiatorsOwn) {
  const auto reply =
      DecodeReply(Encoded(FrameOf(true, kUnspecified, kUnspecified)), {"", 5, 7, {}});
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->session.ord, 5u);
  EXPECT_EQ(reply->session.ird, 7u);
}

TEST(Depths, OfZeroMeansNoReads) {
  // 9.1. The peer takes no reads at all.
  // Expect: the answer wants none; a read fails in its turn and nothing of it is sent.
  const Answer none(FrameOf(false, 0, 3));
  EXPECT_EQ(none.frame.ord, 0);
  Side side;
  Session session = none.session;
  session.initiator = true;
  side.qp.Connected(session);
  Memory memory(&side, 64);
  side.Post({.opcode = Opcode::kSend, .local = memory.sge(0, 8), .id = 1});
  side.Post({.opcode = Opcode::kRead, .local = memory.sge(0, 8), .remote = {0, 7}, .id = 2});
  EXPECT_EQ(TraceOf(side.Drain()), "Send");
  side.Drain();
  EXPECT_EQ(side.Sends(), "1 SUCCESS, 2 REM_INV_REQ_ERR");
}

TEST(Models, ClientServerHasNoOptions) {
  // 9.2. A is 0, and B, C, D are set all the same.
  // Expect: they are ignored; the answer has none of the four.
  wire::MpaFrame f = FrameOf(false, 3, 3);
  f.rtr_send = f.rtr_write = f.rtr_read = true;
  const Answer answer(f);
  EXPECT_EQ(answer.session.ready_frame, ReadyFrame::kNone);
  EXPECT_FALSE(answer.frame.peer_to_peer);
  EXPECT_FALSE(answer.frame.rtr_send || answer.frame.rtr_write || answer.frame.rtr_read);
  f.reply = true;
  EXPECT_EQ(DecodeReply(Encoded(f), {})->session.ready_frame, ReadyFrame::kNone);
}

TEST(Models, OptionsThatNobodyOffered) {
  // 9.2. A is 1, without an option.
  // Expect: A, and one that the responder takes.
  wire::MpaFrame f = FrameOf(false, 3, 3);
  f.peer_to_peer = true;
  const Answer answer(f);
  EXPECT_TRUE(answer.frame.peer_to_peer && answer.frame.rtr_write);
  EXPECT_EQ(answer.session.ready_frame, ReadyFrame::kWrite);
}

TEST(Enhanced, ExactlyIfTheRequestIs) {
  // 6 and 10.
  wire::MpaFrame f = FrameOf(false, 3, 3);
  EXPECT_TRUE(Answer(f).frame.enhanced);
  EXPECT_EQ(Answer(f).frame.revision, 2);
  f.enhanced = false;
  EXPECT_FALSE(Answer(f).frame.enhanced);
  EXPECT_EQ(Answer(f).frame.revision, 2);
  f.revision = 1;
  EXPECT_FALSE(Answer(f).frame.enhanced);
  EXPECT_EQ(Answer(f).frame.revision, 1);
}

class ReadyFirst : public testing::TestWithParam<ReadyFrame> {};

TEST_P(ReadyFirst, NothingGoesBeforeIt) {
  // 5. Requests were posted before the connection is there.
  // Expect: the ready-to-receive frame leads.
  Side side;
  Session session = ForeignSession(true);
  session.ready_frame = GetParam();
  Memory memory(&side, 64);
  side.qp.Connected(session);
  side.Post({.opcode = Opcode::kSend, .local = memory.sge(0, 8), .id = 1});
  const std::vector<Fpdu> sent = ParseFpdus(side.Drain());
  ASSERT_EQ(sent.size(), 2u);
  constexpr wire::Opcode kOpcodes[] = {wire::Opcode::kControl, wire::Opcode::kWrite,
                                       wire::Opcode::kReadRequest, wire::Opcode::kSend};
  EXPECT_EQ(sent[0].opcode(), kOpcodes[static_cast<int>(GetParam())]);
  EXPECT_EQ(sent[1].payload.size(), 8u);
}

INSTANTIATE_TEST_SUITE_P(Kinds, ReadyFirst,
                         testing::Values(ReadyFrame::kWrite, ReadyFrame::kRead, ReadyFrame::kSend));

}  // namespace
}  // namespace verbena::engine
