// SPDX-License-Identifier: Apache-2.0
// Each operation between two own ends: every split of the stream, with and without CRC.
#include <algorithm>

#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

struct SplitRow {
  const char* name;
  uint32_t seed;  // 0: fixed
  size_t bytes;   // 0: all at once
};
constexpr SplitRow kSplits[] = {{"Whole", 0, 0},     {"OneByte", 0, 1}, {"SevenBytes", 0, 7},
                                {"Page", 0, 4096},   {"SeedOne", 1, 0}, {"SeedTwo", 2, 0},
                                {"SeedThree", 3, 0}, {"SeedFour", 4, 0}};

class Operations : public testing::TestWithParam<std::tuple<SplitRow, bool>> {
 protected:
  Operations()
      : w_(std::get<0>(GetParam()).seed == 0 ? Chunks(std::get<0>(GetParam()).bytes)
                                             : Chunks::Seeded(std::get<0>(GetParam()).seed),
           std::get<1>(GetParam())) {
    mine_.Fill(1);
  }
  // Everything on the wire had its CRC exactly if it was agreed on.
  void TearDown() override {
    for (int from : {0, 1}) {
      for (const Fpdu& f : ParseFpdus(w_.cable.Sent(from))) {
        ASSERT_EQ(f.crc_is_right, std::get<1>(GetParam()));
      }
    }
  }
  SendWr Wr(Opcode op, uint64_t offset, uint32_t length, uint64_t id = 1) {
    return {.opcode = op, .local = mine_.sge(offset, length), .remote = theirs_.at(), .id = id};
  }

  static constexpr uint32_t kSizes[] = {0,   1,    3,    7,     8,     9,     512,
                                        513, 4095, 5000, 61440, 61441, 150000};
  Wired w_;
  Memory mine_{&w_.a, 160000}, theirs_{&w_.b, 160000};
};

TEST_P(Operations, Send) {
  for (const uint32_t n : kSizes) {
    w_.b.PostReceive({.local = theirs_.sge(), .id = n});
    w_.a.Post(Wr(Opcode::kSend, 0, n));
    w_.cable.Run();
    EXPECT_EQ(w_.a.Sends(), "1 SUCCESS");
    const WorkCompletion wc = w_.b.NextReceive();
    EXPECT_TRUE(wc.ok() && wc.id == n && wc.length == n && !wc.has_immediate);
    EXPECT_EQ(wc.opcode, WcOpcode::kReceive);
    EXPECT_TRUE(theirs_.Has(1, 0, n)) << n;
  }
}

TEST_P(Operations, SendWithImm) {
  for (const uint32_t n : {0u, 70000u}) {
    w_.b.PostReceive({.local = theirs_.sge(), .id = 11});
    SendWr wr = Wr(Opcode::kSendWithImm, 0, n);
    wr.immediate = 0x01020304;
    w_.a.Post(wr);
    w_.cable.Run();
    EXPECT_EQ(w_.a.Sends(), "1 SUCCESS");
    const WorkCompletion wc = w_.b.NextReceive();
    EXPECT_TRUE(wc.ok() && wc.has_immediate && !wc.has_invalidated);
    EXPECT_EQ(wc.immediate_or_key, 0x01020304u);
    EXPECT_EQ(wc.length, n);
  }
}

TEST_P(Operations, SendWithInvalidate) {
  // The target's window dies with the message.
  Window window(&w_.b);
  w_.b.Post(window.Bind(&theirs_, 0, 64, Access::kRemoteWrite));
  w_.cable.Run();
  EXPECT_EQ(w_.b.Sends(), "1 SUCCESS");
  const uint32_t key = window.key();
  EXPECT_NE(w_.b.keys.Find(key), nullptr);
  w_.b.PostReceive({.local = theirs_.sge(), .id = 11});
  SendWr wr = Wr(Opcode::kSendWithInvalidate, 0, 70000);
  wr.invalidate = key;
  w_.a.Post(wr);
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS");
  const WorkCompletion wc = w_.b.NextReceive();
  EXPECT_TRUE(wc.ok() && wc.has_invalidated && !wc.has_immediate);
  EXPECT_EQ(wc.immediate_or_key, key);
  EXPECT_EQ(w_.b.keys.Find(key), nullptr);
  EXPECT_EQ(theirs_.region.windows, 0u);
}

