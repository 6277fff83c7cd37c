// SPDX-License-Identifier: Apache-2.0
// What a peer might gain by well-formed lies: memory before it has left, rights that it does not
// have, numbers that wrap. malformed_test.cc has what is wrong at first sight.
#include <cerrno>

#include "absl/strings/match.h"
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

using wire::ControlType;
using wire::NakCode;

Bytes Say(ControlType type, uint32_t rsn, NakCode code = NakCode::kNone) {
  return MakeControlFpdu({type, code, rsn, 0});
}

Bytes ReadResponse(uint32_t sink, size_t size) {
  wire::TaggedHeader h = WriteHeader(sink, 0);
  h.rdmap = wire::RdmapByte(wire::Opcode::kReadResponse);
  return MakeFpdu(h, Bytes(size));
}

Bytes ReadRequestFor(uint32_t size, const RemoteAddress& from) {
  wire::ReadRequest r;
  r.size = size;
  r.source_stag = from.key;
  r.source_offset = from.address;
  return MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, 1), wire::AsBytes(r));
}

// What the end says last: the code of its NAK, kNone if it says none.
NakCode RefusalOf(Side* side) {
  const std::vector<Fpdu> sent = ParseFpdus(side->Drain());
  if (sent.size() < 2 || sent.back().opcode() != wire::Opcode::kTerminate) return NakCode::kNone;
  return wire::ReadControl(sent[sent.size() - 2].untagged).code;
}

// Two writes, a read and a send are framed; so many bytes have left, and the socket is full.
class HalfSent : public testing::Test {
 protected:
  static constexpr uint32_t kSize = 40000;
  static constexpr size_t kFrame = wire::FpduSize(sizeof(wire::TaggedHeader), kSize);

  void Send(size_t bytes) {
    side_.qp.Connected(OwnSession(true));
    for (uint64_t id : {1, 2}) {
      side_.Post({.opcode = Opcode::kWrite, .local = from_.sge(), .remote = {0, 7}, .id = id});
    }
    side_.Post({.opcode = Opcode::kRead, .local = into_.sge(), .remote = {0, 7}, .id = 3});
    side_.Post({.opcode = Opcode::kSend, .local = from_.sge(), .id = 4});
    side_.qp.Gather(true, 0);
    side_.qp.Sent(bytes);
  }

  Side side_;
  Memory from_{&side_, kSize}, into_{&side_, 8};
};

TEST_F(HalfSent, WhatHasLeftIsAcknowledged) {
  Send(kFrame);
  side_.Feed(Say(ControlType::kAck, 1));
  EXPECT_EQ(side_.Sends(), "1 SUCCESS");
  EXPECT_EQ(side_.qp.state(), QpState::kRts);
  side_.Drain();
  side_.Feed(Say(ControlType::kAck, 2));
  EXPECT_EQ(side_.Sends(), "2 SUCCESS");
}

TEST_F(HalfSent, NothingElseCanBe) {
  // The last byte of the first write is still here; the peer says that it was applied.
  // Expect: no success: the program would put something else where those bytes are read from.
  Send(kFrame - 1);
  side_.Feed(Say(ControlType::kAck, 1));
  EXPECT_EQ(side_.Sends(), "1 WR_FLUSH_ERR, 2 WR_FLUSH_ERR, 3 WR_FLUSH_ERR, 4 WR_FLUSH_ERR");
}

TEST_F(HalfSent, AnswerToAReadThatHasNotLeft) {
  Send(kFrame);
  side_.Feed(ReadResponse(1, 8));
  EXPECT_EQ(side_.Sends(), "1 WR_FLUSH_ERR, 2 WR_FLUSH_ERR, 3 WR_FLUSH_ERR, 4 WR_FLUSH_ERR");
}

TEST_F(HalfSent, RefusalBehindWhatHasNotLeft) {
  Send(kFrame);
  side_.Feed(Say(ControlType::kRnrNak, 4));
  EXPECT_EQ(side_.Sends(), "1 WR_FLUSH_ERR, 2 WR_FLUSH_ERR, 3 WR_FLUSH_ERR, 4 WR_FLUSH_ERR");
  EXPECT_EQ(side_.qp.deadline(), kNever);
}

