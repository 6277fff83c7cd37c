// SPDX-License-Identifier: Apache-2.0
// What RFC 5040 demands and no other test shows: rows of docs/rfc/5040.md.
#include <functional>

#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

// A connected end that lends 64 bytes and has a receive of 16.
struct Target {
  explicit Target(bool own, bool crc) {
    side.qp.Connected(own ? OwnSession(false, crc) : ForeignSession(false, 1460, crc));
    side.PostReceive({.local = into.sge(0, 16), .id = 11});
  }
  Bytes Read(uint32_t stag, uint32_t size, uint32_t msn = 1) {
    wire::ReadRequest r;
    r.size = size;
    r.source_stag = stag;
    r.source_offset = into.at().address;
    return MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, msn), wire::AsBytes(r));
  }
  Side side;
  Memory into{&side, 64};
};

Bytes Segment(uint32_t msn, uint32_t offset, size_t size, uint8_t flags = 0) {
  wire::UntaggedHeader h = SendHeader(msn, offset);
  h.ddp = wire::kDdpVersion | flags;
  return MakeFpdu(h, Bytes(size));
}

struct BlameRow {
  const char* name;
  std::function<Bytes(Target&)> good;  // what comes before
  std::function<Bytes(Target&)> bad;
  wire::TerminateError error;
  bool header = true;
  bool read = false;
  bool crc = false;
};

Bytes Nothing(Target&) { return {}; }

const BlameRow kBlame[] = {
    {"WriteOutOfBounds", Nothing,
     [](Target& t) { return MakeFpdu(WriteHeader(t.into.key(), t.into.at(60).address), Bytes(8)); },
     wire::error::kBounds},
    {"EmptyWriteOfAnotherVersion",
     [](Target& t) { return MakeFpdu(WriteHeader(t.into.key(), t.into.at().address), Bytes(8)); },
     [](Target&) {
       wire::TaggedHeader h = WriteHeader(7, 8);
       h.ddp ^= 3;
       return MakeFpdu(h);
     },
     wire::error::kTaggedVersion},
    {"SendTooLongInItsSecondSegment", [](Target&) { return Segment(1, 0, 8); },
     [](Target&) { return Segment(1, 8, 9, wire::kLast); }, wire::error::kTooLong},
    {"SendOutOfSequence", Nothing, [](Target&) { return MakeFpdu(SendHeader(5), Bytes(8)); },
     wire::error::kMsn},
    {"InvalidationOfARegion", Nothing,
     [](Target& t) {
       wire::UntaggedHeader h = UntaggedOf(wire::Opcode::kSendInvalidate, 1);
       h.ulp = t.into.key();
       return MakeFpdu(h, Bytes(8));
     },
     wire::error::kCannotInvalidate},
    {"ReadOfAnUnknownStag", Nothing, [](Target& t) { return t.Read(t.into.key() ^ 1, 8); },
     wire::error::kReadStag, true, true},
    {"ReadOutOfBounds", [](Target& t) { return t.Read(t.into.key(), 8); },
     [](Target& t) { return t.Read(t.into.key(), 65, 2); }, wire::error::kReadBounds, true, true},
    {"ReadOutOfSequence", Nothing, [](Target& t) { return t.Read(t.into.key(), 8, 3); },
     wire::error::kMsn},
    {"ReadOfAnotherVersion", Nothing,
     [](Target& t) {
       Bytes read = t.Read(t.into.key(), 8);
       read[3] ^= std::byte{0xc0};
       return read;
     },
     wire::error::kRdmapVersion},
    {"WrongCrc", Nothing, [](Target&) { return MakeFpdu(SendHeader(1), Bytes(8)); },
     wire::error::kCrc, false, false, true},
};

class Blame : public testing::TestWithParam<std::tuple<size_t, bool, size_t>> {};

