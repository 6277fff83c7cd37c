// SPDX-License-Identifier: Apache-2.0
// A plain iWARP peer: no extensions, FPDUs within a TCP segment, local completion.
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

class Foreign : public testing::Test {
 protected:
  Foreign() { side_.qp.Connected(ForeignSession(true)); }
  Side side_;
  Memory memory_{&side_, 100000};
};

class FpduSize : public testing::TestWithParam<uint32_t> {};

TEST_P(FpduSize, StaysWithinTheMss) {
  // RFC 5044 4.5: length + ULPDU + pad + CRC within MSS - (MSS mod 4).
  Side side;
  side.qp.Connected(ForeignSession(true, GetParam()));
  Memory from(&side, 20000);
  side.Post({.opcode = Opcode::kWrite, .local = from.sge(), .remote = {0x1000, 7}});
  side.Post({.opcode = Opcode::kSend, .local = from.sge()});
  const std::vector<Fpdu> sent = ParseFpdus(side.Drain());
  size_t payload = 0;
  for (const Fpdu& f : sent) {
    EXPECT_LE(f.size, GetParam() - GetParam() % 4);
    payload += f.payload.size();
  }
  EXPECT_EQ(payload, 40000u);
  EXPECT_GE(sent[0].size, GetParam() - GetParam() % 4 - 3);
}

INSTANTIATE_TEST_SUITE_P(Mss, FpduSize, testing::Values(536, 1448, 1449, 1460, 8960));

TEST_F(Foreign, SegmentsOfASendCountOn) {
  // Expect: one MSN, growing offsets, L in the last one only.
  side_.Post({.opcode = Opcode::kSend, .local = memory_.sge(0, 3000)});
  const std::vector<Fpdu> sent = ParseFpdus(side_.Drain());
  ASSERT_EQ(sent.size(), 3u);
  uint32_t offset = 0;
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(uint32_t{sent[i].untagged.msn}, 1u);
    EXPECT_EQ(uint32_t{sent[i].untagged.message_offset}, offset);
    EXPECT_EQ((sent[i].ddp & wire::kLast) != 0, i == 2);
    offset += static_cast<uint32_t>(sent[i].payload.size());
  }
}

TEST_F(Foreign, CompletesWhenTcpHasIt) {
  // Expect: no completion while bytes of it are unsent, one when the last has left; no reserved
  // bit is set.
  side_.Post({.opcode = Opcode::kWrite, .local = memory_.sge(0, 3000), .remote = {0, 7}, .id = 1});
  size_t all = 0;
  for (const iovec& v : side_.qp.Gather(true, 0)) all += v.iov_len;
  side_.qp.Sent(all - 1);
  EXPECT_EQ(side_.Sends(), "");
  EXPECT_TRUE(side_.qp.HasUnsent());
  side_.qp.Sent(1);
  EXPECT_EQ(side_.Sends(), "1 SUCCESS");
}

TEST_F(Foreign, NoExtensionOnTheWire) {
  side_.Post({.opcode = Opcode::kWrite, .local = memory_.sge(0, 8), .remote = {0, 7}, .id = 1});
  side_.Post({.opcode = Opcode::kSend,
              .local = memory_.sge(0, 8),
              .id = 2,
              .flags = SendFlags::kFence | SendFlags::kSolicited});
  EXPECT_EQ(TraceOf(side_.Drain()), "Write Send!");
  side_.qp.Disconnect();
  EXPECT_EQ(TraceOf(side_.Drain()), "");
  EXPECT_TRUE(side_.qp.finished());
}

TEST_F(Foreign, ReadsCompleteWhenAnswered) {
  // A write behind a read: TCP has both.
  // Expect: nothing until the answer, then both, in order.
  side_.Post({.opcode = Opcode::kRead, .local = memory_.sge(0, 8), .remote = {0, 7}, .id = 1});
  side_.Post({.opcode = Opcode::kWrite, .local = memory_.sge(8, 8), .remote = {0, 7}, .id = 2});
  const std::vector<Fpdu> sent = ParseFpdus(side_.Drain());
  EXPECT_EQ(side_.Sends(), "");
  wire::TaggedHeader h =
      WriteHeader(wire::Load<wire::ReadRequest>(sent[0].payload.data()).sink_stag, 0);
  h.rdmap = wire::RdmapByte(wire::Opcode::kReadResponse);
  side_.Feed(MakeFpdu(h, Bytes(8, std::byte{3})));
  EXPECT_EQ(side_.Sends(), "1 SUCCESS, 2 SUCCESS");
}

TEST_F(Foreign, ExtensionsAreRefusedAtPost) {
  for (const Opcode op :
       {Opcode::kSendWithImm, Opcode::kWriteWithImm, Opcode::kFetchAdd, Opcode::kCompareSwap}) {
    EXPECT_EQ(side_.Post({.opcode = op, .local = memory_.sge(0, 8)}).error,
              PostError::kUnsupported);
  }
  const Capabilities c = side_.qp.capabilities();
  EXPECT_FALSE(c.immediate || c.atomics || c.rnr || c.remote_completion);
  EXPECT_TRUE(c.send_with_invalidate && c.memory_windows);
}

struct UnknownRow {
  const char* name;
  wire::Opcode opcode;
  size_t payload;
};
class NotNegotiated : public testing::TestWithParam<UnknownRow> {};

