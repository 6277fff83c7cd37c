// SPDX-License-Identifier: Apache-2.0
// The tool's parts that need no process: wires, options, figures, text.
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/verbena/address.h"
#include "tools/verbena/flags.h"
#include "tools/verbena/ping_wire.h"
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
