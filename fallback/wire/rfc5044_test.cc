// SPDX-License-Identifier: Apache-2.0
// What RFC 5044 demands of framing and no other test shows: rows of docs/rfc/5044.md.
#include "fallback/wire/crc32c.h"
#include "fallback/wire/ddp.h"
#include "fallback/wire/extension.h"
#include "fallback/wire/test_bytes.h"
#include "gtest/gtest.h"

namespace verbena::wire {
namespace {

// 4.4, Figure 5: an FPDU whose CRC the RFC gives. A marker of four zero bytes comes first there.
TEST(Rfc5044, CrcOfItsExample) {
  const auto bytes =
      Hex("00000000 002a 4143 00000000 00000000 00000001 00000000" + std::string(48, '0'));
  EXPECT_EQ(ToHex(AsBytes(WireCrc(Crc32c(kCrcBegin, bytes)))), "52239983");
}

// 3 and 4.5: a ULPDU of 128 to 64768 bytes, however small or large the segment.
TEST(Rfc5044, MulpduIsBounded) {
  for (uint32_t mss = 0; mss < 0x10000; ++mss) {
    for (const uint32_t header : {sizeof(TaggedHeader), sizeof(UntaggedHeader)}) {
      const uint32_t ulpdu = MaxPayloadForMss(mss, header) + header - kLengthSize;
      ASSERT_GE(ulpdu, 128u) << mss;
      ASSERT_LE(ulpdu, 64768u) << mss;
    }
  }
  EXPECT_EQ(MaxPayloadForMss(0, sizeof(TaggedHeader)), 128 - kTaggedUlpdu);
  EXPECT_EQ(MaxPayloadForMss(0xffff, sizeof(TaggedHeader)), 64768 - kTaggedUlpdu);
}

TEST(Rfc5044, LargeFpdusStayBelowTheLimit) {
  EXPECT_LE(kMaxFpduKib * 1024u + kUntaggedUlpdu, 64768u);
}

}  // namespace
}  // namespace verbena::wire