TEST_P(Operations, Write) {
  const uint64_t before = w_.b.qp.counters().remote_writes;
  for (const uint32_t n : kSizes) {
    std::fill_n(theirs_.data(), 160000, std::byte{0});
    w_.a.Post(Wr(Opcode::kWrite, 0, n));
    w_.cable.Run();
    EXPECT_EQ(w_.a.Sends(), "1 SUCCESS");
    EXPECT_TRUE(theirs_.Has(1, 0, n)) << n;
    EXPECT_EQ(theirs_.data()[n], std::byte{0});
  }
  EXPECT_EQ(w_.b.Receives(), "");
  EXPECT_EQ(w_.b.qp.counters().remote_writes, before + std::size(kSizes));
}

TEST_P(Operations, WriteToEveryAlignment) {
  for (uint64_t offset = 0; offset < 8; ++offset) {
    for (const uint32_t n : {1u, 8u, 15u, 16u, 23u}) {
      std::fill_n(theirs_.data(), 64, std::byte{0});
      SendWr wr = Wr(Opcode::kWrite, 0, n);
      wr.remote = theirs_.at(offset);
      w_.a.Post(wr);
      w_.cable.Run();
      EXPECT_TRUE(theirs_.Has(1, offset, n)) << offset << " " << n;
      EXPECT_EQ(theirs_.data()[offset + n], std::byte{0});
    }
  }
}

TEST_P(Operations, WriteWithImm) {
  for (const uint32_t n : {0u, 5u, 70000u}) {
    w_.b.PostReceive({.id = 11});
    SendWr wr = Wr(Opcode::kWriteWithImm, 0, n);
    wr.immediate = 0xcafe0001;
    w_.a.Post(wr);
    w_.cable.Run();
    EXPECT_EQ(w_.a.Sends(), "1 SUCCESS");
    const WorkCompletion wc = w_.b.NextReceive();
    EXPECT_EQ(wc.opcode, WcOpcode::kReceiveWriteWithImm);
    EXPECT_TRUE(wc.ok() && wc.has_immediate && wc.length == n);
    EXPECT_EQ(wc.immediate_or_key, 0xcafe0001u);
    EXPECT_TRUE(theirs_.Has(1, 0, n));
  }
}

TEST_P(Operations, Read) {
  theirs_.Fill(2);
  for (const uint32_t n : kSizes) {
    std::fill_n(mine_.data(), 160000, std::byte{0});
    w_.a.Post(Wr(Opcode::kRead, 0, n));
    w_.cable.Run();
    const WorkCompletion wc = w_.a.NextSend();
    EXPECT_TRUE(wc.ok() && wc.length == n && wc.opcode == WcOpcode::kRead);
    EXPECT_TRUE(mine_.Has(2, 0, n)) << n;
    EXPECT_EQ(mine_.data()[n], std::byte{0});
  }
}

TEST_P(Operations, FetchAddAndCompareSwap) {
  theirs_.word(0) = ~0ull;
  SendWr add = Wr(Opcode::kFetchAdd, 0, 8, 1);
  add.atomic.compare_add = 5;
  SendWr swap = Wr(Opcode::kCompareSwap, 8, 8, 2);
  swap.atomic = {.compare_add = 4, .swap = 77};
  SendWr fail = Wr(Opcode::kCompareSwap, 16, 8, 3);
  fail.atomic = {.compare_add = 4, .swap = 78};
  for (const SendWr& wr : {add, swap, fail}) w_.a.Post(wr);
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 SUCCESS, 3 SUCCESS");
  EXPECT_EQ(mine_.word(0), ~0ull);
  EXPECT_EQ(mine_.word(1), 4u);
  EXPECT_EQ(mine_.word(2), 77u);
  EXPECT_EQ(theirs_.word(0), 77u);
}