TEST_F(HalfSent, FailureBehindWhatHasNotLeft) {
  Send(kFrame);
  side_.Feed(Say(ControlType::kNak, 3, NakCode::kRemoteAccess));
  EXPECT_EQ(side_.Sends(), "1 WR_FLUSH_ERR, 2 WR_FLUSH_ERR, 3 WR_FLUSH_ERR, 4 WR_FLUSH_ERR");
}

TEST_F(HalfSent, WhatAFailedSendKeptIsNotThere) {
  // The second write has not left when the socket breaks, and the peer says that it was applied.
  // Expect: no success for that one. The first went whole, and what the peer says of it counts.
  Send(kFrame + 100);
  side_.qp.SendFailed(EPIPE);
  side_.Feed(Say(ControlType::kAck, 1));
  EXPECT_EQ(side_.Sends(), "1 SUCCESS");
  side_.Feed(Say(ControlType::kAck, 2));
  EXPECT_EQ(side_.Sends(), "2 WR_FLUSH_ERR, 3 WR_FLUSH_ERR, 4 WR_FLUSH_ERR");
}

TEST(Hostile, RefusalOfWhatIsAcknowledged) {
  Side side;
  side.qp.Connected(OwnSession(true));
  Memory from(&side, 8);
  for (uint64_t id : {1, 2}) side.Post({.opcode = Opcode::kSend, .local = from.sge(), .id = id});
  side.Drain();
  side.Feed(Say(ControlType::kAck, 1) + Say(ControlType::kRnrNak, 1));
  EXPECT_EQ(side.Sends(), "1 SUCCESS, 2 WR_FLUSH_ERR");
  EXPECT_EQ(RefusalOf(&side), NakCode::kProtocol);
}

TEST(Hostile, FailureOfARequestThatIsNotOutstanding) {
  // NAK of one that was acknowledged, and of one that was never sent.
  // Expect: the connection is over, and says so on the oldest request; no success by it.
  for (const uint32_t rsn : {0u, 1u, 3u, 4u, 0x80000001u}) {
    Side side;
    side.qp.Connected(OwnSession(true));
    Memory from(&side, 8);
    for (uint64_t id : {1, 2}) side.Post({.opcode = Opcode::kSend, .local = from.sge(), .id = id});
    side.Drain();
    side.Feed(Say(ControlType::kAck, 1) + Say(ControlType::kNak, rsn, NakCode::kRemoteAccess));
    EXPECT_TRUE(absl::StartsWith(side.Sends(), "1 SUCCESS, 2 ")) << rsn;
    EXPECT_EQ(side.qp.state(), QpState::kErr);
  }
}

TEST(Hostile, ReadyNobodyWaitsForDoesNothing) {
  // It may cross with a timer, so it is no error.
  Side side;
  side.qp.Connected(OwnSession(true));
  side.Feed(Say(ControlType::kReady, 1) + Say(ControlType::kReady, 0xffffffff));
  EXPECT_EQ(side.qp.state(), QpState::kRts);
  EXPECT_TRUE(side.Drain().empty());
}

class RnrNotNegotiated : public testing::TestWithParam<ControlType> {};

TEST_P(RnrNotNegotiated, IsRefused) {
  // The peers agreed on acknowledgements and not on RNR.
  Side side;
  Session s = OwnSession(true);
  s.features.features = wire::kAcknowledge;
  side.qp.Connected(s);
  Memory from(&side, 8);
  side.Post({.opcode = Opcode::kSend, .local = from.sge(), .id = 1});
  side.Drain();
  side.Feed(Say(GetParam(), 1));
  EXPECT_EQ(RefusalOf(&side), NakCode::kProtocol);
}

INSTANTIATE_TEST_SUITE_P(Types, RnrNotNegotiated,
                         testing::Values(ControlType::kRnrNak, ControlType::kResume,
                                         ControlType::kReady),
                         [](const auto& i) {
                           return "Type" + std::to_string(static_cast<int>(i.param));
                         });

