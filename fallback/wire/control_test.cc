// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/control.h"

#include <cstdint>
#include <string>

#include "fallback/wire/test_bytes.h"
#include "gtest/gtest.h"

namespace verbena::wire {
namespace {

struct Message {
  const char* name;
  Control control;
  uint32_t text;
  const char* hex;
};

constexpr Message kMessages[] = {
    {"Ack",
     {ControlType::kAck, NakCode::kNone, 7, 0},
     0,
     "0012 41 4f 01000000 0000000f 00000007 00000000"},
    {"RnrNak",
     {ControlType::kRnrNak, NakCode::kNone, 5, 12},
     0,
     "0012 41 4f 02000000 0000000f 00000005 0000000c"},
    {"Resume",
     {ControlType::kResume, NakCode::kNone, 5, 0},
     0,
     "0012 41 4f 03000000 0000000f 00000005 00000000"},
    {"Ready",
     {ControlType::kReady, NakCode::kNone, 5, 0},
     0,
     "0012 41 4f 04000000 0000000f 00000005 00000000"},
    {"Nak",
     {ControlType::kNak, NakCode::kRemoteAccess, 6, 0},
     9,
     "001b 41 4f 05010000 0000000f 00000006 00000000"},
    {"Bye",
     {ControlType::kBye, NakCode::kNone, 0, 0},
     0,
     "0012 41 4f 06000000 0000000f 00000000 00000000"},
};

class ControlMessage : public testing::TestWithParam<Message> {};

TEST_P(ControlMessage, Golden) {
  const UntaggedHeader h = MakeControl(GetParam().control, GetParam().text);
  EXPECT_EQ(ToHex(AsBytes(h)), Golden(GetParam().hex));
  EXPECT_FALSE(Invalid(h));
  EXPECT_EQ(PayloadSize(h), GetParam().text);
}

TEST_P(ControlMessage, RoundTrip) {
  const auto h = Load<UntaggedHeader>(Hex(GetParam().hex).data());
  const Control c = ReadControl(h);
  EXPECT_EQ(c.type, GetParam().control.type);
  EXPECT_EQ(c.code, GetParam().control.code);
  EXPECT_EQ(c.rsn, GetParam().control.rsn);
  EXPECT_EQ(c.value, GetParam().control.value);
  EXPECT_FALSE(Invalid(c, PayloadSize(h)));
}

// The low half of the word is reserved.
TEST_P(ControlMessage, ReservedBitsAreIgnored) {
  UntaggedHeader h = MakeControl(GetParam().control, GetParam().text);
  h.ulp = h.ulp | 0xffff;
  EXPECT_FALSE(Invalid(ReadControl(h), GetParam().text));
  EXPECT_EQ(ReadControl(h).code, GetParam().control.code);
}

TEST_P(ControlMessage, HasAName) {
  EXPECT_STRNE(ControlName(GetParam().control.type), "unknown control message");
}

INSTANTIATE_TEST_SUITE_P(Types, ControlMessage, testing::ValuesIn(kMessages),
                         [](const auto& i) { return std::string(i.param.name); });

TEST(Control, EveryTypeAndCode) {
  for (int type = 0; type < 256; ++type) {
    for (int code = 0; code < 256; ++code) {
      Control c;
      c.type = static_cast<ControlType>(type);
      c.code = static_cast<NakCode>(code);
      const bool legal = type == 5 ? code >= 1 && code <= 4 : type >= 1 && type <= 6 && code == 0;
      ASSERT_EQ(!Invalid(c, 0), legal) << type << " " << code;
    }
  }
}

TEST(Control, OnlyNakHasText) {
  for (const Message& m : kMessages) {
    EXPECT_EQ(!Invalid(m.control, 1), m.control.type == ControlType::kNak) << m.name;
  }
}

TEST(Control, TimerCodeBeyondTheTable) {
  EXPECT_FALSE(Invalid({ControlType::kRnrNak, NakCode::kNone, 1, 31}, 0));
  EXPECT_TRUE(Invalid({ControlType::kRnrNak, NakCode::kNone, 1, 32}, 0));
}

// InfiniBand's table: 0 is the longest, the others grow.
TEST(Control, RnrTimerTable) {
  EXPECT_EQ(RnrTimerUs(0), 655360u);
  EXPECT_EQ(RnrTimerUs(1), 10u);
  EXPECT_EQ(RnrTimerUs(12), 640u);
  EXPECT_EQ(RnrTimerUs(16), 2560u);
  EXPECT_EQ(RnrTimerUs(31), 491520u);
  for (uint32_t code = 2; code < 32; ++code) EXPECT_GT(RnrTimerUs(code), RnrTimerUs(code - 1));
  // From code 5 on, two steps double it.
  for (uint32_t code = 5; code < 32; ++code) EXPECT_EQ(RnrTimerUs(code), 2 * RnrTimerUs(code - 2));
}

TEST(Control, RsnOrderAcrossTheWrap) {
  EXPECT_TRUE(RsnBefore(1, 2));
  EXPECT_FALSE(RsnBefore(2, 2));
  EXPECT_FALSE(RsnBefore(3, 2));
  EXPECT_TRUE(RsnBefore(0xffffffff, 0));
  EXPECT_FALSE(RsnBefore(0, 0xffffffff));
}

TEST(Control, NakTexts) {
  EXPECT_STREQ(NakText(NakCode::kRemoteAccess), "remote access error");
  EXPECT_STREQ(NakText(static_cast<NakCode>(9)), "unknown error");
}

}  // namespace
}  // namespace verbena::wire