TEST_P(Blame, TerminateNamesTheSegment) {
  // 4.8, Figure 10, and 7.1: own and foreign peers, the stream whole or byte by byte.
  // Expect: the header of the segment at fault, its length, and the Read Request in it, where the
  // figure wants them.
  const auto [index, own, chunk] = GetParam();
  const BlameRow& row = kBlame[index];
  Target t(own, row.crc);
  const Bytes good = row.good(t), bad = row.bad(t);
  t.side.Feed(good + bad, Chunks(chunk));
  const std::vector<Fpdu> sent = ParseFpdus(t.side.Drain());
  ASSERT_FALSE(sent.empty());
  ASSERT_EQ(sent.back().opcode(), wire::Opcode::kTerminate);
  EXPECT_EQ(uint32_t{sent.back().untagged.ulp}, 0u);
  const Bytes& body = sent.back().payload;
  const auto terminate = wire::DecodeTerminate(body);
  ASSERT_TRUE(terminate.ok());
  EXPECT_EQ(terminate->error, row.error);
  EXPECT_FALSE(terminate->truncated);
  // M and D come together; the 13 bits behind M, D, R are zero.
  const auto flags = static_cast<uint8_t>(body[2]);
  EXPECT_EQ(flags, (row.header ? 0xc0 : 0) | (row.read ? 0x20 : 0));
  EXPECT_EQ(body[3], std::byte{0});
  const size_t header = wire::HeaderSize(static_cast<uint8_t>(bad[2])) - wire::kLengthSize;
  const auto blamed = std::span(bad).subspan(wire::kLengthSize);
  EXPECT_EQ(Bytes(terminate->ddp_header.begin(), terminate->ddp_header.end()),
            row.header ? Bytes(blamed.begin(), blamed.begin() + header) : Bytes());
  EXPECT_EQ(terminate->segment_length,
            row.header ? uint16_t{wire::Load<wire::Be16>(bad.data())} : 0);
  EXPECT_EQ(Bytes(terminate->read_request.begin(), terminate->read_request.end()),
            row.read ? Bytes(blamed.begin() + header, blamed.begin() + header + 28) : Bytes());
}

std::string BlameName(const testing::TestParamInfo<std::tuple<size_t, bool, size_t>>& i) {
  const auto [index, own, chunk] = i.param;
  return std::string(kBlame[index].name) + (own ? "Own" : "Foreign") +
         (chunk == 0 ? "" : "ByteByByte");
}

INSTANTIATE_TEST_SUITE_P(Rows, Blame,
                         testing::Combine(testing::Range<size_t>(0, std::size(kBlame)),
                                          testing::Bool(), testing::Values(0, 1)),
                         BlameName);

TEST(BlameAfter, RegionThatDiesUnderASegment) {
  // The header of a write was good when it came; its region dies before the payload is there.
  // Expect: that header.
  Target t(false, false);
  const Bytes write = MakeFpdu(WriteHeader(t.into.key(), t.into.at(8).address), Bytes(24));
  t.side.Feed(std::span(write).first(24));
  t.into.Kill();
  t.side.Feed(std::span(write).subspan(24));
  const std::vector<Fpdu> sent = ParseFpdus(t.side.Drain());
  ASSERT_EQ(sent.size(), 1u);
  const auto terminate = wire::DecodeTerminate(sent[0].payload);
  ASSERT_TRUE(terminate.ok());
  EXPECT_EQ(terminate->error, wire::error::kStag);
  EXPECT_EQ(Bytes(terminate->ddp_header.begin(), terminate->ddp_header.end()),
            Bytes(write.begin() + 2, write.begin() + 16));
}

TEST(BlameAfter, NobodysSegment) {
  // The region dies when the read of it was taken, in the middle of a message of the peer's.
  // Expect: no header: the message under way is not to blame.
  Target t(false, false);
  t.side.Feed(t.Read(t.into.key(), 8));
  const Bytes write = MakeFpdu(WriteHeader(t.into.key(), t.into.at(8).address), Bytes(24));
  t.side.Feed(std::span(write).first(20));
  t.into.Kill();
  const std::vector<Fpdu> sent = ParseFpdus(t.side.Drain());
  ASSERT_EQ(sent.size(), 1u);
  const auto terminate = wire::DecodeTerminate(sent[0].payload);
  ASSERT_TRUE(terminate.ok());
  EXPECT_EQ(terminate->error, wire::error::kReadStag);
  EXPECT_TRUE(terminate->ddp_header.empty() && terminate->read_request.empty());
}