TEST(Hostile, ResumeBeforeTheRefusalIsSaid) {
  // A message finds no receive; the peer resumes in the same breath, before it can know.
  Side side;
  side.qp.Connected(OwnSession(false));
  side.Feed(MakeFpdu(SendHeader(1), Bytes(8)) + Say(ControlType::kResume, 1));
  EXPECT_EQ(RefusalOf(&side), NakCode::kProtocol);
}

// The frame with which the initiator opens (RFC 6581 9.2), and what may pass for it.
class ReadyFrames : public testing::Test {
 protected:
  void Connect(bool initiator, ReadyFrame kind) {
    Session s = OwnSession(initiator);
    s.ready_frame = kind;
    side_.qp.Connected(s);
  }
  Side side_{{.access = Access::kLocalWrite | Access::kRemoteWrite}};
  Memory memory_{&side_, 64};
};

TEST_F(ReadyFrames, ReadOfDataIsNone) {
  // The queue pair takes no reads; the one that opens the stream is not looked at, if it is empty.
  // Expect: with 8 bytes it is a read like others, and refused.
  Connect(false, ReadyFrame::kRead);
  side_.Feed(ReadRequestFor(8, memory_.at()));
  EXPECT_EQ(RefusalOf(&side_), NakCode::kRemoteInvalidRequest);
}

TEST_F(ReadyFrames, EmptyReadIsOne) {
  Connect(false, ReadyFrame::kRead);
  side_.Feed(ReadRequestFor(0, memory_.at()));
  EXPECT_EQ(TraceOf(side_.Drain()), "Data");
}

TEST_F(ReadyFrames, OnlyTheFirstFrameCanBeOne) {
  // Expect: after a write of data an empty one is a request, and counted.
  Connect(false, ReadyFrame::kWrite);
  side_.Feed(MakeFpdu(WriteHeader(memory_.key(), memory_.at().address), Bytes(8)));
  side_.Feed(MakeFpdu(WriteHeader(0, 0, wire::kAckRequest)));
  EXPECT_EQ(TraceOf(side_.Drain()), "ACK(2)");
}

TEST_F(ReadyFrames, SendOutOfSequenceIsNone) {
  Connect(false, ReadyFrame::kSend);
  side_.Feed(MakeFpdu(SendHeader(2)));
  EXPECT_EQ(RefusalOf(&side_), NakCode::kProtocol);
}

TEST_F(ReadyFrames, EmptyWriteIsNotTheAnswerToOurRead) {
  // The peer writes nothing before it answers our opening read.
  // Expect: the write counts, and the answer is expected still.
  Connect(true, ReadyFrame::kRead);
  EXPECT_EQ(TraceOf(side_.Drain()), "Read");
  side_.Feed(MakeFpdu(WriteHeader(0, 0)) + ReadResponse(0, 0));
  EXPECT_EQ(side_.qp.state(), QpState::kRts);
  EXPECT_EQ(TraceOf(side_.Drain()), "ACK(1)");
}

// Lengths at the end of what 32 bits hold. The region is larger, and never touched.
class Huge : public testing::Test {
 protected:
  Huge() {
    region_.region.length = 1ull << 40;
    side_.qp.Connected(OwnSession(false));
  }
  Side side_;
  Memory region_{&side_, 8};
};

TEST_F(Huge, ReadOfFourGigabytes) {
  side_.Feed(ReadRequestFor(0xffffffff, region_.at()));
  EXPECT_EQ(RefusalOf(&side_), NakCode::kRemoteInvalidRequest);
}

TEST_F(Huge, WriteWithoutEnd) {
  wire::TaggedHeader h = WriteHeader(region_.key(), region_.at().address);
  h.ddp &= static_cast<uint8_t>(~wire::kLast);
  QueuePairTestPeer::SetMessageBytes(&side_.qp, kMaxMessage - 4);
  side_.Feed(MakeFpdu(h, Bytes(4)));
  EXPECT_EQ(side_.qp.state(), QpState::kRts);
  side_.Feed(MakeFpdu(h, Bytes(4)));
  EXPECT_EQ(RefusalOf(&side_), NakCode::kRemoteInvalidRequest);
}