TEST_P(Operations, BindUseInvalidate) {
  // Expect: the window's key works for the peer between the two, inside its bounds.
  Window window(&w_.b);
  w_.b.Post(window.Bind(&theirs_, 64, 64, Access::kRemoteWrite, 1));
  w_.cable.Run();
  EXPECT_EQ(theirs_.region.windows, 1u);
  SendWr wr = Wr(Opcode::kWrite, 0, 64, 2);
  wr.remote = {theirs_.at(64).address, window.key()};
  w_.a.Post(wr);
  w_.cable.Run();
  EXPECT_TRUE(theirs_.Has(1, 64, 64));
  w_.b.Post({.opcode = Opcode::kLocalInvalidate, .id = 3, .invalidate = window.key()});
  w_.cable.Run();
  EXPECT_EQ(w_.b.Sends(), "1 SUCCESS, 3 SUCCESS");
  w_.a.Post(wr);
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "2 SUCCESS, 2 REM_ACCESS_ERR");
}

TEST_P(Operations, GatherAndScatter) {
  // Three entries, one of them empty, on each side; large and small.
  const Sge from[] = {mine_.sge(0, 3000), mine_.sge(9, 0), mine_.sge(3000, 70000)};
  const Sge to[] = {theirs_.sge(0, 5), theirs_.sge(5, 60000), theirs_.sge(60005, 20000)};
  w_.b.PostReceive({.local = std::span<const Sge>(to), .id = 11});
  w_.a.Post({.opcode = Opcode::kSend, .local = std::span<const Sge>(from), .id = 1});
  w_.cable.Run();
  EXPECT_EQ(w_.b.NextReceive().length, 73000u);
  EXPECT_TRUE(theirs_.Has(1, 0, 73000));
  theirs_.Fill(8);
  w_.a.Post({.opcode = Opcode::kRead,
             .local = std::span<const Sge>(from),
             .remote = theirs_.at(),
             .id = 2});
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 SUCCESS");
  EXPECT_TRUE(mine_.Has(8, 0, 73000));
}

TEST_P(Operations, EverythingAtOnceBothWays) {
  // Both ends post sends, writes, reads and atomics in one go.
  Memory mine(&w_.b, 160000), into[2] = {{&w_.a, 100}, {&w_.b, 100}};
  for (uint64_t i = 0; i < 40; i += 4) {
    w_.a.PostReceive({.local = into[0].sge(), .id = i});
    w_.b.PostReceive({.local = into[1].sge(), .id = i});
    for (Side* s : {&w_.a, &w_.b}) {
      Memory& from = s == &w_.a ? mine_ : mine;
      Memory& to = s == &w_.a ? theirs_ : mine_;
      s->Post({.opcode = Opcode::kSend, .local = from.sge(0, 100), .id = i});
      s->Post({.opcode = Opcode::kWrite,
               .local = from.sge(0, 9000),
               .remote = to.at(50000),
               .id = i + 1});
      s->Post({.opcode = Opcode::kRead,
               .local = from.sge(100000, 9000),
               .remote = to.at(20000),
               .id = i + 2});
      s->Post({.opcode = Opcode::kFetchAdd,
               .local = from.sge(120000, 8),
               .remote = to.at(150000),
               .id = i + 3,
               .atomic = {.compare_add = 1}});
    }
  }
  const uint64_t before = mine_.word(150000 / 8);
  w_.cable.Run();
  std::string expected;
  for (int i = 0; i < 40; ++i) expected += (i == 0 ? "" : ", ") + std::to_string(i) + " SUCCESS";
  EXPECT_EQ(w_.a.Sends(), expected);
  EXPECT_EQ(w_.b.Sends(), expected);
  EXPECT_EQ(theirs_.word(150000 / 8), 10u);
  EXPECT_EQ(mine_.word(150000 / 8), before + 10);
}

