// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/mpa.h"

#include <cstddef>
#include <string>
#include <vector>

#include "fallback/wire/test_bytes.h"
#include "gtest/gtest.h"

namespace verbena::wire {
namespace {

constexpr char kReq[] = "4d504120494420526571204672616d65";
constexpr char kRep[] = "4d504120494420526570204672616d65";
constexpr char kAsk[] = "4d50412049442041736b204672616d65";

MpaFrame Frame(bool reply, uint8_t revision) {
  MpaFrame f;
  f.reply = reply;
  f.revision = revision;
  return f;
}

MpaFrame Enhanced(bool reply, uint16_t ird, uint16_t ord) {
  MpaFrame f = Frame(reply, 2);
  f.enhanced = true;
  f.ird = ird;
  f.ord = ord;
  return f;
}

struct GoldenFrame {
  const char* name;
  std::string hex;
  MpaFrame frame;
  std::string private_data;
};

std::vector<GoldenFrame> GoldenFrames() {
  std::vector<GoldenFrame> all;
  all.push_back({"Rev1Request", std::string(kReq) + "00010000", Frame(false, 1), ""});
  all.push_back(
      {"Rev1RequestPrivate", std::string(kReq) + "000100036f6e65", Frame(false, 1), "one"});
  all.push_back({"Rev1ReplyFromSiw", std::string(kRep) + "00010000", Frame(true, 1), ""});
  all.push_back(
      {"Rev2ReplyFromSiw", std::string(kRep) + "1002000400100010", Enhanced(true, 16, 16), ""});
  // As siw answers a request that offers a Read as RTR.
  GoldenFrame p2p{"PeerToPeerReplyFromSiw", std::string(kRep) + "5002000480104010",
                  Enhanced(true, 16, 16), ""};
  p2p.frame.crc = p2p.frame.peer_to_peer = p2p.frame.rtr_read = true;
  all.push_back(p2p);
  // What a Verbena initiator sends to one it does not know: A, C and D.
  GoldenFrame offer{"OfferACD", std::string(kReq) + "1002000680ffc0806869",
                    Enhanced(false, 255, 128), "hi"};
  offer.frame.peer_to_peer = offer.frame.rtr_write = offer.frame.rtr_read = true;
  all.push_back(offer);
  GoldenFrame send{"RtrSendUnspecifiedDepth", std::string(kReq) + "10020004ffff3fff",
                   Enhanced(false, kMpaDepthUnspecified, kMpaDepthUnspecified), ""};
  send.frame.peer_to_peer = send.frame.rtr_send = true;
  all.push_back(send);
  GoldenFrame reject{"Reject", std::string(kRep) + "200100026e6f", Frame(true, 1), "no"};
  reject.frame.rejected = true;
  all.push_back(reject);
  GoldenFrame markers{"MarkersAndCrc", std::string(kReq) + "c0010000", Frame(false, 1), ""};
  markers.frame.markers = markers.frame.crc = true;
  all.push_back(markers);
  GoldenFrame ask{"Rendezvous", std::string(kAsk) + "00020003617761", Frame(false, 2), "awa"};
  ask.frame.ask = true;
  all.push_back(ask);
  return all;
}

class MpaGolden : public testing::TestWithParam<GoldenFrame> {};

TEST_P(MpaGolden, Encode) {
  MpaFrame frame = GetParam().frame;
  frame.private_data = Chars(GetParam().private_data);
  std::vector<std::byte> out(kMpaMaxFrame);
  out.resize(EncodeMpa(frame, out));
  EXPECT_EQ(ToHex(out), GetParam().hex);
}

TEST_P(MpaGolden, Decode) {
  const auto bytes = Hex(GetParam().hex);
  const auto decoded = DecodeMpa(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  const MpaFrame& want = GetParam().frame;
  EXPECT_EQ(decoded->reply, want.reply);
  EXPECT_EQ(decoded->ask, want.ask);
  EXPECT_EQ(decoded->rejected, want.rejected);
  EXPECT_EQ(decoded->crc, want.crc);
  EXPECT_EQ(decoded->markers, want.markers);
  EXPECT_EQ(decoded->revision, want.revision);
  EXPECT_EQ(decoded->enhanced, want.enhanced);
  EXPECT_EQ(decoded->peer_to_peer, want.peer_to_peer);
  EXPECT_EQ(decoded->rtr_send, want.rtr_send);
  EXPECT_EQ(decoded->rtr_write, want.rtr_write);
  EXPECT_EQ(decoded->rtr_read, want.rtr_read);
  EXPECT_EQ(decoded->ird, want.ird);
  EXPECT_EQ(decoded->ord, want.ord);
  EXPECT_EQ(ToHex(decoded->private_data), ToHex(Chars(GetParam().private_data)));
}

// Every truncation: refused by Decode, and MpaFrameSize asks for more, never for too much.
TEST_P(MpaGolden, Truncation) {
  const auto bytes = Hex(GetParam().hex);
  for (size_t n = 0; n < bytes.size(); ++n) {
    const auto prefix = std::span(bytes).first(n);
    EXPECT_FALSE(DecodeMpa(prefix).ok()) << n;
    EXPECT_EQ(MpaKeyMismatch(prefix), nullptr) << n;
    EXPECT_EQ(MpaFrameSize(prefix).value(), n < 20 ? 20 : bytes.size()) << n;
  }
}

TEST_P(MpaGolden, TooSmallABuffer) {
  MpaFrame frame = GetParam().frame;
  frame.private_data = Chars(GetParam().private_data);
  std::vector<std::byte> out(GetParam().hex.size() / 2 - 1);
  EXPECT_EQ(EncodeMpa(frame, out), 0u);
}

INSTANTIATE_TEST_SUITE_P(Frames, MpaGolden, testing::ValuesIn(GoldenFrames()),
                         [](const auto& i) { return std::string(i.param.name); });

// RFC 5044 7.1.1: reserved flag bits are not checked. siw sets 0x08 for itself.
TEST(Mpa, ReservedFlagBitsAreIgnored) {
  for (const std::string flags : {"01", "02", "04", "08", "0f"}) {
    const auto frame = DecodeMpa(Hex(std::string(kReq) + flags + "010000"));
    ASSERT_TRUE(frame.ok()) << flags;
    EXPECT_FALSE(frame->crc || frame->markers || frame->rejected || frame->enhanced) << flags;
  }
}

// S is a reserved bit in revision 1, and R means nothing in a Request.
TEST(Mpa, FlagsThatDoNotApplyAreIgnored) {
  const auto frame = DecodeMpa(Hex(std::string(kReq) + "300100021234"));
  ASSERT_TRUE(frame.ok());
  EXPECT_FALSE(frame->enhanced);
  EXPECT_FALSE(frame->rejected);
  EXPECT_EQ(frame->private_data.size(), 2u);  // too few for IRD and ORD, which are not there
}

struct BadFrame {
  const char* name;
  std::string hex;
  const char* why;
};

class MpaBad : public testing::TestWithParam<BadFrame> {};

TEST_P(MpaBad, SaysWhichByte) {
  const auto frame = DecodeMpa(Hex(GetParam().hex));
  ASSERT_FALSE(frame.ok());
  EXPECT_NE(frame.status().message().find(GetParam().why), std::string::npos) << frame.status();
}

INSTANTIATE_TEST_SUITE_P(
    Frames, MpaBad,
    testing::Values(BadFrame{"Revision0", std::string(kReq) + "00000000", "byte 17, revision 0"},
                    BadFrame{"Revision3", std::string(kReq) + "00030000", "byte 17, revision 3"},
                    BadFrame{"PrivateDataOf513", std::string(kReq) + "00010201", "bytes 18-19"},
                    BadFrame{"EnhancedWithout4Bytes", std::string(kReq) + "10020003001000",
                             "bytes 18-19"},
                    BadFrame{"DataBehindIt", std::string(kReq) + "0001000055", "byte 20 and on"},
                    BadFrame{"WrongKey",
                             "4d504120494420526571204672616d66"
                             "00010000",
                             "bytes 0-15"}),
    [](const auto& i) { return std::string(i.param.name); });

// The length is refused before anybody waits for 65 535 bytes.
TEST(Mpa, FrameSizeRefusesHugePrivateData) {
  EXPECT_FALSE(MpaFrameSize(Hex(std::string(kReq) + "0001ffff")).ok());
  EXPECT_EQ(MpaFrameSize(Hex(std::string(kReq) + "00010200")).value(), kMpaMaxFrame);
}

TEST(Mpa, StrangersAreNamedEarly) {
  EXPECT_STREQ(MpaKeyMismatch(Chars("GET / HTTP/1.1\r\n")), "not an MPA frame but an HTTP request");
  EXPECT_STREQ(MpaKeyMismatch(Chars("G")), "not an MPA frame but an HTTP request");
  EXPECT_STREQ(MpaKeyMismatch(Chars("SSH-2.0-x")), "not an MPA frame but an SSH banner");
  EXPECT_STREQ(MpaKeyMismatch(Hex("1603010200")), "not an MPA frame but a TLS handshake");
  EXPECT_STREQ(MpaKeyMismatch(Chars("PRI * HTTP/2.0")), "not an MPA frame but an HTTP/2 preface");
  EXPECT_NE(MpaKeyMismatch(Hex("00")), nullptr);
  EXPECT_NE(MpaKeyMismatch(Chars("MPA ID Rex")), nullptr);
}

// Every single wrong byte of the key is seen at once.
TEST(Mpa, EveryKeyByteIsChecked) {
  for (size_t i = 0; i < 16; ++i) {
    auto bytes = Hex(kReq);
    bytes[i] ^= std::byte{0x80};
    EXPECT_NE(MpaKeyMismatch(std::span(bytes).first(i + 1)), nullptr) << i;
  }
}

TEST(Mpa, UnencodableFrames) {
  std::vector<std::byte> out(kMpaMaxFrame);
  const std::vector<std::byte> data(257);
  MpaFrame frame = Frame(false, 1);
  frame.private_data = std::span(data).first(256);
  EXPECT_EQ(EncodeMpa(frame, out), 276u);
  frame.private_data = data;  // one byte more than siw and cxgb4 read
  EXPECT_EQ(EncodeMpa(frame, out), 0u);
  frame = Enhanced(false, 16, 16);
  frame.private_data = std::span(data).first(253);  // 257 with IRD and ORD
  EXPECT_EQ(EncodeMpa(frame, out), 0u);
  EXPECT_EQ(EncodeMpa(Enhanced(false, 0x4000, 1), out), 0u);
  EXPECT_EQ(EncodeMpa(Enhanced(false, 1, 0x4000), out), 0u);
  EXPECT_EQ(EncodeMpa(Frame(false, 0), out), 0u);
  EXPECT_EQ(EncodeMpa(Frame(false, 3), out), 0u);
  frame = Enhanced(false, 1, 1);
  frame.revision = 1;
  EXPECT_EQ(EncodeMpa(frame, out), 0u);
  frame = Frame(false, 1);
  frame.rejected = true;
  EXPECT_EQ(EncodeMpa(frame, out), 0u);
}

}  // namespace
}  // namespace verbena::wire
