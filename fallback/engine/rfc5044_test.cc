// SPDX-License-Identifier: Apache-2.0
// What RFC 5044 demands of a stream and no other test shows: rows of docs/rfc/5044.md.
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

wire::TerminateError TerminateOf(Side* side) {
  const std::vector<Fpdu> sent = ParseFpdus(side->Drain());
  if (sent.empty() || sent.back().opcode() != wire::Opcode::kTerminate) return {0xf, 0xf, 0xff};
  return wire::DecodeTerminate(sent.back().payload)->error;
}

TEST(Fpdu, PadIsZeroAndIgnored) {
  // 4.1. A message of 9 bytes has a pad of 3.
  Side side;
  side.qp.Connected(ForeignSession(true));
  Memory memory(&side, 64);
  memory.Fill(7);
  side.Post({.opcode = Opcode::kSend, .local = memory.sge(0, 9), .id = 1});
  const Bytes sent = side.Drain();
  for (size_t i = sizeof(wire::UntaggedHeader) + 9; i < sent.size(); ++i) {
    EXPECT_EQ(sent[i], std::byte{0}) << i;
  }
  side.PostReceive({.local = memory.sge(32, 32), .id = 11});
  Bytes in = MakeFpdu(SendHeader(1), Bytes(9));
  for (size_t i = 1; i <= 3; ++i) in[in.size() - wire::kCrcSize - i] = std::byte{0xee};
  side.Feed(in);
  EXPECT_EQ(side.Receives(), "11 SUCCESS");
}

TEST(Fpdu, CrcFieldIsIgnoredWhenOff) {
  // 4.1, 4.4, 7.1.1. One that is received as segments, one that is received whole.
  Side side;
  side.qp.Connected(ForeignSession(true));
  Memory memory(&side, 64);
  side.PostReceive({.local = memory.sge(), .id = 11});
  Bytes message = MakeFpdu(SendHeader(1), Bytes(9));
  Bytes read = MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, 1), Bytes(28));
  message.back() = read.back() = std::byte{0xee};
  side.Feed(message + read);
  EXPECT_EQ(side.Receives(), "11 SUCCESS");
  EXPECT_EQ(TraceOf(side.Drain()), "Data");
}

class Whole : public testing::TestWithParam<bool> {};

TEST_P(Whole, NothingIsDeliveredBeforeItsEnd) {
  // 6. A message arrives but for its last byte, which is one of the CRC.
  // Expect: no completion; one with that byte.
  Side side;
  side.qp.Connected(ForeignSession(true, 1460, GetParam()));
  Memory memory(&side, 64);
  side.PostReceive({.local = memory.sge(), .id = 11});
  const Bytes message = MakeFpdu(SendHeader(1), Bytes(9), GetParam());
  side.Feed(std::span(message).first(message.size() - 1), Chunks(1));
  EXPECT_EQ(side.Receives(), "");
  side.Feed(std::span(message).last(1));
  EXPECT_EQ(side.Receives(), "11 SUCCESS");
}

INSTANTIATE_TEST_SUITE_P(Crc, Whole, testing::Bool());

class Startup : public testing::TestWithParam<wire::Opcode> {};

TEST_P(Startup, ResponderWaitsForAWholeFpdu) {
  // 7.1.2. The initiator's first FPDU comes byte by byte.
  // Expect: the responder's message goes when the last byte of it is there and its CRC is right.
  Side side;
  side.qp.Connected(ForeignSession(false, 1460, true));
  Memory memory(&side, 64);
  side.PostReceive({.local = memory.sge(0, 32), .id = 11});
  side.Post({.opcode = Opcode::kSend, .local = memory.sge(32, 8), .id = 1});
  Bytes first = MakeFpdu(WriteHeader(memory.key(), memory.at().address), Bytes(20), true);
  if (GetParam() == wire::Opcode::kSend) first = MakeFpdu(SendHeader(1), Bytes(20), true);
  if (GetParam() == wire::Opcode::kReadRequest) {
    first = MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, 1), Bytes(28), true);
  }
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(TraceOf(side.Drain()), "") << i;
    EXPECT_FALSE(side.Had(EventType::kEstablished)) << i;
    side.Feed(std::span(first).subspan(i, 1));
  }
  EXPECT_TRUE(side.Had(EventType::kEstablished));
  EXPECT_TRUE(TraceOf(side.Drain()).ends_with("Send"));
}

INSTANTIATE_TEST_SUITE_P(With, Startup,
                         testing::Values(wire::Opcode::kWrite, wire::Opcode::kSend,
                                         wire::Opcode::kReadRequest));

TEST(Crc, OfWhatIsDroppedCounts) {
  // 4.4, 6. The opening frame, which carries nothing; and a message behind one that was refused
  // for want of a receive.
  Side opening;
  Session session = ForeignSession(false, 1460, true);
  session.ready_frame = ReadyFrame::kWrite;
  opening.qp.Connected(session);
  Bytes ready = MakeFpdu(WriteHeader(0, 0), {}, true);
  ready[8] ^= std::byte{1};  // the offset of no bytes at all
  opening.Feed(ready);
  EXPECT_EQ(TerminateOf(&opening), wire::error::kCrc);
  EXPECT_FALSE(opening.Had(EventType::kEstablished));

  Side refusing;
  refusing.qp.Connected(OwnSession(false, true));
  refusing.Feed(MakeFpdu(SendHeader(1), Bytes(8), true), Chunks(1));
  EXPECT_EQ(TraceOf(refusing.Drain()), "RNR-NAK(1)");
  Bytes behind = MakeFpdu(WriteHeader(7, 0), Bytes(8), true);
  refusing.Feed(behind, Chunks(1));
  EXPECT_EQ(TraceOf(refusing.Drain()), "");
  behind[wire::kLengthSize + wire::kTaggedUlpdu] ^= std::byte{1};
  refusing.Feed(behind, Chunks(1));
  EXPECT_EQ(TerminateOf(&refusing), wire::error::kCrc);
}

TEST(Mulpdu, OfATinySegment) {
  // 4.5. A path whose segments hold hardly anything.
  // Expect: ULPDUs of 128 bytes all the same, that span segments.
  Side side;
  side.qp.Connected(ForeignSession(true, 88));
  Memory memory(&side, 1000);
  side.Post({.opcode = Opcode::kWrite, .local = memory.sge(), .remote = {0, 7}, .id = 1});
  const std::vector<Fpdu> sent = ParseFpdus(side.Drain());
  ASSERT_GT(sent.size(), 1u);
  EXPECT_EQ(sent[0].tagged.length, 128);
}

}  // namespace
}  // namespace verbena::engine