INSTANTIATE_TEST_SUITE_P(Streams, Operations,
                         testing::Combine(testing::ValuesIn(kSplits), testing::Bool()),
                         [](const auto& i) {
                           return std::string(std::get<0>(i.param).name) +
                                  (std::get<1>(i.param) ? "Crc" : "");
                         });

// Memory may change while a peer reads it or while a write from it is under way: the peer gets old
// bytes or new ones, never an error.
class LiveMemory : public testing::TestWithParam<bool> {};

TEST_P(LiveMemory, ThatAPeerReads) {
  Wired w(Chunks(0), GetParam());
  Memory into(&w.a, 50000), source(&w.b, 50000);
  w.a.Post({.opcode = Opcode::kRead, .local = into.sge(), .remote = source.at(), .id = 1});
  w.cable.Send(0);
  w.cable.Deliver(0);
  w.b.qp.Gather(true, 0);
  source.Fill(1);
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "1 SUCCESS");
}

TEST_P(LiveMemory, ThatIsWritten) {
  Wired w(Chunks(0), GetParam());
  Memory from(&w.a, 50000), to(&w.b, 50000);
  w.a.Post({.opcode = Opcode::kWrite, .local = from.sge(), .remote = to.at(), .id = 1});
  w.a.qp.Gather(true, 0);
  from.Fill(1);
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "1 SUCCESS");
}

INSTANTIATE_TEST_SUITE_P(Crc, LiveMemory, testing::Bool(),
                         [](const auto& i) { return i.param ? "On" : "Off"; });

class LastBytes : public testing::TestWithParam<uint64_t> {};

TEST_P(LastBytes, ArePublishedLast) {
  // A write of 100 bytes arrives byte by byte; the target looks after each one.
  // Expect: its last 8 bytes stay as they were until the trailer is there, then all are there.
  for (const bool crc : {false, true}) {
    Side side;
    side.qp.Connected(OwnSession(false, crc));
    Memory to(&side, 200);
    const uint64_t offset = GetParam();
    const Bytes fpdu =
        MakeFpdu(WriteHeader(to.key(), to.at(offset).address), Bytes(100, std::byte{0xee}), crc);
    for (size_t i = 0; i < fpdu.size(); ++i) {
      for (size_t k = 92; k < 100; ++k) ASSERT_EQ(to.data()[offset + k], std::byte{0}) << i;
      side.Feed(std::span(fpdu).subspan(i, 1));
    }
    for (size_t k = 0; k < 100; ++k) ASSERT_EQ(to.data()[offset + k], std::byte{0xee});
  }
}

INSTANTIATE_TEST_SUITE_P(Offsets, LastBytes, testing::Range<uint64_t>(0, 9));

TEST(LastBytes, OnlyOfTheLastSegment) {
  // The first segment of two.
  // Expect: all of it is there once it has arrived.
  Side side;
  side.qp.Connected(OwnSession(false));
  Memory to(&side, 64);
  wire::TaggedHeader h = WriteHeader(to.key(), to.at().address);
  h.ddp = wire::kTagged | wire::kDdpVersion;
  side.Feed(MakeFpdu(h, Bytes(32, std::byte{7})));
  EXPECT_EQ(to.data()[31], std::byte{7});
}

TEST(Wire, OctetsOfAnImmediate) {
  // Expect: most significant byte first, in a Send and in an Immediate (docs/wire.md).
  Side side;
  side.qp.Connected(OwnSession(true));
  side.Post({.opcode = Opcode::kSendWithImm, .immediate = 0xcafe0001});
  side.Post({.opcode = Opcode::kWriteWithImm, .immediate = 0xcafe0001});
  const std::vector<Fpdu> sent = ParseFpdus(side.Drain());
  ASSERT_EQ(sent.size(), 3u);
  EXPECT_EQ(uint32_t{sent[0].untagged.ulp}, 0xcafe0001u);
  EXPECT_EQ(sent[2].payload[0], std::byte{0xca});
  EXPECT_EQ(sent[2].payload[3], std::byte{0x01});
}

