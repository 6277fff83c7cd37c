// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/handshake.h"

#include <cstring>

#include "absl/strings/match.h"
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "fallback/wire/test_bytes.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

using wire::Golden;
using wire::Hex;
using wire::ToHex;

Offer OfferOf(std::string data, uint32_t depth = 16, Require require = {}) {
  return {std::move(data), depth, depth, require};
}

// docs/wire.md, "Handshake".
constexpr const char* kRequest =
    "4d504120494420526571204672616d65 10 02 0016 8010 c010 6869"
    "56726231 01 01 10 3c 0000001f 00000000";

TEST(Handshake, RequestIsTheseBytes) {
  EXPECT_EQ(ToHex(EncodeRequest(OfferOf("hi"))), Golden(kRequest));
}

TEST(Handshake, ReplyIsTheseBytes) {
  const auto peer = DecodeRequest(Hex(kRequest));
  ASSERT_TRUE(peer.ok());
  const auto session = Agree(*peer, OfferOf("hi"));
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(ToHex(EncodeReply(*peer, OfferOf("hi"), *session)),
            Golden("4d504120494420526570204672616d65 10 02 0016 8010 8010 6869"
                   "56726231 01 02 10 3c 0000001f 00000000"));
}

TEST(Handshake, RejectIsTheseBytes) {
  const auto peer = DecodeRequest(Hex(kRequest));
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(ToHex(EncodeReject(*peer, "no")),
            Golden("4d504120494420526570204672616d65 30 02 0016 0000 0000 6e6f"
                   "56726231 01 02 10 3c 0000001f 00000000"));
}

TEST(Handshake, RequirementsAreBits) {
  const struct {
    Require require;
    const char* required;
  } rows[] = {{{.atomics = true}, "00000008"},
              {{.immediate = true}, "00000004"},
              {{.rnr = true}, "00000002"},
              {{.remote_completion = true}, "00000001"},
              {{true, true, true, true}, "0000000f"}};
  for (const auto& row : rows) {
    EXPECT_TRUE(absl::EndsWith(ToHex(EncodeRequest(OfferOf("", 1, row.require))), row.required));
  }
}

// Both steps of both ends.
struct Outcome {
  absl::StatusOr<Session> responder;
  absl::StatusOr<PeerReply> initiator;
};
Outcome Shake(const Offer& initiator, const Offer& responder) {
  const auto peer = DecodeRequest(EncodeRequest(initiator));
  if (!peer.ok()) return {peer.status(), peer.status()};
  const auto session = Agree(*peer, responder);
  if (!session.ok()) {
    return {session.status(),
            DecodeReply(EncodeReject(*peer, std::string(session.status().message())), initiator)};
  }
  return {session, DecodeReply(EncodeReply(*peer, responder, *session), initiator)};
}

TEST(Handshake, RoundTrip) {
  // Expect: both ends have the same session, seen from their side, and the other's private data.
  const Outcome o = Shake(OfferOf("question"), OfferOf("answer"));
  ASSERT_TRUE(o.responder.ok() && o.initiator.ok());
  EXPECT_TRUE(o.initiator->own_peer);
  EXPECT_FALSE(o.initiator->rejected);
  EXPECT_EQ(o.initiator->private_data, "answer");
  const Session& a = o.initiator->session;
  EXPECT_TRUE(a.initiator);
  EXPECT_FALSE(o.responder->initiator);
  EXPECT_EQ(a.features, o.responder->features);
  EXPECT_EQ(a.features.max_payload, 60u * 1024);
  EXPECT_EQ(a.ready_frame, ReadyFrame::kWrite);
  EXPECT_EQ(o.responder->ready_frame, ReadyFrame::kWrite);
  EXPECT_FALSE(a.crc || o.responder->crc);
}

