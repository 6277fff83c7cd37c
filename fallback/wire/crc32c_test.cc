// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/crc32c.h"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "fallback/wire/test_bytes.h"
#include "gtest/gtest.h"

namespace verbena::wire {
namespace {

struct Vector {
  const char* name;
  std::vector<std::byte> bytes;
  const char* wire;
};

std::vector<std::byte> Count(int first, int step) {
  std::vector<std::byte> bytes;
  for (int i = 0; i < 32; ++i) bytes.push_back(static_cast<std::byte>(first + i * step));
  return bytes;
}

class Rfc3720 : public testing::TestWithParam<Vector> {};

// RFC 3720 B.4, CRC bytes in the order of transmission.
TEST_P(Rfc3720, WireBytes) {
  EXPECT_EQ(ToHex(AsBytes(WireCrc(Crc32c(kCrcBegin, GetParam().bytes)))), GetParam().wire);
}

// Header, payload and pad come from different buffers: every cut must give the same value.
TEST_P(Rfc3720, AnySplit) {
  const std::span<const std::byte> all(GetParam().bytes);
  for (size_t cut = 0; cut <= all.size(); ++cut) {
    const uint32_t running = Crc32c(Crc32c(kCrcBegin, all.first(cut)), all.subspan(cut));
    EXPECT_EQ(ToHex(AsBytes(WireCrc(running))), GetParam().wire) << "cut at " << cut;
  }
}

INSTANTIATE_TEST_SUITE_P(
    B4, Rfc3720,
    testing::Values(
        Vector{"Zeroes", std::vector<std::byte>(32, std::byte{0}), "aa36918a"},
        Vector{"Ones", std::vector<std::byte>(32, std::byte{0xff}), "43aba862"},
        Vector{"Incrementing", Count(0, 1), "4e79dd46"},
        Vector{"Decrementing", Count(31, -1), "5cdb3f11"},
        Vector{"ScsiRead",
               Hex("01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018"
                   "28000000 00000000 02000000 00000000"),
               "563a96d9"}),
    [](const auto& i) { return std::string(i.param.name); });

TEST(Crc32c, EmptyIsZero) { EXPECT_EQ(Crc32cFinish(Crc32c(kCrcBegin, {})), 0u); }

// The check value that catalogues of CRCs give for "123456789".
TEST(Crc32c, CatalogueCheckValue) {
  EXPECT_EQ(Crc32cFinish(Crc32c(kCrcBegin, Chars("123456789"))), 0xe3069283u);
}

TEST(Crc32c, TrailerRoundTrip) {
  const uint32_t running = Crc32c(kCrcBegin, Chars("verbena"));
  std::byte trailer[4];
  Store(trailer, WireCrc(running));
  EXPECT_EQ(Load<Le32>(trailer), Crc32cFinish(running));
}

}  // namespace
}  // namespace verbena::wire
