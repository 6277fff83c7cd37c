// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/bytes.h"

#include <cstddef>
#include <cstdint>

#include "fallback/wire/test_bytes.h"
#include "gtest/gtest.h"

namespace verbena::wire {
namespace {

static_assert(Be16(0x1234) == 0x1234 && Be32(0x12345678) == 0x12345678);
static_assert(Be64(0x0123456789abcdef) == 0x0123456789abcdef && Le32(0x12345678) == 0x12345678);

TEST(Bytes, BigEndianGolden) {
  EXPECT_EQ(ToHex(AsBytes(Be16(0x1234))), "1234");
  EXPECT_EQ(ToHex(AsBytes(Be32(0x12345678))), "12345678");
  EXPECT_EQ(ToHex(AsBytes(Be64(0x0123456789abcdef))), "0123456789abcdef");
}

TEST(Bytes, LittleEndianGolden) { EXPECT_EQ(ToHex(AsBytes(Le32(0x12345678))), "78563412"); }

// A field that nobody sets must go out as zero.
TEST(Bytes, DefaultIsZero) {
  EXPECT_EQ(ToHex(AsBytes(Be64())), "0000000000000000");
  EXPECT_EQ(Be16(), 0);
}

// Load and Store at every offset of a word: nothing assumes alignment.
TEST(Bytes, UnalignedRoundTrip) {
  for (size_t offset = 0; offset < 8; ++offset) {
    std::byte buffer[16] = {};
    std::byte* end = Store(buffer + offset, Be64(0x0123456789abcdef));
    EXPECT_EQ(end, buffer + offset + 8);
    EXPECT_EQ(Load<Be64>(buffer + offset), uint64_t{0x0123456789abcdef});
    EXPECT_EQ(buffer[offset], std::byte{0x01});
  }
}

TEST(Bytes, Extremes) {
  EXPECT_EQ(Be16(0xffff), 0xffff);
  EXPECT_EQ(Be32(0xffffffff), 0xffffffffu);
  EXPECT_EQ(Be64(~uint64_t{0}), ~uint64_t{0});
}

}  // namespace
}  // namespace verbena::wire