TEST(Handshake, LargestPrivateData) {
  const std::string question(wire::kConnectPrivateData, 'q');
  const std::string answer(wire::kAcceptPrivateData, 'a');
  const Outcome o = Shake(OfferOf(question), OfferOf(answer));
  ASSERT_TRUE(o.initiator.ok());
  EXPECT_EQ(o.initiator->private_data, answer);
  const auto peer = DecodeRequest(EncodeRequest(OfferOf(question)));
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer->private_data, question);
  const std::string reason(wire::kRejectPrivateData, 'r');
  const auto reject = DecodeReply(EncodeReject(*peer, reason), OfferOf(question));
  ASSERT_TRUE(reject.ok());
  EXPECT_TRUE(reject->rejected);
  EXPECT_EQ(reject->private_data, reason);
}

struct DepthRow {
  uint32_t a_ord, a_ird, b_ord, b_ird;  // offers
  uint32_t a_to_b, b_to_a;              // reads in flight
};
class Depths : public testing::TestWithParam<DepthRow> {};

TEST_P(Depths, AreTheSmallerOfBothEnds) {
  const DepthRow& row = GetParam();
  const Outcome o = Shake({"", row.a_ord, row.a_ird, {}}, {"", row.b_ord, row.b_ird, {}});
  ASSERT_TRUE(o.responder.ok() && o.initiator.ok());
  EXPECT_EQ(o.initiator->session.ord, row.a_to_b);
  EXPECT_EQ(o.responder->ird, row.a_to_b);
  EXPECT_EQ(o.responder->ord, row.b_to_a);
  EXPECT_EQ(o.initiator->session.ird, row.b_to_a);
}

INSTANTIATE_TEST_SUITE_P(
    Table, Depths,
    testing::Values(DepthRow{16, 16, 16, 16, 16, 16}, DepthRow{1, 16, 16, 16, 1, 16},
                    DepthRow{16, 1, 16, 16, 16, 1}, DepthRow{16, 16, 1, 16, 16, 1},
                    DepthRow{16, 16, 16, 1, 1, 16}, DepthRow{128, 4, 2, 64, 64, 2},
                    DepthRow{0, 0, 16, 16, 1, 1},
                    DepthRow{4000, 4000, 4000, 4000, kMaxDepth, kMaxDepth}));

wire::MpaFrame FrameOf(bool reply) {
  wire::MpaFrame f;
  f.reply = reply;
  f.enhanced = f.peer_to_peer = true;
  f.rtr_write = true;
  f.ird = f.ord = 8;
  return f;
}
Bytes Encoded(const wire::MpaFrame& f) {
  Bytes out(wire::kMpaMaxFrame);
  out.resize(wire::EncodeMpa(f, out));
  return out;
}

TEST(Handshake, ForeignInitiator) {
  // No record.
  // Expect: a session without features, FPDUs by MSS, and a reply without a record.
  const auto peer = DecodeRequest(Encoded(FrameOf(false)));
  ASSERT_TRUE(peer.ok());
  EXPECT_FALSE(peer->own_peer);
  const auto session = Agree(*peer, OfferOf("me"));
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(session->features, wire::Negotiated{});
  EXPECT_EQ(session->ord, 8u);
  const auto reply = wire::DecodeMpa(EncodeReply(*peer, OfferOf("me"), *session));
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->private_data.size(), 2u);
}

TEST(Handshake, ForeignResponder) {
  const auto reply = DecodeReply(Encoded(FrameOf(true)), OfferOf("me"));
  ASSERT_TRUE(reply.ok());
  EXPECT_FALSE(reply->own_peer);
  EXPECT_EQ(reply->session.features, wire::Negotiated{});
  EXPECT_EQ(reply->session.ready_frame, ReadyFrame::kWrite);
}

