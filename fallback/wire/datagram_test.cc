// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/datagram.h"

#include <vector>

#include "fallback/wire/test_bytes.h"
#include "gtest/gtest.h"

namespace verbena::wire {
namespace {

constexpr const char* kPlain = "56625544 01c00180 00d00281 11223344 00000000";
constexpr const char* kWithImmediate = "56625544 01c00180 03d00281 80000000 0000abcd";

std::vector<std::byte> Packet(const char* hex, size_t payload = 0) {
  const auto header = Hex(hex);
  std::vector<std::byte> packet(header.begin(), header.end());
  packet.resize(packet.size() + payload);
  return packet;
}

TEST(DatagramHeader, Golden) {
  EXPECT_EQ(ToHex(AsBytes(
                EncodeDatagram({.source = 0xc00180, .destination = 0xd00281, .qkey = 0x11223344}))),
            Golden(kPlain));
  EXPECT_EQ(ToHex(AsBytes(EncodeDatagram({.source = 0xc00180,
                                          .destination = 0xd00281,
                                          .qkey = 0x80000000,
                                          .immediate = 0xabcd,
                                          .solicited = true}))),
            Golden(kWithImmediate));
}

TEST(DatagramHeader, RoundTrip) {
  const std::optional<Datagram> d = DecodeDatagram(Packet(kWithImmediate, 7));
  ASSERT_TRUE(d);
  EXPECT_EQ(d->source, 0xc00180u);
  EXPECT_EQ(d->destination, 0xd00281u);
  EXPECT_EQ(d->qkey, 0x80000000u);
  EXPECT_EQ(d->immediate, 0xabcdu);
  EXPECT_TRUE(d->solicited);
  EXPECT_FALSE(DecodeDatagram(Packet(kPlain))->immediate);
  EXPECT_FALSE(DecodeDatagram(Packet(kPlain))->solicited);
}

TEST(DatagramHeader, RefusesEveryTruncationAndWhatIsTooLong) {
  const std::vector<std::byte> whole = Packet(kPlain);
  for (size_t size = 0; size < sizeof(DatagramHeader); ++size) {
    EXPECT_FALSE(DecodeDatagram(std::span(whole).first(size))) << size;
  }
  EXPECT_TRUE(DecodeDatagram(Packet(kPlain, kMaxDatagramPayload)));
  EXPECT_FALSE(DecodeDatagram(Packet(kPlain, kMaxDatagramPayload + 1)));
}

// Magic, version, flags; and an immediate without its flag.
TEST(DatagramHeader, RefusesEveryBitThatIsWrong) {
  const auto flipped = [](size_t byte, int bit) {
    std::vector<std::byte> packet = Packet(kPlain);
    packet[byte] ^= std::byte{1} << bit;
    return packet;
  };
  for (int bit = 0; bit < 8; ++bit) {
    for (const size_t byte : {0, 1, 2, 3, 4, 16, 17, 18, 19}) {
      EXPECT_FALSE(DecodeDatagram(flipped(byte, bit))) << byte << " " << bit;
    }
    EXPECT_EQ(DecodeDatagram(flipped(8, bit)).has_value(), bit <= 1) << bit;
    for (const size_t byte : {5, 6, 7, 9, 10, 11, 12, 13, 14, 15}) {
      EXPECT_TRUE(DecodeDatagram(flipped(byte, bit))) << byte << " " << bit;
    }
  }
}

TEST(MakeGrh, V4InTheLastTwentyBytesWithItsChecksum) {
  PacketFacts facts;
  facts.source = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1};
  facts.destination = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2};
  facts.traffic_class = 0x20;
  facts.hop_limit = 64;
  facts.size = 27;
  // The checksum: RFC 1071 by hand over 4520 0037 0000 0000 4011 0a00 0001 0a00 0002.
  EXPECT_EQ(ToHex(MakeGrh(facts)), Golden("00000000 00000000 00000000 00000000 00000000"
                                          "45200037 00000000 40116694 0a000001 0a000002"));
}

TEST(MakeGrh, V6IsAllOfIt) {
  PacketFacts facts;
  facts.source[15] = 1;
  facts.destination = {0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};
  facts.traffic_class = 0x28;
  facts.hop_limit = 63;
  facts.size = 20;
  EXPECT_EQ(ToHex(MakeGrh(facts)), Golden("62800000 001c113f 00000000 00000000 00000000 00000001"
                                          "ff0e0000 00000000 00000000 00000002"));
}

}  // namespace
}  // namespace verbena::wire
