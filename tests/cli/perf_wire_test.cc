// SPDX-License-Identifier: Apache-2.0
// What `verbena perf`'s two sides tell each other, and what a client makes of its options.
#include "tools/verbena/perf_wire.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/verbena/perf.h"

namespace verbena::tool {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

PerfRequest SomeRequest() {
  return {.op = PerfOp::kRead,
          .mode = PerfMode::kLatency,
          .events = true,
          .size = 4096,
          .window = 3,
          .queue_pairs = 77,
          .index = 5,
          .session = 0x0102030405060708,
          .lent = {.address = 0x1122334455667788, .length = 8192, .key = 0x99AABBCC}};
}

TEST(PerfWire, Request) {
  const std::string bytes = EncodePerfRequest(SomeRequest());
  EXPECT_EQ(bytes, std::string("VPRF\x02\x02\x01\x01"
                               "\x00\x00\x10\x00"
                               "\x00\x00\x00\x03"
                               "\x00\x00\x00\x4D"
                               "\x00\x00\x00\x05"
                               "\x01\x02\x03\x04\x05\x06\x07\x08"
                               "\x11\x22\x33\x44\x55\x66\x77\x88"
                               "\x00\x00\x00\x00\x00\x00\x20\x00"
                               "\x99\xAA\xBB\xCC",
                               52));
  // Connection managers may pad.
  const absl::StatusOr<PerfRequest> back = DecodePerfRequest(bytes + std::string(4, '\0'));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(EncodePerfRequest(*back), bytes);
}

TEST(PerfWire, EveryTruncationIsRefused) {
  const PerfRequest some = SomeRequest();
  const std::string request = EncodePerfRequest(some);
  const std::string answer = EncodePerfAnswer(some.lent);
  const std::string leg = EncodePerfLeg({.size = 8, .rounds = 9});
  const std::string usage = EncodePerfUsage({});
  for (size_t i = 0; i < request.size(); ++i) {
    EXPECT_FALSE(DecodePerfRequest(request.substr(0, i)).ok()) << i;
  }
  for (size_t i = 0; i < answer.size(); ++i) {
    EXPECT_FALSE(DecodePerfAnswer(answer.substr(0, i)).ok()) << i;
  }
  for (size_t i = 0; i < kPerfControlBytes; ++i) {
    EXPECT_FALSE(DecodePerfLeg(leg.substr(0, i), some).ok()) << i;
    EXPECT_FALSE(DecodePerfUsage(usage.substr(0, i)).ok()) << i;
  }
}

TEST(PerfWire, OutOfBoundsIsRefused) {
  auto said = [](size_t at, const std::string& bytes, PerfOp op = PerfOp::kRead) {
    PerfRequest some = SomeRequest();
    some.op = op;
    std::string request = EncodePerfRequest(some);
    request.replace(at, bytes.size(), bytes);
    return std::string(DecodePerfRequest(request).status().message());
  };
  const std::string zero(4, '\0');
  const std::string huge(4, '\xFF');
  EXPECT_THAT(said(0, "GET "), HasSubstr("not `verbena perf -c`"));
  EXPECT_THAT(said(4, "\x03"), HasSubstr("version 3"));
  EXPECT_THAT(said(5, "\x05"), HasSubstr("operation 5"));
  EXPECT_THAT(said(6, "\x04"), HasSubstr("mode 4"));
  EXPECT_THAT(said(7, "\x02"), HasSubstr("events 2"));
  EXPECT_THAT(said(8, zero), HasSubstr("size 0"));
  EXPECT_THAT(said(8, huge), HasSubstr("size 4294967295"));
  EXPECT_THAT(said(8, huge, PerfOp::kAtomic), HasSubstr("is not from 8 to 8"));
  EXPECT_THAT(said(12, zero), HasSubstr("window 0"));
  EXPECT_THAT(said(12, huge), HasSubstr("window 4294967295"));
  EXPECT_THAT(said(16, zero), HasSubstr("queue pairs 0"));
  EXPECT_THAT(said(16, huge), HasSubstr("queue pairs 4294967295"));
  EXPECT_THAT(said(20, std::string("\0\0\0\x4D", 4)), HasSubstr("index 77 is not from 0 to 76"));
  EXPECT_EQ(said(20, std::string("\0\0\0\x4C", 4)), "");
}

TEST(PerfWire, Legs) {
  const PerfRequest some = SomeRequest();
  const std::string bytes = EncodePerfLeg({.size = 4096, .rounds = 0x0102030, .credit = 3});
  EXPECT_EQ(bytes.substr(0, 20), std::string("VLEG\0\0\x10\0\0\0\0\0\0\x10\x20\x30\0\0\0\x03", 20));
  const absl::StatusOr<PerfLeg> back = DecodePerfLeg(bytes, some);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(EncodePerfLeg(*back), bytes);
  auto said = [&](const PerfLeg& leg) {
    return std::string(DecodePerfLeg(EncodePerfLeg(leg), some).status().message());
  };
  EXPECT_THAT(said({.size = 4097, .rounds = 1}), HasSubstr("size 4097 is not from 1 to 4096"));
  EXPECT_THAT(said({.size = 0, .rounds = 1}), HasSubstr("size 0"));
  EXPECT_THAT(said({.size = 1, .rounds = kMaxPerfRounds + 1}), HasSubstr("rounds 1000000001"));
  EXPECT_THAT(said({.size = 1, .rounds = 1, .credit = 4}), HasSubstr("credit 4 is not from 0"));
  EXPECT_THAT(DecodePerfLeg(std::string(64, 'x'), some).status().message(),
              HasSubstr("out of step"));
}

TEST(PerfWire, Usage) {
  const PerfUsage usage{.cpu = {.seconds = 1.5, .cycles = 7},
                        .tcp = {"bbr", 0x01020304, 0x05060708}};
  const std::string bytes = EncodePerfUsage(usage);
  const absl::StatusOr<PerfUsage> back = DecodePerfUsage(bytes);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->cpu.seconds, 1.5);
  EXPECT_EQ(back->cpu.cycles, 7u);
  EXPECT_EQ(back->tcp.congestion_control, "bbr");
  EXPECT_EQ(back->tcp.send_buffer, 0x01020304u);
  EXPECT_EQ(back->tcp.receive_buffer, 0x05060708u);
  // A name goes to people's terminals: no peer sends it an escape, or more than a name.
  std::string rude = bytes;
  rude.replace(32, 32, std::string(32, '\x1B'));
  EXPECT_EQ(DecodePerfUsage(rude)->tcp.congestion_control, std::string(16, '?'));
}