TEST(Handshake, ForeignEndLacksWhatIsRequired) {
  const Offer needy = OfferOf("", 1, {.atomics = true});
  const auto peer = DecodeRequest(Encoded(FrameOf(false)));
  ASSERT_TRUE(peer.ok());
  const auto agreed = Agree(*peer, needy);
  EXPECT_EQ(agreed.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(agreed.status().message(), "atomics")) << agreed.status();
  const auto reply = DecodeReply(Encoded(FrameOf(true)), needy);
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(Handshake, OwnEndLacksWhatIsRequired) {
  // A version without atomics at either end; the other requires them.
  for (const bool initiator : {true, false}) {
    wire::Record old;
    old.role = initiator ? wire::kRoleReply : wire::kRoleRequest;
    old.features = wire::kAcknowledge;
    Bytes record(sizeof(wire::RecordBytes));
    wire::AppendRecord(old, record);
    wire::MpaFrame f = FrameOf(initiator);
    f.private_data = record;
    const Offer needy = OfferOf("", 1, {.atomics = true});
    absl::Status status;
    if (initiator) {
      status = DecodeReply(Encoded(f), needy).status();
    } else {
      const auto peer = DecodeRequest(Encoded(f));
      ASSERT_TRUE(peer.ok() && peer->own_peer);
      status = Agree(*peer, needy).status();
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(absl::StrContains(status.message(), "atomics")) << status;
  }
}

TEST(Handshake, EchoOfOurOwnRecord) {
  // A responder that copies the private data of the Request: the record's role is 1.
  // Expect: a foreign peer.
  const Bytes bytes = Hex(kRequest);
  const auto request = wire::DecodeMpa(bytes);
  ASSERT_TRUE(request.ok());
  wire::MpaFrame f = FrameOf(true);
  f.private_data = request->private_data;
  const auto reply = DecodeReply(Encoded(f), OfferOf("hi"));
  ASSERT_TRUE(reply.ok());
  EXPECT_FALSE(reply->own_peer);
  EXPECT_EQ(reply->session.features, wire::Negotiated{});
}

TEST(Handshake, RecordWithATailOfZeros) {
  // rdma_cm may deliver more than was sent.
  Bytes frame = EncodeRequest(OfferOf("hi")) + Bytes(20);
  frame[19] = std::byte{0x16 + 20};
  const auto peer = DecodeRequest(frame);
  ASSERT_TRUE(peer.ok());
  EXPECT_TRUE(peer->own_peer);
  EXPECT_EQ(peer->private_data, "hi");
}

TEST(Handshake, Markers) {
  // Expect: who asks for them is told why not, in a Reject that asks for none.
  wire::MpaFrame f = FrameOf(false);
  f.markers = true;
  const absl::Status why = DecodeRequest(Encoded(f)).status();
  EXPECT_EQ(why.code(), absl::StatusCode::kUnimplemented);
  const std::vector<std::byte> reject = EncodeRefusal(Encoded(f), why);
  const auto reply = DecodeReply(reject, OfferOf(""));
  ASSERT_TRUE(reply.ok());
  EXPECT_TRUE(reply->rejected);
  EXPECT_TRUE(absl::StrContains(reply->private_data, "markers")) << reply->private_data;
  EXPECT_FALSE(wire::DecodeMpa(reject)->markers);
  f.reply = true;
  EXPECT_TRUE(EncodeRefusal(Encoded(f), why).empty());
  EXPECT_TRUE(EncodeRefusal(Bytes(20), why).empty());
  EXPECT_EQ(DecodeReply(Encoded(f), OfferOf("")).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(Handshake, RevisionOne) {
  // No depths, no ready frame.
  // Expect: answered in revision 1; our own depths hold.
  wire::MpaFrame f;
  f.revision = 1;
  const auto peer = DecodeRequest(Encoded(f));
  ASSERT_TRUE(peer.ok());
  const auto session = Agree(*peer, OfferOf("me", 5));
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(session->ready_frame, ReadyFrame::kNone);
  EXPECT_EQ(session->ord, 5u);
  EXPECT_EQ(ToHex(EncodeReply(*peer, OfferOf("me", 5), *session)),
            Golden("4d504120494420526570204672616d65 00 01 0002 6d65"));
  EXPECT_EQ(ToHex(EncodeReject(*peer, "no")),
            Golden("4d504120494420526570204672616d65 20 01 0002 6e6f"));
}

TEST(Handshake, CrcIfThePeerWantsIt) {
  wire::MpaFrame f = FrameOf(false);
  f.crc = true;
  const auto peer = DecodeRequest(Encoded(f));
  ASSERT_TRUE(peer.ok());
  const auto session = Agree(*peer, OfferOf(""));
  ASSERT_TRUE(session.ok());
  EXPECT_TRUE(session->crc);
  EXPECT_TRUE(wire::DecodeMpa(EncodeReply(*peer, OfferOf(""), *session))->crc);
  f.reply = true;
  EXPECT_TRUE(DecodeReply(Encoded(f), OfferOf(""))->session.crc);
}

struct ReadyRow {
  bool send, write, read;
  ReadyFrame responder;
};
class ReadyKind : public testing::TestWithParam<ReadyRow> {};

TEST_P(ReadyKind, ExactlyOneOfThoseOffered) {
  const ReadyRow& row = GetParam();
  wire::MpaFrame f = FrameOf(false);
  f.rtr_send = row.send;
  f.rtr_write = row.write;
  f.rtr_read = row.read;
  const auto peer = DecodeRequest(Encoded(f));
  ASSERT_TRUE(peer.ok());
  const auto session = Agree(*peer, OfferOf(""));
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(session->ready_frame, row.responder);
  const auto reply = wire::DecodeMpa(EncodeReply(*peer, OfferOf(""), *session));
  ASSERT_TRUE(reply.ok());
  EXPECT_TRUE(reply->peer_to_peer);
  EXPECT_EQ(reply->rtr_send + reply->rtr_write + reply->rtr_read, 1);
}

INSTANTIATE_TEST_SUITE_P(Offers, ReadyKind,
                         testing::Values(ReadyRow{true, true, true, ReadyFrame::kWrite},
                                         ReadyRow{false, true, false, ReadyFrame::kWrite},
                                         ReadyRow{true, false, true, ReadyFrame::kRead},
                                         ReadyRow{false, false, true, ReadyFrame::kRead},
                                         ReadyRow{true, false, false, ReadyFrame::kSend},
                                         ReadyRow{false, false, false, ReadyFrame::kWrite}));

TEST(Handshake, EveryTruncation) {
  // Expect: never a frame, neither from the reader nor from a decoder, and no more bytes asked for
  // than the frame has.
  const Bytes frame = EncodeRequest(OfferOf("hi"));
  for (size_t n = 0; n < frame.size(); ++n) {
    EXPECT_FALSE(DecodeRequest(std::span(frame).first(n)).ok()) << n;
    EXPECT_FALSE(DecodeReply(std::span(frame).first(n), OfferOf("")).ok()) << n;
  }
  FrameReader reader;
  for (size_t n = 0; n < frame.size(); ++n) {
    ASSERT_FALSE(reader.Space().empty());
    ASSERT_LE(reader.Space().size(), frame.size() - n);
    reader.Space()[0] = frame[n];
    const auto complete = reader.Received(1);
    ASSERT_TRUE(complete.ok());
    EXPECT_EQ(*complete, n + 1 == frame.size()) << n;
  }
  EXPECT_EQ(ToHex(reader.frame()), ToHex(frame));
}

struct StrangerRow {
  const char* name;
  std::string bytes;
  const char* text;
};
class Stranger : public testing::TestWithParam<StrangerRow> {};

TEST_P(Stranger, IsNamedAtItsFirstBytes) {
  FrameReader reader;
  const std::string& bytes = GetParam().bytes;
  std::memcpy(reader.Space().data(), bytes.data(), bytes.size());
  const auto complete = reader.Received(bytes.size());
  ASSERT_FALSE(complete.ok());
  EXPECT_TRUE(absl::StrContains(complete.status().message(), GetParam().text)) << complete.status();
}

INSTANTIATE_TEST_SUITE_P(Kinds, Stranger,
                         testing::Values(StrangerRow{"Http", "GET / HTTP/1.1\r\n", "HTTP"},
                                         StrangerRow{"Tls", "\x16\x03\x01", "TLS"},
                                         StrangerRow{"Ssh", "SSH-2.0-x", "SSH"},
                                         StrangerRow{"Noise", "\x01", "neither key"},
                                         StrangerRow{"AlmostMpa", "MPA ID Rez", "neither key"}),
                         [](const auto& i) { return std::string(i.param.name); });

TEST(Handshake, WrongKind) {
  EXPECT_FALSE(DecodeRequest(Encoded(FrameOf(true))).ok());
  EXPECT_FALSE(DecodeReply(Encoded(FrameOf(false)), OfferOf("")).ok());
}

// The ready-to-receive frame on the stream (RFC 6581 9.2): it is no request.
class ReadyFrames : public testing::TestWithParam<std::tuple<ReadyFrame, bool, bool>> {};

TEST_P(ReadyFrames, StartTheConnectionAndAreNoRequest) {
  // Own or foreign ends, CRC on or off; the responder wants to write at once, and takes nothing
  // itself.
  // Expect: it waits for the frame; then the write completes. The frame has no request number and
  // takes no receive: what follows from the initiator works as ever.
  const auto [kind, own, crc] = GetParam();
  Side a, b({.number = 2});
  Session left = own ? OwnSession(true, crc) : ForeignSession(true, 1460, crc);
  Session right = own ? OwnSession(false, crc) : ForeignSession(false, 1460, crc);
  left.ready_frame = right.ready_frame = kind;
  a.qp.Connected(left);
  ASSERT_TRUE(b.qp.Modify({.access = Access::kLocalWrite}).ok());
  b.qp.Connected(right);
  Memory mine(&a, 16), theirs(&b, 16);
  theirs.Fill(3);
  b.Post({.opcode = Opcode::kWrite, .local = theirs.sge(0, 8), .remote = mine.at(), .id = 1});
  EXPECT_TRUE(b.Drain().empty());
  Cable cable(&a, &b, Chunks(1));
  cable.Run();
  EXPECT_EQ(b.Sends(), "1 SUCCESS");
  EXPECT_TRUE(mine.Has(3, 0, 8));
  EXPECT_TRUE(b.Had(EventType::kEstablished));
  ASSERT_TRUE(b.qp.Modify({.access = kEverything}).ok());
  b.PostReceive({.local = theirs.sge(), .id = 11});
  a.Post({.opcode = Opcode::kSend, .local = mine.sge(0, 8), .id = 2});
  a.Post({.opcode = Opcode::kRead, .local = mine.sge(8, 8), .remote = theirs.at(), .id = 3});
  a.Post({.opcode = Opcode::kWrite, .local = mine.sge(0, 8), .remote = theirs.at(), .id = 4});
  cable.Run();
  EXPECT_EQ(b.Receives(), "11 SUCCESS");
  EXPECT_EQ(a.Sends(), "2 SUCCESS, 3 SUCCESS, 4 SUCCESS");
}

std::string ReadyName(const testing::TestParamInfo<std::tuple<ReadyFrame, bool, bool>>& i) {
  static constexpr const char* kNames[] = {"", "Write", "Read", "Send"};
  const auto [kind, own, crc] = i.param;
  return std::string(kNames[static_cast<int>(kind)]) + (own ? "Own" : "Foreign") +
         (crc ? "Crc" : "");
}

INSTANTIATE_TEST_SUITE_P(Kinds, ReadyFrames,
                         testing::Combine(testing::Values(ReadyFrame::kWrite, ReadyFrame::kRead,
                                                          ReadyFrame::kSend),
                                          testing::Bool(), testing::Bool()),
                         ReadyName);

}  // namespace
}  // namespace verbena::engine
