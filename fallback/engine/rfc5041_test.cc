// SPDX-License-Identifier: Apache-2.0
// What RFC 5041 demands and no other test shows: rows of docs/rfc/5041.md.
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

class Segments : public testing::Test {
 protected:
  Segments() { side_.qp.Connected(ForeignSession(true)); }
  std::vector<Fpdu> Sent(SendWr wr, uint32_t length) {
    wr.local = memory_.sge(0, length);
    side_.Post(wr);
    return ParseFpdus(side_.Drain());
  }
  Side side_;
  Memory memory_{&side_, 8000};
};

TEST_F(Segments, OfAnUntaggedMessageSayTheSame) {
  // 4.3, 5.2, 5.3. Expect: control and reserved fields, queue and MSN alike; offsets from 0 on, in
  // order; L in the last; all bytes; the next message has the next MSN.
  for (const uint32_t msn : {1u, 2u}) {
    const std::vector<Fpdu> sent =
        Sent({.opcode = Opcode::kSendWithInvalidate, .id = 1, .invalidate = 0xabcd}, 5000);
    ASSERT_GT(sent.size(), 2u);
    uint32_t offset = 0;
    for (const Fpdu& f : sent) {
      EXPECT_EQ(f.rdmap, wire::RdmapByte(wire::Opcode::kSendInvalidate));
      EXPECT_EQ(uint32_t{f.untagged.ulp}, 0xabcdu);
      EXPECT_EQ(uint32_t{f.untagged.queue_number}, 0u);
      EXPECT_EQ(uint32_t{f.untagged.msn}, msn);
      EXPECT_EQ(uint32_t{f.untagged.message_offset}, offset);
      EXPECT_EQ(f.ddp, wire::kDdpVersion | (&f == &sent.back() ? wire::kLast : 0));
      offset += static_cast<uint32_t>(f.payload.size());
    }
    EXPECT_EQ(offset, 5000u);
  }
}

TEST_F(Segments, OfATaggedMessageSayTheSame) {
  // 4.2, 5.2, 5.3. Expect: STag and reserved field alike, offsets on from the first.
  const std::vector<Fpdu> sent =
      Sent({.opcode = Opcode::kWrite, .remote = {0x700000000000, 0xabcd}, .id = 1}, 5000);
  ASSERT_GT(sent.size(), 2u);
  uint64_t offset = 0x700000000000;
  for (const Fpdu& f : sent) {
    EXPECT_EQ(f.rdmap, wire::RdmapByte(wire::Opcode::kWrite));
    EXPECT_EQ(uint32_t{f.tagged.stag}, 0xabcdu);
    EXPECT_EQ(uint64_t{f.tagged.tagged_offset}, offset);
    EXPECT_EQ(f.ddp, wire::kTagged | wire::kDdpVersion | (&f == &sent.back() ? wire::kLast : 0));
    offset += f.payload.size();
  }
  EXPECT_EQ(offset, 0x700000000000 + 5000u);
}

TEST_F(Segments, OfNothingIsOne) {
  // 5.2.
  for (const Opcode op : {Opcode::kSend, Opcode::kWrite}) {
    const std::vector<Fpdu> sent = Sent({.opcode = op, .remote = {0x1000, 7}, .id = 1}, 0);
    ASSERT_EQ(sent.size(), 1u);
    EXPECT_TRUE(sent[0].payload.empty() && (sent[0].ddp & wire::kLast) != 0);
  }
}

TEST_F(Segments, AnswerOfNothingIsNotCheckedForItsPlace) {
  // 5.2: of an empty tagged message neither STag nor offset counts.
  // Expect: an empty read completes, whatever they are.
  ASSERT_EQ(Sent({.opcode = Opcode::kRead, .remote = {0x1000, 7}, .id = 1}, 0).size(), 1u);
  wire::TaggedHeader h = WriteHeader(0xdead, 0xbeef);
  h.rdmap = wire::RdmapByte(wire::Opcode::kReadResponse);
  side_.Feed(MakeFpdu(h));
  EXPECT_EQ(side_.Sends(), "1 SUCCESS");
}

TEST_F(Segments, InPiecesOfAnySizeAreOneMessage) {
  // 5.2: every payload is placed where its header says, however the sender cuts it.
  side_.PostReceive({.local = memory_.sge(), .id = 11});
  uint32_t offset = 0;
  for (const uint32_t size : {1u, 0u, 700u, 3u, 96u}) {
    wire::UntaggedHeader h = SendHeader(1, offset);
    h.ddp = wire::kDdpVersion | (offset + size == 800 ? wire::kLast : 0);
    Bytes payload(size);
    for (uint32_t i = 0; i < size; ++i) payload[i] = static_cast<std::byte>(offset + i);
    side_.Feed(MakeFpdu(h, payload));
    EXPECT_EQ(side_.receive_ring.empty(), offset + size != 800);
    offset += size;
  }
  EXPECT_EQ(side_.NextReceive().length, 800u);
  for (uint32_t i = 0; i < 800; ++i) ASSERT_EQ(memory_.data()[i], static_cast<std::byte>(i)) << i;
}

TEST_F(Segments, EmptyWriteIsNotCheckedForItsPlace) {
  side_.Feed(MakeFpdu(WriteHeader(0xdead, 0xbeef)));
  EXPECT_EQ(side_.qp.state(), QpState::kRts);
  EXPECT_EQ(TraceOf(side_.Drain()), "");
}

}  // namespace
}  // namespace verbena::engine
