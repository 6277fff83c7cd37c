// SPDX-License-Identifier: Apache-2.0
// The hand-shake with plain peers, byte by byte where a rule says so. How a script that keeps a
// driver's rules fares is in tests/interop/set_up_test.cc.
#include "absl/strings/match.h"
#include "fallback/engine/handshake.h"
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "fallback/wire/test_bytes.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

using wire::Hex;

Offer OfferOf(const std::string& data, uint32_t depth = 16, const Require& require = {}) {
  return {data, depth, depth, require};
}
Bytes Encoded(const wire::MpaFrame& f) {
  Bytes out(wire::kMpaMaxFrame);
  out.resize(wire::EncodeMpa(f, out));
  return out;
}
wire::MpaFrame Enhanced(bool reply, uint16_t ird = 8, uint16_t ord = 8) {
  wire::MpaFrame f;
  f.reply = reply;
  f.enhanced = true;
  f.ird = ird;
  f.ord = ord;
  return f;
}

TEST(ForeignSetup, TheSecondTryIsTheseBytes) {
  // Revision 1, no flag; `hi`, and the record behind it.
  Offer offer = OfferOf("hi");
  offer.revision = 1;
  EXPECT_EQ(EncodeRequest(offer), Hex("4d504120494420526571204672616d65 00 01 0012 6869"
                                      "56726231 01 01 10 3c 0000001f 00000000"));
}

TEST(ForeignSetup, AnAnswerInRevisionOne) {
  // Expect: no ready frame, so that this end may speak at once; our own depths hold.
  wire::MpaFrame f;
  f.reply = true;
  f.revision = 1;
  Offer offer = OfferOf("", 5);
  offer.revision = 1;
  const auto reply = DecodeReply(Encoded(f), offer);
  ASSERT_TRUE(reply.ok() && reply->refused.ok());
  EXPECT_EQ(reply->session.ready_frame, ReadyFrame::kNone);
  EXPECT_EQ(reply->session.ord, 5u);
  EXPECT_EQ(reply->session.ird, 5u);
}

TEST(ForeignSetup, DepthsLeftToThePrograms) {
  // RFC 6581 9.1: 0x3fff. Expect: ours unchanged, and the same said back.
  for (const bool ird : {true, false}) {
    wire::MpaFrame f = Enhanced(false);
    (ird ? f.ird : f.ord) = wire::kMpaDepthUnspecified;
    const auto peer = DecodeRequest(Encoded(f));
    ASSERT_TRUE(peer.ok());
    const auto session = Agree(*peer, OfferOf("", 16));
    ASSERT_TRUE(session.ok());
    EXPECT_EQ(ird ? session->ord : session->ird, 16u);
    const Bytes bytes = EncodeReply(*peer, OfferOf("", 16), *session);
    const auto reply = wire::DecodeMpa(bytes);
    ASSERT_TRUE(reply.ok());
    EXPECT_EQ(ird ? reply->ord : reply->ird, wire::kMpaDepthUnspecified);
    EXPECT_EQ(ird ? reply->ird : reply->ord, 8);

    f.reply = true;
    const auto answer = DecodeReply(Encoded(f), OfferOf("", 16));
    ASSERT_TRUE(answer.ok() && answer->refused.ok());
    EXPECT_EQ(ird ? answer->session.ord : answer->session.ird, 16u);
  }
}

TEST(ForeignSetup, AnOrdBeyondOurIrd) {
  // RFC 6581 9.1: our IRD becomes at least the responder's ORD; where there are no places for
  // that many, a Terminate with MPA's code 6 and, with C, a CRC.
  const auto most = DecodeReply(Encoded(Enhanced(true, 8, kMaxDepth)), OfferOf("", 4));
  ASSERT_TRUE(most.ok() && most->refused.ok());
  EXPECT_EQ(most->session.ird, kMaxDepth);
  EXPECT_EQ(most->session.ord, 4u);
  wire::MpaFrame f = Enhanced(true, 8, kMaxDepth + 1);
  f.crc = true;
  const auto over = DecodeReply(Encoded(f), OfferOf("", 4));
  ASSERT_TRUE(over.ok());
  EXPECT_EQ(over->refused.code(), absl::StatusCode::kResourceExhausted);
  const std::vector<Fpdu> said = ParseFpdus(over->parting);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_EQ(said[0].opcode(), wire::Opcode::kTerminate);
  EXPECT_TRUE(said[0].crc_is_right);
  EXPECT_EQ(said[0].size, over->parting.size());
  EXPECT_EQ(wire::DecodeTerminate(said[0].payload)->error, wire::error::kInsufficientIrd);
}

TEST(ForeignSetup, NoReadyFrameOfThoseOnOffer) {
  wire::MpaFrame f = Enhanced(true);
  f.peer_to_peer = f.rtr_send = true;
  const auto reply = DecodeReply(Encoded(f), OfferOf(""));
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->refused.code(), absl::StatusCode::kUnimplemented);
  const std::vector<Fpdu> said = ParseFpdus(reply->parting);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_EQ(wire::DecodeTerminate(said[0].payload)->error, wire::error::kNoMatchingRtr);
}

