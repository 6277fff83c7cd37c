// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/terminate.h"

#include <cstddef>
#include <string>
#include <vector>

#include "fallback/wire/test_bytes.h"
#include "gtest/gtest.h"

namespace verbena::wire {
namespace {

constexpr char kTagged[] = "c14000abcd120000700012345678";            // a write's header
constexpr char kUntagged[] = "414100000000000000010000000300000000";  // a read request's
constexpr char kRead[] = "1122334400007f0000001000000100005566778800007e0000002000";

std::string Encoded(const Terminate& t) {
  std::vector<std::byte> out(kMaxTerminateBody);
  out.resize(EncodeTerminate(t, out));
  return ToHex(out);
}

TEST(Terminate, ControlWordAloneGolden) {
  Terminate t;
  t.error = error::kCrc;
  EXPECT_EQ(Encoded(t), Golden("20 02 00 00"));
}

// A write to an unknown STag: the DDP header comes back.
TEST(Terminate, WithDdpHeaderGolden) {
  const auto header = Hex(kTagged);
  Terminate t;
  t.error = error::kStag;
  t.segment_length = 19;
  t.ddp_header = header;
  EXPECT_EQ(Encoded(t), Golden("11 00 c0 00 0013" + std::string(kTagged)));
}

// A read of a region without that right: DDP header and Read Request come back.
TEST(Terminate, WithReadRequestGolden) {
  const auto header = Hex(kUntagged);
  const auto read = Hex(kRead);
  Terminate t;
  t.error = error::kAccess;
  t.segment_length = 46;
  t.ddp_header = header;
  t.read_request = read;
  const std::string golden = Golden("01 02 e0 00 002e" + std::string(kUntagged) + kRead);
  EXPECT_EQ(golden.size() / 2, kMaxTerminateBody);
  EXPECT_EQ(Encoded(t), golden);

  const auto bytes = Hex(golden);
  const auto back = DecodeTerminate(bytes);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->error, error::kAccess);
  EXPECT_EQ(back->segment_length, 46);
  EXPECT_EQ(ToHex(back->ddp_header), kUntagged);
  EXPECT_EQ(ToHex(back->read_request), kRead);
  EXPECT_FALSE(back->ambiguous || back->truncated);
}

// What there is of a cut message is used; only the control word is needed.
TEST(Terminate, EveryTruncation) {
  const auto bytes = Hex("0102e000002e" + std::string(kUntagged) + kRead);
  for (size_t n = 0; n < bytes.size(); ++n) {
    const auto t = DecodeTerminate(std::span(bytes).first(n));
    ASSERT_EQ(t.ok(), n >= 4) << n;
    if (!t.ok()) continue;
    EXPECT_EQ(t->error, error::kAccess) << n;
    EXPECT_TRUE(t->truncated) << n;
    EXPECT_EQ(t->segment_length, n >= 6 ? 46 : 0) << n;
    EXPECT_EQ(t->ddp_header.size(), n >= 24 ? 18u : 0u) << n;
    EXPECT_TRUE(t->read_request.empty()) << n;
  }
}

TEST(Terminate, EncodeRefusesOtherSizes) {
  const std::vector<std::byte> bytes(64);
  std::vector<std::byte> out(kMaxTerminateBody);
  Terminate t;
  t.ddp_header = std::span(bytes).first(16);
  EXPECT_EQ(EncodeTerminate(t, out), 0u);
  t.ddp_header = {};
  t.read_request = std::span(bytes).first(28);  // R without D
  EXPECT_EQ(EncodeTerminate(t, out), 0u);
  t = Terminate{};
  EXPECT_EQ(EncodeTerminate(t, std::span(out).first(3)), 0u);
}

struct Reading {
  const char* name;
  const char* hex;
  TerminateError error;
  bool ambiguous;
  TerminateError other;
};

class TerminateReading : public testing::TestWithParam<Reading> {};

TEST_P(TerminateReading, Decode) {
  const auto bytes = Hex(GetParam().hex);
  const auto t = DecodeTerminate(bytes);
  ASSERT_TRUE(t.ok());
  EXPECT_EQ(t->error, GetParam().error);
  EXPECT_EQ(t->ambiguous, GetParam().ambiguous);
  EXPECT_EQ(t->other, GetParam().other);
}

constexpr TerminateError kNone;
INSTANTIATE_TEST_SUITE_P(
    Readings, TerminateReading,
    testing::Values(
        // Flags in 0xe0: the RFC's order, whatever byte 0 would mean otherwise.
        Reading{"RfcFlags", "1001c000 0013 c14000abcd120000700012345678", {1, 0, 1}, false, kNone},
        // Flags in 0x07: siw's order. 0x10 is layer 0, type 1.
        Reading{"SiwFlags", "10010300 0013 c14000abcd120000700012345678", {0, 1, 1}, false, kNone},
        Reading{"SiwReadRequest", "10020700", {0, 1, 2}, false, kNone},
        // Low bits beside the RFC's flags are reserved bits, not siw's flags.
        Reading{"RfcFlagsAndReserved", "0102c700", {0, 1, 2}, false, kNone},
        // No flags, one assigned reading: DDP/catastrophic/01 does not exist.
        Reading{"OnlySiwAssigned", "10010000", {0, 1, 1}, false, kNone},
        Reading{"OnlyRfcAssigned", "12020000", {1, 2, 2}, false, kNone},
        Reading{"CrcOrNothing", "20020000", {2, 0, 2}, false, kNone},
        // No flags, both assigned: MPA insufficient IRD, or RDMAP unexpected opcode from siw.
        Reading{"Ambiguous", "20060000", {2, 0, 6}, true, {0, 2, 6}},
        // No flags, neither assigned.
        Reading{"Unknown", "3f770000", {3, 15, 0x77}, true, {15, 3, 0x77}},
        // The same either way.
        Reading{"Symmetric", "11020000", {1, 1, 2}, false, kNone}),
    [](const auto& i) { return std::string(i.param.name); });

// siw's flags put the headers in the RFC's places.
TEST(Terminate, SiwHeadersAreFound) {
  const auto bytes = Hex("1002 0700 002e" + std::string(kUntagged) + kRead);
  const auto t = DecodeTerminate(bytes);
  ASSERT_TRUE(t.ok());
  EXPECT_EQ(t->error, error::kAccess);
  EXPECT_EQ(ToHex(t->ddp_header), kUntagged);
  EXPECT_EQ(ToHex(t->read_request), kRead);
}

TEST(Terminate, Texts) {
  EXPECT_STREQ(TerminateText(1, 2, 2), "DDP untagged buffer: no receive buffer available");
  EXPECT_STREQ(TerminateText(2, 0, 7), "MPA: no matching RTR option");
  EXPECT_STREQ(TerminateText(0, 0, 0x5a), "RDMAP: local catastrophic error");  // any code
  EXPECT_STREQ(TerminateText(error::kUnexpectedOpcode), "RDMAP: unexpected opcode");
  EXPECT_STREQ(TerminateText(3, 0, 0), "unknown error");
  EXPECT_STREQ(TerminateText(1, 3, 0), "unknown error");
}

// Every triple: never null, and round trip of its control word.
TEST(Terminate, EveryTriple) {
  const auto header = Hex(kTagged);
  for (int layer = 0; layer < 16; ++layer) {
    for (int type = 0; type < 16; ++type) {
      for (int code = 0; code < 256; ++code) {
        Terminate t;
        t.error = {static_cast<uint8_t>(layer), static_cast<uint8_t>(type),
                   static_cast<uint8_t>(code)};
        t.ddp_header = header;  // with a flag set the reading is certain
        std::byte out[kMaxTerminateBody];
        const size_t size = EncodeTerminate(t, out);
        ASSERT_NE(TerminateText(t.error), nullptr);
        ASSERT_EQ(DecodeTerminate(std::span(out, size))->error, t.error);
      }
    }
  }
}

}  // namespace
}  // namespace verbena::wire