TEST(InvalidateStag, IsZeroAndIgnoredWhereItMeansNothing) {
  // 4.1.
  Side side;
  side.qp.Connected(ForeignSession(true));
  Memory memory(&side, 64);
  side.Post({.opcode = Opcode::kSend, .local = memory.sge(0, 8), .id = 1, .invalidate = 7});
  side.Post({.opcode = Opcode::kRead, .local = memory.sge(0, 8), .remote = {0, 7}, .id = 2});
  for (const Fpdu& f : ParseFpdus(side.Drain())) EXPECT_EQ(uint32_t{f.untagged.ulp}, 0u);
  side.PostReceive({.local = memory.sge(), .id = 11});
  wire::UntaggedHeader send = SendHeader(1), read = UntaggedOf(wire::Opcode::kReadRequest, 1);
  send.ulp = read.ulp = memory.key();
  side.Feed(MakeFpdu(send, Bytes(8)) + MakeFpdu(read, Bytes(28)));
  const WorkCompletion wc = side.NextReceive();
  EXPECT_TRUE(wc.ok() && !wc.has_invalidated && wc.immediate_or_key == 0);
  EXPECT_EQ(TraceOf(side.Drain()), "Data");
}

TEST(Reads, GoInPostingOrder) {
  // 5.2.1. Expect: MSNs from 1 on, sources as posted.
  Side side;
  side.qp.Connected(ForeignSession(true));
  Memory into(&side, 64);
  for (uint64_t i = 0; i < 4; ++i) {
    side.Post({.opcode = Opcode::kRead, .local = into.sge(0, 8), .remote = {i * 8, 7}, .id = i});
  }
  const std::vector<Fpdu> sent = ParseFpdus(side.Drain());
  ASSERT_EQ(sent.size(), 4u);
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(uint32_t{sent[i].untagged.msn}, i + 1);
    EXPECT_EQ(uint64_t{wire::Load<wire::ReadRequest>(sent[i].payload.data()).source_offset}, i * 8);
  }
}

TEST(Reads, AreServedInTheirOrder) {
  // 5.2.1, 5.2.2, 5.5. A long read and two short ones.
  // Expect: the segments of each response, then those of the next, each to its own sink.
  Side side;
  side.qp.Connected(ForeignSession(false));
  Memory from(&side, 8000);
  Bytes requests;
  for (uint32_t i = 1; i <= 3; ++i) {
    wire::ReadRequest r;
    r.sink_stag = i;
    r.size = i == 1 ? 8000 : 8;
    r.source_stag = from.key();
    r.source_offset = from.at().address;
    requests = requests + MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, i), wire::AsBytes(r));
  }
  side.Feed(requests);
  const std::vector<Fpdu> sent = ParseFpdus(side.Drain());
  uint32_t sink = 1;
  for (const Fpdu& f : sent) {
    EXPECT_EQ(uint32_t{f.tagged.stag}, sink);
    if ((f.ddp & wire::kLast) != 0) ++sink;
  }
  EXPECT_EQ(sink, 4u);
}

TEST(Teardown, WhoIsTerminatedLeavesGracefully) {
  // 6.2.1. Expect: nothing is said any more, and the stream is to be closed, not reset.
  Side side;
  side.qp.Connected(ForeignSession(true));
  Memory memory(&side, 64);
  side.Post({.opcode = Opcode::kRead, .local = memory.sge(0, 8), .remote = {0, 7}, .id = 1});
  side.Drain();
  side.Feed(MakeFpdu(UntaggedOf(wire::Opcode::kTerminate, 1), Bytes(4)));
  EXPECT_EQ(side.Sends(), "1 REM_OP_ERR");
  EXPECT_TRUE(side.Had(EventType::kDisconnected));
  EXPECT_TRUE(side.Drain().empty());
  EXPECT_TRUE(side.qp.finished());
}

}  // namespace
}  // namespace verbena::engine
