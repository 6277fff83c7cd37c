// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/ddp.h"

#include <cstdint>

#include "fallback/wire/test_bytes.h"
#include "gtest/gtest.h"

namespace verbena::wire {
namespace {

TEST(Ddp, TaggedHeaderGolden) {
  TaggedHeader h;
  h.length = kTaggedUlpdu + 5;
  h.ddp |= kLast;
  h.rdmap = 0x40;
  h.stag = 0x00abcd12;
  h.tagged_offset = 0x0000700012345678;
  EXPECT_EQ(ToHex(AsBytes(h)), Golden("0013 c1 40 00abcd12 0000700012345678"));
}

TEST(Ddp, UntaggedHeaderGolden) {
  UntaggedHeader h;
  h.length = kUntaggedUlpdu + 5;
  h.ddp |= kLast;
  h.rdmap = 0x43;
  h.queue_number = kSendQueue;
  h.msn = 7;
  h.message_offset = 0x1000;
  EXPECT_EQ(ToHex(AsBytes(h)), Golden("0017 41 43 00000000 00000000 00000007 00001000"));
}

TEST(Ddp, HeadersRoundTrip) {
  const auto tagged = Load<TaggedHeader>(Hex("0013c14000abcd120000700012345678").data());
  EXPECT_EQ(tagged.length, 19);
  EXPECT_EQ(tagged.stag, 0x00abcd12u);
  EXPECT_EQ(tagged.tagged_offset, 0x0000700012345678u);
  const auto untagged =
      Load<UntaggedHeader>(Hex("0017414300abcd12000000010000000700001000").data());
  EXPECT_EQ(untagged.ulp, 0x00abcd12u);
  EXPECT_EQ(untagged.queue_number, 1u);
  EXPECT_EQ(untagged.msn, 7u);
  EXPECT_EQ(untagged.message_offset, 0x1000u);
}

TEST(Ddp, PadCompletesToFour) {
  const uint32_t pad[] = {0, 3, 2, 1};
  for (uint32_t payload = 0; payload < 64; ++payload) {
    EXPECT_EQ(PadBytes(payload), pad[payload % 4]);
  }
}

TEST(Ddp, FpduSize) {
  EXPECT_EQ(FpduSize(sizeof(TaggedHeader), 0), 20u);    // a zero-length write, the smallest FPDU
  EXPECT_EQ(FpduSize(sizeof(UntaggedHeader), 0), 24u);  // a control message
  EXPECT_EQ(FpduSize(sizeof(TaggedHeader), 5), 28u);
  EXPECT_EQ(FpduSize(sizeof(UntaggedHeader), 61440), 61464u);
}

// Both ways to the size of an FPDU agree, for all lengths of the wire.
TEST(Ddp, FpduSizeOfUlpduAgrees) {
  for (uint32_t payload = 0; payload <= kMaxTaggedPayload; ++payload) {
    ASSERT_EQ(FpduSizeOfUlpdu(kTaggedUlpdu + payload), FpduSize(sizeof(TaggedHeader), payload));
  }
  for (uint32_t payload = 0; payload <= kMaxUntaggedPayload; ++payload) {
    ASSERT_EQ(FpduSizeOfUlpdu(kUntaggedUlpdu + payload), FpduSize(sizeof(UntaggedHeader), payload));
  }
}

// RFC 5044 4.5. The largest payload gives an FPDU within the MSS; the value itself is pinned.
TEST(Ddp, MaxPayloadForMss) {
  EXPECT_EQ(MaxPayloadForMss(1460, sizeof(TaggedHeader)), 1440u);
  EXPECT_EQ(MaxPayloadForMss(1448, sizeof(UntaggedHeader)), 1424u);
  for (uint32_t mss = 536; mss < 9000; ++mss) {
    EXPECT_LE(FpduSize(16, MaxPayloadForMss(mss, 16)), mss) << mss;
    EXPECT_LE(FpduSize(20, MaxPayloadForMss(mss, 20)), mss) << mss;
  }
}

TEST(Ddp, HeaderSizeFollowsTheTaggedFlag) {
  EXPECT_EQ(HeaderSize(0xc1), 16u);
  EXPECT_EQ(HeaderSize(0x81), 16u);
  EXPECT_EQ(HeaderSize(0x41), 20u);
  EXPECT_EQ(HeaderSize(0x01), 20u);
}

}  // namespace
}  // namespace verbena::wire