TEST_P(NotNegotiated, IsAnUnexpectedOpcode) {
  // Expect: a Terminate alone, no NAK.
  Side side;
  side.qp.Connected(ForeignSession(true));
  Bytes body(GetParam().payload);
  side.Feed(MakeFpdu(UntaggedOf(GetParam().opcode, 1), body));
  const std::vector<Fpdu> sent = ParseFpdus(side.Drain());
  ASSERT_EQ(sent.size(), 1u);
  ASSERT_EQ(sent[0].opcode(), wire::Opcode::kTerminate);
  EXPECT_EQ(wire::DecodeTerminate(sent[0].payload)->error, wire::error::kUnexpectedOpcode);
}

INSTANTIATE_TEST_SUITE_P(Opcodes, NotNegotiated,
                         testing::Values(UnknownRow{"Immediate", wire::Opcode::kImmediate, 8},
                                         UnknownRow{"Atomic", wire::Opcode::kAtomicRequest, 52},
                                         UnknownRow{"Control", wire::Opcode::kControl, 0}),
                         [](const auto& i) { return std::string(i.param.name); });

TEST_F(Foreign, ReservedBitsAreIgnored) {
  // The two bits that own peers use are reserved to everybody else.
  // Expect: a plain write, and a plain message without immediate.
  side_.PostReceive({.local = memory_.sge(64, 64), .id = 11});
  side_.Feed(
      MakeFpdu(WriteHeader(memory_.key(), memory_.at().address, 0x30), Bytes(8, std::byte{9})));
  side_.Feed(MakeFpdu(SendHeader(1, 0, 0x30), Bytes(8, std::byte{8})));
  const WorkCompletion wc = side_.NextReceive();
  EXPECT_TRUE(wc.ok() && wc.id == 11 && !wc.has_immediate && wc.immediate_or_key == 0);
  EXPECT_EQ(memory_.data()[7], std::byte{9});
  EXPECT_EQ(TraceOf(side_.Drain()), "");
}

TEST_F(Foreign, NoReceivePosted) {
  // Expect: there is no way to say "later" to a plain peer: a Terminate that says "no buffer".
  side_.Feed(MakeFpdu(SendHeader(1), Bytes(8)));
  const std::vector<Fpdu> sent = ParseFpdus(side_.Drain());
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(wire::DecodeTerminate(sent[0].payload)->error, wire::error::kNoBuffer);
}

TEST_F(Foreign, EndOfStreamIsItsGoodbye) {
  // rping on siw leaves so: no Terminate, and nothing is under way but a receive.
  // Expect: it is flushed, and that is nobody's failure.
  side_.PostReceive({.local = memory_.sge(0, 64), .id = 3});
  side_.qp.ReceiveEnded(0, 0);
  EXPECT_EQ(side_.NextReceive().status, WcStatus::kFlushed);
  EXPECT_EQ(side_.qp.state(), QpState::kErr);
  EXPECT_TRUE(side_.qp.cause().ok()) << side_.qp.cause();
}

TEST_F(Foreign, EndOfStreamInTheMiddleIsNone) {
  // The peer leaves behind the header of an FPDU.
  const Bytes fpdu = MakeFpdu(SendHeader(1, 0, 0x30), Bytes(8));
  side_.PostReceive({.local = memory_.sge(0, 64), .id = 3});
  side_.Feed(Bytes(fpdu.begin(), fpdu.begin() + 10));
  side_.qp.ReceiveEnded(0, 0);
  EXPECT_EQ(side_.qp.cause().code(), absl::StatusCode::kUnavailable);
}

TEST_F(Foreign, EndOfStreamWithAReadOpen) {
  // Expect: flushed, no RETRY_EXC_ERR.
  side_.Post({.opcode = Opcode::kRead, .local = memory_.sge(0, 8), .remote = {0, 7}, .id = 1});
  side_.Drain();
  side_.qp.ReceiveEnded(0, 0);
  EXPECT_EQ(side_.Sends(), "1 WR_FLUSH_ERR");
  EXPECT_EQ(side_.qp.cause().code(), absl::StatusCode::kUnavailable);
}

TEST_F(Foreign, ServesReadsWithinTheMss) {
  // The peer reads 3000 bytes.
  // Expect: three FPDUs into the sink that it named, L in the last.
  memory_.Fill(4);
  wire::ReadRequest r;
  r.sink_stag = 0x77;
  r.sink_offset = 0x100000000;
  r.size = 3000;
  r.source_stag = memory_.key();
  r.source_offset = memory_.at().address;
  side_.Feed(MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, 1), wire::AsBytes(r)));
  const std::vector<Fpdu> sent = ParseFpdus(side_.Drain());
  ASSERT_EQ(sent.size(), 3u);
  uint64_t offset = r.sink_offset;
  for (const Fpdu& f : sent) {
    EXPECT_EQ(uint32_t{f.tagged.stag}, 0x77u);
    EXPECT_EQ(uint64_t{f.tagged.tagged_offset}, offset);
    EXPECT_LE(f.size, 1460u);
    offset += f.payload.size();
  }
  EXPECT_EQ(offset, r.sink_offset + 3000);
  EXPECT_EQ(TraceOf(side_.Drain()), "");
}

TEST_F(Foreign, ResponderWaitsForTheInitiator) {
  // RFC 5044 7.1: no ready frame was agreed on, and the initiator has not spoken.
  Side b({.number = 2});
  b.qp.Connected(ForeignSession(false));
  Memory from(&b, 8);
  b.Post({.opcode = Opcode::kSend, .local = from.sge(), .id = 1});
  EXPECT_TRUE(b.Drain().empty());
  b.Feed(MakeFpdu(WriteHeader(0, 0)));
  EXPECT_EQ(TraceOf(b.Drain()), "Send");
  EXPECT_TRUE(b.Had(EventType::kEstablished));
}

}  // namespace
}  // namespace verbena::engine