TEST(PerfLayout, PartsDoNotMeet) {
  for (uint32_t size : {1u, 8u, 64u, 65u, 4095u, 4096u, 4097u, kMaxPerfSize}) {
    const PerfLayout layout(size);
    EXPECT_GE(layout.landing() - layout.source(), size);
    EXPECT_GE(layout.landing() - layout.source(), kPerfControlBytes);
    EXPECT_GE(layout.said() - layout.landing(), size);
    EXPECT_GE(layout.heard() - layout.said(), kPerfControlBytes);
    EXPECT_GE(layout.total() - layout.heard(), kPerfControlBytes);
  }
}

TEST(PerfPlan, Sizes) {
  EXPECT_THAT(*ParseSizes("64K"), ElementsAre(65536));
  EXPECT_THAT(*ParseSizes("3-30"), ElementsAre(3, 6, 12, 24, 30));
  EXPECT_THAT(*ParseSizes("8-8"), ElementsAre(8));
  EXPECT_THAT(*ParseSizes("32M-64M"), ElementsAre(32 << 20, 64 << 20));
  const std::vector<uint32_t> all = *ParseSizes("all");
  EXPECT_EQ(all.size(), 27u);
  EXPECT_EQ(all.front(), 1u);
  EXPECT_EQ(all.back(), kMaxPerfSize);
  for (const char* bad : {"", "0", "-", "8-", "-8", "16-8", "65M", "67108865", "1G", "8x", "1-2-3",
                          "18446744073709551616", "0-8"}) {
    EXPECT_THAT(ParseSizes(bad).status().message(), HasSubstr("no size from 1")) << bad;
  }
}

TEST(PerfPlan, Defaults) {
  PerfOptions options;
  EXPECT_THAT(MakePlan(options)->sizes, ElementsAre(65536));
  EXPECT_EQ(MakePlan(options)->iterations, 15258u);
  EXPECT_EQ(MakePlan(options)->post_list, 4u);
  options.mode = "lat";
  EXPECT_THAT(MakePlan(options)->sizes, ElementsAre(8));
  EXPECT_EQ(MakePlan(options)->iterations, 10'000u);
  EXPECT_EQ(MakePlan(options)->window, 1u);
  options.size = "all";
  EXPECT_EQ(MakePlan(options)->iterations, 0u);
  EXPECT_EQ(MakePlan(options)->seconds, 0.25);
  options = {};
  options.mode = "rate";
  EXPECT_THAT(MakePlan(options)->sizes, ElementsAre(64));
  EXPECT_EQ(MakePlan(options)->window, 512u);
  EXPECT_EQ(MakePlan(options)->post_list, 32u);
}

}  // namespace
}  // namespace verbena::tool