TEST(Wire, SegmentsAreEqualPages) {
  // 150,000 bytes in FPDUs of at most 60 KiB.
  // Expect: three of whole pages, the last one shorter by less than a page each.
  Side side;
  side.qp.Connected(OwnSession(true));
  Memory from(&side, 150000);
  side.Post({.opcode = Opcode::kWrite, .local = from.sge(), .remote = {0x1000, 7}});
  std::vector<size_t> sizes;
  for (const Fpdu& f : ParseFpdus(side.Drain())) sizes.push_back(f.payload.size());
  EXPECT_EQ(sizes, (std::vector<size_t>{53248, 53248, 43504}));
}

TEST(Wire, SolicitedOpcodes) {
  Side side;
  side.qp.Connected(OwnSession(true));
  for (const Opcode op :
       {Opcode::kSend, Opcode::kSendWithInvalidate, Opcode::kSendWithImm, Opcode::kWriteWithImm}) {
    side.Post({.opcode = op, .flags = SendFlags::kSolicited});
  }
  EXPECT_EQ(TraceOf(side.Drain()), "Send!* SendInv!* Send!*# Write# Imm!*");
}

struct SolicitedRow {
  const char* name;
  Opcode opcode;
  SendFlags flags;
  int notified;
};
class Solicited : public testing::TestWithParam<SolicitedRow> {};

TEST_P(Solicited, WakesWhoAskedForIt) {
  Wired w;
  Memory from(&w.a, 8), into(&w.b, 8);
  w.b.PostReceive({.local = into.sge(), .id = 11});
  w.b.receive_ring.Arm(Notify::kSolicited);
  w.a.Post({.opcode = GetParam().opcode,
            .local = from.sge(),
            .remote = into.at(),
            .flags = GetParam().flags});
  w.cable.Run();
  EXPECT_EQ(w.b.Receives(), "11 SUCCESS");
  EXPECT_EQ(w.b.notified, GetParam().notified);
}

constexpr SolicitedRow kSolicited[] = {
    {"Send", Opcode::kSend, SendFlags::kNone, 0},
    {"SendSolicited", Opcode::kSend, SendFlags::kSolicited, 1},
    {"Imm", Opcode::kSendWithImm, SendFlags::kNone, 0},
    {"ImmSolicited", Opcode::kSendWithImm, SendFlags::kSolicited, 1},
    {"WriteImm", Opcode::kWriteWithImm, SendFlags::kNone, 0},
    {"WriteImmSolicited", Opcode::kWriteWithImm, SendFlags::kSolicited, 1},
};
INSTANTIATE_TEST_SUITE_P(Rows, Solicited, testing::ValuesIn(kSolicited),
                         [](const auto& i) { return std::string(i.param.name); });