TEST(ForeignSetup, AReadAsReadyFrameNeedsAPlace) {
  // The caller wants no reads, but offers a Read as ready frame. Expect: an IRD of 1.
  wire::MpaFrame f = Enhanced(false, 8, 0);
  f.peer_to_peer = f.rtr_read = true;
  const auto peer = DecodeRequest(Encoded(f));
  ASSERT_TRUE(peer.ok());
  const auto session = Agree(*peer, OfferOf(""));
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(session->ird, 1u);
}

TEST(ForeignSetup, RemoteCompletionByReads) {
  // It is the one thing that a plain peer can be made to do. With the address that a Verbena end
  // on a device lends, which is not the application's to see.
  const std::string lent(
      "me"
      "VerbConf"
      "\0\0\0\0\0\0\x50\0"
      "\0\0\0\x77",
      22);
  for (const bool initiator : {true, false}) {
    wire::MpaFrame f = Enhanced(initiator);
    f.private_data = std::as_bytes(std::span(lent));
    for (const bool wanted : {true, false}) {
      const Offer mine = OfferOf("", 8, {.remote_completion = wanted});
      Session session;
      std::string data;
      if (initiator) {
        const auto reply = DecodeReply(Encoded(f), mine);
        ASSERT_TRUE(reply.ok()) << reply.status();
        session = reply->session;
        data = reply->private_data;
      } else {
        const auto peer = DecodeRequest(Encoded(f));
        ASSERT_TRUE(peer.ok());
        const auto agreed = Agree(*peer, mine);
        ASSERT_TRUE(agreed.ok()) << agreed.status();
        session = *agreed;
        data = peer->private_data;
      }
      EXPECT_EQ(data, "me");
      EXPECT_EQ(session.confirm, wanted);
      EXPECT_EQ(session.lent, (LentBytes{0x5000, 0x77}));
    }
  }
}

TEST(ForeignSetup, RemoteCompletionNeedsAPeerThatTakesReads) {
  // Its IRD is 0, so no read could prove anything.
  const Offer needy = OfferOf("", 8, {.remote_completion = true});
  const auto peer = DecodeRequest(Encoded(Enhanced(false, 0, 8)));
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(Agree(*peer, needy).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DecodeReply(Encoded(Enhanced(true, 0, 8)), needy).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(ForeignSetup, AReadyFrameThatNobodyAgreedOn) {
  // cxgb4 in revision 1: a Read of nothing, where peers may not read. The second one is a request.
  Side side;
  ASSERT_TRUE(side.qp.Modify({.access = Access::kLocalWrite}).ok());
  side.qp.Connected(ForeignSession(false));
  wire::ReadRequest nothing;
  nothing.sink_stag = nothing.source_stag = 1;
  side.Feed(MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, 1), wire::AsBytes(nothing)));
  EXPECT_EQ(TraceOf(side.Drain()), "Data");
  EXPECT_EQ(side.qp.counters().remote_reads, 0u);
  side.Feed(MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, 2), wire::AsBytes(nothing)));
  EXPECT_EQ(TraceOf(side.Drain()), "Terminate");
}

TEST(ForeignSetup, AFirstWordThatIsWrong) {
  // Expect: the Terminate goes at once, not with the peer's second word, which may never come.
  Side side;
  side.qp.Connected(ForeignSession(false));
  side.Feed(MakeFpdu(UntaggedOf(static_cast<wire::Opcode>(0xd), 1), Bytes(8)));
  EXPECT_EQ(TraceOf(side.Drain()), "Terminate");
}

TEST(ForeignSetup, AnEmptySendIsAMessageUnlessAgreedOn) {
  Side side;
  side.qp.Connected(ForeignSession(false));
  Memory memory(&side, 16);
  side.PostReceive({.local = memory.sge(), .id = 5});
  side.Feed(MakeFpdu(SendHeader(1)));
  EXPECT_EQ(side.Receives(), "5 SUCCESS");
}

TEST(ForeignSetup, SegmentsFollowTheMss) {
  // The path's MTU shrinks while a message is under way, and grows again.
  Side side;
  side.qp.Connected(ForeignSession(true, 8960));
  EXPECT_TRUE(side.qp.within_mss());
  Memory from(&side, 4 << 20);
  side.Post({.opcode = Opcode::kWrite, .local = from.sge(), .remote = {0x1000, 7}, .id = 1});
  size_t largest[3] = {}, payload = 0;
  for (int i = 0; i < 3; ++i) {
    if (i > 0) side.qp.SetMss(i == 1 ? 536 : 100'000);
    Bytes sent;
    for (const iovec& v : side.qp.Gather(true, 0)) {
      const auto* p = static_cast<const std::byte*>(v.iov_base);
      sent.insert(sent.end(), p, p + v.iov_len);
    }
    side.qp.Sent(sent.size());
    for (const Fpdu& f : ParseFpdus(sent)) {
      largest[i] = std::max(largest[i], f.size);
      EXPECT_EQ(uint64_t{f.tagged.tagged_offset}, 0x1000 + payload);
      payload += f.payload.size();
    }
  }
  EXPECT_EQ(largest[0], 8960u);
  EXPECT_EQ(largest[1], 536u);
  EXPECT_GT(largest[2], 60'000u);  // and within 16 bits, or ParseFpdus would not agree
  EXPECT_LE(largest[2], 65'540u);
}

}  // namespace
}  // namespace verbena::engine