TEST_F(Huge, SendWithoutEnd) {
  const Sge half{region_.at().address, 0x80000000, region_.key()};
  const Sge receive[] = {half, half, half};
  side_.PostReceive({.local = SgeList(receive), .id = 11});
  QueuePairTestPeer::SetMessageBytes(&side_.qp, kMaxMessage - 4);
  side_.Feed(MakeFpdu(SendHeader(1, kMaxMessage - 4), Bytes(8)));
  EXPECT_EQ(side_.Receives(), "11 LOC_LEN_ERR");
  EXPECT_EQ(RefusalOf(&side_), NakCode::kRemoteInvalidRequest);
}

TEST(Hostile, ImmediateInsideASend) {
  // The first segment of a Send has taken the receive; an empty write's Immediate wants it, too.
  // Expect: refused; the receive is not completed with bytes that are not its message.
  Side side;
  side.qp.Connected(OwnSession(false));
  Memory into(&side, 64);
  side.PostReceive({.local = into.sge(), .id = 11});
  wire::UntaggedHeader first = SendHeader(1);
  first.ddp = wire::kDdpVersion;
  side.Feed(MakeFpdu(first, Bytes(8)) + MakeFpdu(WriteHeader(0, 0, wire::kWithImmediate)) +
            MakeFpdu(UntaggedOf(wire::Opcode::kImmediate, 1), Bytes(8)));
  EXPECT_EQ(side.Receives(), "11 WR_FLUSH_ERR");
  EXPECT_EQ(RefusalOf(&side), NakCode::kProtocol);
}

TEST(Hostile, TerminateThatEndsEarly) {
  // Its flags promise the header at fault and a read request; cut at every length.
  for (size_t size = 4; size <= wire::kMaxTerminateBody; ++size) {
    Side side;
    side.qp.Connected(OwnSession(true));
    Memory from(&side, 8);
    side.Post({.opcode = Opcode::kSend, .local = from.sge(), .id = 1});
    side.Drain();
    Bytes body(size);
    body[0] = std::byte{0x11};
    body[2] = std::byte{0xe0};
    side.Feed(MakeFpdu(UntaggedOf(wire::Opcode::kTerminate, 1), body));
    EXPECT_EQ(side.Sends(), "1 REM_ACCESS_ERR") << size;
  }
}

class Numbers : public testing::TestWithParam<uint32_t> {};

TEST_P(Numbers, GoOnThroughZero) {
  // Requests of all kinds, refused once in the middle, with numbers around the wrap.
  // Expect: as ever.
  Wired w;
  QueuePairTestPeer::SetNumbers(&w.a.qp, GetParam());
  QueuePairTestPeer::SetNumbers(&w.b.qp, GetParam());
  Memory from(&w.a, 64), back(&w.a, 64), to(&w.b, 64), into(&w.b, 64);
  from.Fill(1);
  w.a.Post({.opcode = Opcode::kWrite, .local = from.sge(), .remote = to.at(), .id = 1});
  w.a.Post({.opcode = Opcode::kSend, .local = from.sge(0, 8), .id = 2});
  w.a.Post({.opcode = Opcode::kRead, .local = back.sge(0, 8), .remote = to.at(), .id = 3});
  w.a.Post({.opcode = Opcode::kFetchAdd, .local = back.sge(8, 8), .remote = to.at(56), .id = 4});
  w.a.Post({.opcode = Opcode::kSend, .local = from.sge(0, 8), .id = 5});
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "1 SUCCESS");
  for (uint64_t id : {11, 12}) w.b.PostReceive({.local = into.sge(), .id = id});
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "2 SUCCESS, 3 SUCCESS, 4 SUCCESS, 5 SUCCESS");
  EXPECT_EQ(w.b.Receives(), "11 SUCCESS, 12 SUCCESS");
  EXPECT_TRUE(back.Has(1, 0, 8));
}

INSTANTIATE_TEST_SUITE_P(AroundTheWrap, Numbers,
                         testing::Values(0xfffffffcu, 0xfffffffdu, 0xfffffffeu, 0xffffffffu, 0u));

}  // namespace
}  // namespace verbena::engine
