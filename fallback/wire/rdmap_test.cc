// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/rdmap.h"

#include <cstdint>
#include <string>
#include <vector>

#include "fallback/wire/test_bytes.h"
#include "gtest/gtest.h"

namespace verbena::wire {
namespace {

TaggedHeader Tagged(uint8_t opcode, uint32_t payload = 0) {
  TaggedHeader h;
  h.length = static_cast<uint16_t>(kTaggedUlpdu + payload);
  h.ddp |= kLast;
  h.rdmap = kRdmapVersion | opcode;
  return h;
}

UntaggedHeader Untagged(uint8_t opcode, uint32_t queue, uint32_t payload) {
  UntaggedHeader h;
  h.length = static_cast<uint16_t>(kUntaggedUlpdu + payload);
  h.ddp |= kLast;
  h.rdmap = kRdmapVersion | opcode;
  h.queue_number = queue;
  h.msn = 1;
  return h;
}

struct Shape {  // a legal header of each opcode
  const char* name;
  uint8_t opcode;
  bool tagged;
  uint32_t queue;
  uint32_t payload;
  bool exact;  // no other size is legal
  bool single;
};

constexpr Shape kShapes[] = {
    {"Write", 0x0, true, 0, 5, false, false},
    {"ReadRequest", 0x1, false, 1, 28, true, true},
    {"ReadResponse", 0x2, true, 0, 5, false, false},
    {"Send", 0x3, false, 0, 5, false, false},
    {"SendInvalidate", 0x4, false, 0, 5, false, false},
    {"SendSolicited", 0x5, false, 0, 5, false, false},
    {"SendSolicitedInvalidate", 0x6, false, 0, 5, false, false},
    {"Terminate", 0x7, false, 2, 4, false, true},
    {"Immediate", 0x8, false, 0, 8, true, true},
    {"ImmediateSolicited", 0x9, false, 0, 8, true, true},
    {"AtomicRequest", 0xa, false, 1, 52, true, true},
    {"AtomicResponse", 0xb, false, 3, 12, true, true},
    {"Control", 0xf, false, 15, 0, false, true},
};

class RdmapHeader : public testing::TestWithParam<Shape> {
 protected:
  Fault Check(uint8_t ddp_xor, uint8_t rdmap_xor) const {
    const Shape& s = GetParam();
    if (s.tagged) {
      TaggedHeader h = Tagged(s.opcode, s.payload);
      h.ddp ^= ddp_xor;
      h.rdmap ^= rdmap_xor;
      return Invalid(h);
    }
    UntaggedHeader h = Untagged(s.opcode, s.queue, s.payload);
    h.ddp ^= ddp_xor;
    h.rdmap ^= rdmap_xor;
    return Invalid(h);
  }
};

TEST_P(RdmapHeader, Accepted) { EXPECT_STREQ(Check(0, 0).why, nullptr); }

// RFC 5041 4.1, RFC 5040 4.1: not checked on receipt.
TEST_P(RdmapHeader, ReservedBitsAreIgnored) {
  for (const uint8_t bit : {0x04, 0x08, 0x10, 0x20}) EXPECT_FALSE(Check(bit, 0)) << int{bit};
  for (const uint8_t bit : {0x10, 0x20, 0x30}) EXPECT_FALSE(Check(0, bit)) << int{bit};
}

TEST_P(RdmapHeader, DdpVersion) {
  for (const uint8_t change : {1, 2, 3}) {
    const Fault fault = Check(change, 0);
    ASSERT_TRUE(fault);
    EXPECT_EQ(fault.error, GetParam().tagged ? error::kTaggedVersion : error::kUntaggedVersion);
  }
}

TEST_P(RdmapHeader, RdmapVersion) {
  for (const uint8_t change : {0x40, 0x80, 0xc0}) {
    const Fault fault = Check(0, change);
    ASSERT_TRUE(fault);
    EXPECT_EQ(fault.error, error::kRdmapVersion);
  }
}

TEST_P(RdmapHeader, OtherClass) {
  const Shape& s = GetParam();
  const Fault fault =
      s.tagged ? Invalid(Untagged(s.opcode, 0, s.payload)) : Invalid(Tagged(s.opcode, s.payload));
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault.error, error::kUnexpectedOpcode);
}

// Every ULPDU_Length below a whole header is refused as bad framing.
TEST_P(RdmapHeader, ShorterThanItsHeader) {
  const Shape& s = GetParam();
  for (uint16_t length = 0; length < (s.tagged ? kTaggedUlpdu : kUntaggedUlpdu); ++length) {
    TaggedHeader t = Tagged(s.opcode);
    UntaggedHeader u = Untagged(s.opcode, s.queue, 0);
    t.length = u.length = length;
    const Fault fault = s.tagged ? Invalid(t) : Invalid(u);
    ASSERT_TRUE(fault) << length;
    EXPECT_EQ(fault.error, error::kFpdu) << length;
  }
}

TEST_P(RdmapHeader, OtherQueues) {
  const Shape& s = GetParam();
  if (s.tagged) return;
  for (const uint32_t queue : {0u, 1u, 2u, 3u, 4u, 15u, 16u, 0xffffffffu}) {
    const Fault fault = Invalid(Untagged(s.opcode, queue, s.payload));
    EXPECT_EQ(static_cast<bool>(fault), queue != s.queue) << queue;
    if (!fault) continue;
    const bool exists = queue <= 3 || queue == 15;
    EXPECT_EQ(fault.error, exists ? error::kUnexpectedOpcode : error::kQueueNumber) << queue;
  }
}

TEST_P(RdmapHeader, SizeOfFixedBodies) {
  const Shape& s = GetParam();
  if (!s.exact) return;
  for (uint32_t payload = 0; payload < 80; ++payload) {
    const Fault fault = Invalid(Untagged(s.opcode, s.queue, payload));
    EXPECT_EQ(static_cast<bool>(fault), payload != s.payload) << payload;
  }
}

TEST_P(RdmapHeader, SegmentsOnlyWhereAllowed) {
  const Shape& s = GetParam();
  if (s.tagged) return;
  UntaggedHeader more = Untagged(s.opcode, s.queue, s.payload);
  more.ddp &= static_cast<uint8_t>(~kLast);
  EXPECT_EQ(static_cast<bool>(Invalid(more)), s.single);
  UntaggedHeader later = Untagged(s.opcode, s.queue, s.payload);
  later.message_offset = 8;
  // In a control message that field is the value.
  EXPECT_EQ(static_cast<bool>(Invalid(later)), s.single && s.opcode != 0xf);
}

TEST_P(RdmapHeader, HasAName) {
  EXPECT_STRNE(OpcodeName(static_cast<Opcode>(GetParam().opcode)), "reserved opcode");
}

INSTANTIATE_TEST_SUITE_P(Opcodes, RdmapHeader, testing::ValuesIn(kShapes),
                         [](const auto& i) { return std::string(i.param.name); });

TEST(Rdmap, ReservedOpcodes) {
  for (const uint8_t opcode : {0xc, 0xd, 0xe}) {
    EXPECT_EQ(Invalid(Tagged(opcode)).error, error::kUnexpectedOpcode);
    EXPECT_EQ(Invalid(Untagged(opcode, 0, 0)).error, error::kUnexpectedOpcode);
    EXPECT_STREQ(OpcodeName(static_cast<Opcode>(opcode)), "reserved opcode");
  }
}

// All 2^16 pairs of control bytes: the fast check and its explanation agree on each.
TEST(Rdmap, FastCheckAndExplanationAgree) {
  for (uint32_t pair = 0; pair <= 0xffff; ++pair) {
    TaggedHeader t = Tagged(0, 8);
    UntaggedHeader u = Untagged(0, 0, 8);
    t.ddp = u.ddp = static_cast<uint8_t>(pair >> 8);
    t.rdmap = u.rdmap = static_cast<uint8_t>(pair);
    ASSERT_EQ(static_cast<bool>(Invalid(t)), static_cast<bool>(internal::ExplainTagged(t))) << pair;
    ASSERT_EQ(static_cast<bool>(Invalid(u)), static_cast<bool>(internal::ExplainUntagged(u)))
        << pair;
  }
}

TEST(Rdmap, ZeroLengthMessagesAreLegal) {
  EXPECT_FALSE(Invalid(Tagged(0)));          // the Write that may be an RTR frame
  EXPECT_FALSE(Invalid(Untagged(3, 0, 0)));  // Send
  EXPECT_FALSE(Invalid(Tagged(2)));          // the answer to a zero-length Read
}

TEST(Rdmap, ControlTextLimit) {
  EXPECT_FALSE(Invalid(Untagged(0xf, kControlQueue, 128)));
  EXPECT_EQ(Invalid(Untagged(0xf, kControlQueue, 129)).error, error::kTooLong);
}

TEST(Rdmap, LargestPayloads) {
  EXPECT_FALSE(Invalid(Tagged(0, kMaxTaggedPayload)));
  EXPECT_FALSE(Invalid(Untagged(3, 0, kMaxUntaggedPayload)));
  EXPECT_EQ(PayloadSize(Tagged(0, kMaxTaggedPayload)), 65521u);
  EXPECT_EQ(PayloadSize(Untagged(3, 0, kMaxUntaggedPayload)), 65517u);
}

TEST(Rdmap, ReadRequestGolden) {
  ReadRequest r;
  r.sink_stag = 0x11223344;
  r.sink_offset = 0x00007f0000001000;
  r.size = 0x00010000;
  r.source_stag = 0x55667788;
  r.source_offset = 0x00007e0000002000;
  EXPECT_EQ(ToHex(AsBytes(r)),
            Golden("11223344 00007f0000001000 00010000 55667788 00007e0000002000"));
}

// RFC 7306 5.2.1: a plain FetchAdd has add mask 0 and compare mask all ones.
TEST(Rdmap, FetchAddGolden) {
  const AtomicRequest r = MakeFetchAdd(9, 0x00abcd12, 0x1000, 1);
  EXPECT_EQ(ToHex(AsBytes(r)),
            Golden("00000000 00000009 00abcd12 0000000000001000 0000000000000001 0000000000000000 "
                   "0000000000000000 ffffffffffffffff"));
  EXPECT_FALSE(Invalid(r));
}

// RFC 7306 10.1: CmpSwap is 2. Data to store first, then what to compare with.
TEST(Rdmap, CompareSwapGolden) {
  const AtomicRequest r = MakeCompareSwap(10, 0x00abcd12, 0x1008, 0xaa, 0xbb);
  EXPECT_EQ(ToHex(AsBytes(r)),
            Golden("00000002 0000000a 00abcd12 0000000000001008 00000000000000bb ffffffffffffffff "
                   "00000000000000aa ffffffffffffffff"));
  EXPECT_FALSE(Invalid(r));
}

TEST(Rdmap, AtomicCodes) {
  for (uint32_t code = 0; code < 16; ++code) {
    AtomicRequest r = MakeCompareSwap(1, 1, 0, 1, 2);
    if (code == kFetchAdd) r = MakeFetchAdd(1, 1, 0, 1);
    r.operation = 0xfffffff0 | code;  // reserved bits are not looked at
    EXPECT_EQ(static_cast<bool>(Invalid(r)), code != 0 && code != 2) << code;
  }
}

TEST(Rdmap, AtomicAlignment) {
  for (uint64_t offset = 0; offset < 16; ++offset) {
    const Fault fault = Invalid(MakeFetchAdd(1, 1, offset, 1));
    EXPECT_EQ(static_cast<bool>(fault), offset % 8 != 0) << offset;
    if (!fault) continue;
    EXPECT_EQ(fault.error, error::kStreamCatastrophic) << offset;  // RFC 7306 8.2
  }
}

TEST(Rdmap, MaskedAtomicsAreRefused) {
  AtomicRequest r = MakeFetchAdd(1, 1, 0, 1);
  r.operand_mask = 0x80;
  EXPECT_TRUE(Invalid(r));
  r = MakeCompareSwap(1, 1, 0, 1, 2);
  r.operand_mask = 0xff;
  EXPECT_TRUE(Invalid(r));
  r = MakeCompareSwap(1, 1, 0, 1, 2);
  r.compare_mask = 0xff;
  EXPECT_TRUE(Invalid(r));
}

TEST(Rdmap, AtomicResponseGolden) {
  AtomicResponse r;
  r.request_id = 9;
  r.original = 41;
  EXPECT_EQ(ToHex(AsBytes(r)), Golden("00000009 0000000000000029"));
}

TEST(Rdmap, ImmediateGolden) {
  Immediate i;
  i.value = 0xcafe0001;
  EXPECT_EQ(ToHex(AsBytes(i)), Golden("cafe0001 00000000"));
}

TEST(Rdmap, OwnPeersBits) {
  EXPECT_EQ(RdmapByte(Opcode::kSend) | kAckRequest, 0x63);
  EXPECT_EQ(RdmapByte(Opcode::kSend) | kWithImmediate, 0x53);
  EXPECT_EQ(OpcodeOf(0x73), Opcode::kSend);
}

}  // namespace
}  // namespace verbena::wire
