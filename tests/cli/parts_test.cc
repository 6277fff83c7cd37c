// SPDX-License-Identifier: Apache-2.0
// The tool's parts that need no process: wires, options, figures, text.
#include <chrono>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/verbena/address.h"
#include "tools/verbena/flags.h"
#include "tools/verbena/perf_wire.h"
#include "tools/verbena/ping_wire.h"
#include "tools/verbena/stats.h"
#include "tools/verbena/text.h"

namespace verbena::tool {
namespace {

using ::testing::HasSubstr;

// Golden bytes: what rping's struct of {be64 buf, be32 rkey, be32 size} holds for these values.
TEST(PingWire, AdvertIsRpings) {
  const AdvertBytes bytes =
      EncodeAdvert({.address = 0x0102030405060708, .length = 0x40, .key = 0xA1B2C3D4});
  EXPECT_EQ(memcmp(&bytes, "\x01\x02\x03\x04\x05\x06\x07\x08\xA1\xB2\xC3\xD4\x00\x00\x00\x40", 16),
            0);
  const RemoteBuffer back = DecodeAdvert(bytes);
  EXPECT_EQ(back.address, 0x0102030405060708u);
  EXPECT_EQ(back.key, 0xA1B2C3D4u);
  EXPECT_EQ(back.length, 0x40u);
}

std::string Ping(uint32_t round, size_t size) {
  std::string text(size, '?');
  FillPing(round, std::as_writable_bytes(std::span(text)));
  return text;
}

// rping's text: letters from 'A' to 'z', the first one further with each ping, a zero at the end.
TEST(PingWire, Data) {
  EXPECT_EQ(Ping(0, 64), std::string("rdma-ping-0: ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`"
                                     "abcdefghijklmnopqr\0",
                                     64));
  EXPECT_EQ(Ping(1, 20), std::string("rdma-ping-1: BCDEFG\0", 20));
  EXPECT_EQ(Ping(57, 20), std::string("rdma-ping-57: zABCD\0", 20));
  EXPECT_EQ(Ping(58, 20), std::string("rdma-ping-58: ABCDE\0", 20));
  EXPECT_EQ(Ping(0, 4), std::string("rdm\0", 4));
}

PerfRequest SomeRequest() {
  return {.op = PerfOp::kRead,
          .mode = PerfMode::kLatency,
          .size = 4096,
          .window = 3,
          .rounds = 77,
          .lent = {.address = 0x1122334455667788, .length = 8192, .key = 0x99AABBCC}};
}

TEST(PerfWire, Request) {
  const std::string bytes = EncodePerfRequest(SomeRequest());
  EXPECT_EQ(bytes, std::string("VPRF\x01\x02\x01\x00"
                               "\x00\x00\x10\x00"
                               "\x00\x00\x00\x03"
                               "\x00\x00\x00\x4D"
                               "\x00\x00\x00\x00"
                               "\x11\x22\x33\x44\x55\x66\x77\x88"
                               "\x00\x00\x00\x00\x00\x00\x20\x00"
                               "\x99\xAA\xBB\xCC",
                               44));
  // Connection managers may pad.
  const absl::StatusOr<PerfRequest> back = DecodePerfRequest(bytes + std::string(12, '\0'));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(EncodePerfRequest(*back), bytes);
}

TEST(PerfWire, EveryTruncationIsRefused) {
  const std::string request = EncodePerfRequest(SomeRequest());
  const std::string answer = EncodePerfAnswer(SomeRequest().lent);
  for (size_t i = 0; i < request.size(); ++i) {
    EXPECT_FALSE(DecodePerfRequest(request.substr(0, i)).ok()) << i;
  }
  for (size_t i = 0; i < answer.size(); ++i) {
    EXPECT_FALSE(DecodePerfAnswer(answer.substr(0, i)).ok()) << i;
  }
  EXPECT_EQ(DecodePerfResult("short").cpu_seconds, 0);
  EXPECT_NEAR(DecodePerfResult(EncodePerfResult({.cpu_seconds = 1.5})).cpu_seconds, 1.5, 1e-6);
}

TEST(PerfWire, OutOfBoundsIsRefused) {
  auto said = [](size_t at, const std::string& bytes) {
    std::string request = EncodePerfRequest(SomeRequest());
    request.replace(at, bytes.size(), bytes);
    return std::string(DecodePerfRequest(request).status().message());
  };
  const std::string zero(4, '\0');
  const std::string huge(4, '\xFF');
  EXPECT_THAT(said(0, "GET "), HasSubstr("not `verbena perf -c`"));
  EXPECT_THAT(said(4, "\x02"), HasSubstr("version 2"));
  EXPECT_THAT(said(5, "\x04"), HasSubstr("operation 4"));
  EXPECT_THAT(said(6, "\x03"), HasSubstr("mode 3"));
  EXPECT_THAT(said(8, zero), HasSubstr("size 0"));
  EXPECT_THAT(said(8, huge), HasSubstr("size 4294967295"));
  EXPECT_THAT(said(12, zero), HasSubstr("window 0"));
  EXPECT_THAT(said(12, huge), HasSubstr("window 4294967295"));
  EXPECT_THAT(said(16, zero), HasSubstr("0 rounds"));
  EXPECT_THAT(said(16, huge), HasSubstr("4294967295 rounds"));
}

TEST(PerfLayout, HalvesDoNotMeet) {
  for (uint32_t size : {1u, 8u, 64u, 65u, 4095u, 4096u, 4097u, kMaxPerfSize}) {
    const PerfLayout layout(size);
    EXPECT_GE(layout.landing() - layout.source(), size);
    EXPECT_GE(layout.total() - layout.landing(), size);
    EXPECT_GE(layout.area, kPerfResultBytes);
  }
}

TEST(Samples, NearestRank) {
  Samples samples;
  EXPECT_EQ(samples.Summarise().median_us(), 0);
  for (int i = 100; i >= 1; --i) samples.Add(std::chrono::microseconds(i));
  const report::Latency whole = samples.Summarise();
  EXPECT_EQ(whole.min_us(), 1);
  EXPECT_EQ(whole.median_us(), 50);
  EXPECT_EQ(whole.p99_us(), 99);
  EXPECT_EQ(whole.max_us(), 100);
  EXPECT_EQ(samples.Summarise(2).median_us(), 25);
  samples.Add(std::chrono::hours(1));  // more than 32 bits of nanoseconds
  EXPECT_NEAR(samples.Summarise().max_us(), 4294967.295, 1e-3);
}

TEST(Text, PrintableKeepsTextOnly) {
  EXPECT_EQ(Printable("a\nb µ ↔ 😀"), "a\nb µ ↔ 😀");
  EXPECT_EQ(Printable("\x1B[31m\x7F\r"), "?[31m??");
  EXPECT_EQ(Printable("\xC3"), "?");            // cut off
  EXPECT_EQ(Printable("\xC0\xAF"), "??");       // overlong
  EXPECT_EQ(Printable("\xED\xA0\x80"), "???");  // a surrogate
  EXPECT_EQ(Printable("\xC2\x9B"
                      "2J"),
            "?2J");  // a control character of two bytes
  EXPECT_EQ(Printable("\xFF\xFE"), "??");
}

TEST(Text, NearestWord) {
  const std::vector<std::string> words = {"devices", "ping", "perf"};
  EXPECT_EQ(Nearest("pign", words), "ping");
  EXPECT_EQ(Nearest("device", words), "devices");
  EXPECT_EQ(Nearest("dev", words), "devices");
  EXPECT_EQ(Nearest("pref", words), "perf");
  EXPECT_EQ(Nearest("zzzz", words), "");
}

TEST(Text, TableIsAligned) {
  EXPECT_EQ(Table({{"A", "BB", "C"}, {"aaa", "b", "c"}}), "A    BB  C\naaa  b   c\n");
}

TEST(Address, Brackets) {
  EXPECT_EQ(JoinHostPort("host", 1), "host:1");
  EXPECT_EQ(JoinHostPort("", 1), ":1");
  EXPECT_EQ(JoinHostPort("::1", 1), "[::1]:1");
  EXPECT_EQ(JoinHostPort("[::1]", 1), "[::1]:1");
}

// Parses `words` with one option of each kind; the error's text, or "".
struct Parsed {
  bool flag = false;
  std::string text;
  int64_t number = 7;
  std::string word = "one";
  bool help = false;
  std::string error;
};

Parsed Parse(std::vector<std::string> words) {
  Parsed parsed;
  FlagSet flags({{'f', "flag", "", "", &parsed.flag},
                 {'t', "text", "T", "", &parsed.text},
                 {'n', "number", "N", "", Number{&parsed.number, -5, 9}},
                 {0, "word", "W", "", Word{&parsed.word, {"one", "two"}}}});
  words.insert(words.begin(), "command");
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  parsed.error = std::string(flags.Parse(static_cast<int>(words.size()), argv.data()).message());
  parsed.help = flags.help_wanted();
  return parsed;
}

TEST(Flags, Kinds) {
  const Parsed parsed = Parse({"-ft", "some text", "--number=-5", "--word", "two"});
  EXPECT_EQ(parsed.error, "");
  EXPECT_TRUE(parsed.flag);
  EXPECT_EQ(parsed.text, "some text");
  EXPECT_EQ(parsed.number, -5);
  EXPECT_EQ(parsed.word, "two");
  EXPECT_FALSE(parsed.help);
  EXPECT_EQ(Parse({"-n9"}).number, 9);
}

TEST(Flags, Refusals) {
  EXPECT_THAT(Parse({"-n", "10"}).error, HasSubstr("`10` is not a number from -5 to 9"));
  EXPECT_THAT(Parse({"-n", ""}).error, HasSubstr("`` is not a number"));
  EXPECT_THAT(Parse({"-x"}).error, HasSubstr("there is no option -x"));
  EXPECT_THAT(Parse({"-fx"}).error, HasSubstr("there is no option -x"));
  EXPECT_THAT(Parse({"-f", "more"}).error, HasSubstr("`more` is not an option"));
  EXPECT_TRUE(Parse({"-h", "-x"}).help);
  EXPECT_EQ(Parse({"-h", "-x"}).error, "");
}

}  // namespace
}  // namespace verbena::tool