TEST(Windows, OfTypeOne) {
  // Bound, bound anew to another place while bound, used by the peer of another queue pair of the
  // domain, then bound to nothing (IBTA 10.6.7.2.1). At last its peer invalidates it.
  // Expect: each bind ends the key before; the region is lent once at the most; invalidation is
  // refused, and leaves the window.
  Wired w;
  Memory from(&w.a, 64), to(&w.b, 128);
  Window window(&w.b, 3, true);
  w.b.Post(window.Bind(&to, 0, 64, Access::kRemoteWrite, 1));
  w.cable.Run();
  const uint32_t first = window.key();
  w.b.Post(window.Bind(&to, 64, 64, Access::kRemoteWrite, 2));
  w.cable.Run();
  EXPECT_EQ(w.b.Sends(), "1 SUCCESS, 2 SUCCESS");
  EXPECT_EQ(w.b.keys.Find(first), nullptr);
  EXPECT_EQ(to.region.windows, 1u);
  window.region().bound_qp = 99;
  from.Fill(1);
  SendWr wr{.opcode = Opcode::kWrite,
            .local = from.sge(),
            .remote = {to.at(64).address, window.key()},
            .id = 3};
  w.a.Post(wr);
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "3 SUCCESS");
  EXPECT_TRUE(to.Has(1, 64, 64));
  w.b.Post(window.Bind(&to, 0, 0, Access::kLocalRead, 4));
  w.cable.Run();
  EXPECT_EQ(w.b.keys.Find(window.key()), nullptr);
  EXPECT_EQ(to.region.windows, 0u);
  w.b.Post(window.Bind(&to, 0, 64, Access::kRemoteWrite, 5));
  w.cable.Run();
  EXPECT_EQ(w.b.Sends(), "4 SUCCESS, 5 SUCCESS");
  w.b.PostReceive({.local = to.sge(), .id = 11});
  wr.opcode = Opcode::kSendWithInvalidate;
  wr.invalidate = window.key();
  w.a.Post(wr);
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "3 REM_ACCESS_ERR");
  EXPECT_NE(w.b.keys.Find(window.key()), nullptr);
}

TEST(Windows, WithAKeyThatIsTaken) {
  // Programs may choose keys of windows, and choose that of a region.
  // Expect: MW_BIND_ERR, nothing is lent, and the region keeps its key.
  Wired w;
  Memory from(&w.a, 8), to(&w.b, 8);
  Window window(&w.b);
  w.b.next_window_key = to.region.key;
  w.b.Post(window.Bind(&to, 0, 8, Access::kRemoteWrite, 1));
  w.cable.Run();
  EXPECT_EQ(w.b.Sends(), "1 MW_BIND_ERR");
  EXPECT_EQ(to.region.windows, 0u);
  EXPECT_EQ(w.b.keys.Find(to.region.key), &to.region);
}

TEST(Windows, BelongToTheQueuePairThatBoundThem) {
  // A window bound through one queue pair; the peer of another uses its key to write, to read and
  // to invalidate.
  // Expect: REM_ACCESS_ERR each time, and the window still stands.
  for (const Opcode op : {Opcode::kWrite, Opcode::kRead, Opcode::kSendWithInvalidate}) {
    Wired w;
    Memory from(&w.a, 8), to(&w.b, 8);
    Window window(&w.b);
    w.b.Post(window.Bind(&to, 0, 8, Access::kRemoteWrite | Access::kRemoteRead));
    w.cable.Run();
    window.region().bound_qp = 99;
    w.b.PostReceive({.local = to.sge(), .id = 11});
    w.a.Post({.opcode = op,
              .local = from.sge(),
              .remote = {to.at().address, window.key()},
              .id = 1,
              .invalidate = window.key()});
    w.cable.Run();
    EXPECT_EQ(w.a.Sends(), "1 REM_ACCESS_ERR");
    EXPECT_NE(w.b.keys.Find(window.key()), nullptr);
  }
}

TEST(ReadyFrame, ThatIsAReadTakesOneOfThePlaces) {
  // One read at a time is agreed on, and the initiator's ready frame is one; a read is posted.
  // Expect: it waits for the answer to the frame. (The simulator's first find.)
  Side a, b({.number = 2});
  Cable cable(&a, &b);
  for (Side* s : {&a, &b}) {
    Session session = OwnSession(s == &a, false, 1);
    session.ready_frame = ReadyFrame::kRead;
    s->qp.Connected(session);
  }
  Memory to(&a, 8), from(&b, 8);
  a.Post({.opcode = Opcode::kRead, .local = to.sge(), .remote = from.at(), .id = 1});
  cable.Run();
  EXPECT_EQ(a.Sends(), "1 SUCCESS");
}

}  // namespace
}  // namespace verbena::engine
