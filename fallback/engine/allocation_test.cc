// SPDX-License-Identifier: Apache-2.0
// The data path allocates nothing: every operator new of this binary is
// counted (test_allocations.h).
#include <vector>

#include "fallback/engine/test_allocations.h"
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

// One round: post, carry, poll. LocalInvalidate and BindWindow take turns, as only what is bound
// can be invalidated; so do binding and the peer's SendWithInvalidate.
class Round {
 public:
  explicit Round(Opcode op, bool crc) : w_(Chunks(0), crc), op_(op) { w_.cable.Keep(false); }

  void Run() {
    if (op_ == Opcode::kSend || op_ == Opcode::kSendWithImm || op_ == Opcode::kWriteWithImm ||
        op_ == Opcode::kSendWithInvalidate) {
      w_.b.PostReceive({.local = theirs_.sge()});
    }
    if (op_ == Opcode::kSendWithInvalidate)
      Post(&w_.b, theirs_window_.Bind(&theirs_, 0, 64, kWrite));
    if (op_ == Opcode::kLocalInvalidate) Post(&w_.a, mine_window_.Bind(&mine_, 0, 64, kWrite));
    SendWr wr;
    if (op_ == Opcode::kBindWindow) {
      wr = mine_window_.Bind(&mine_, 0, 64, kWrite);
    } else {
      const bool atomic = op_ == Opcode::kFetchAdd || op_ == Opcode::kCompareSwap;
      wr.opcode = op_;
      wr.local = mine_.sge(0, atomic ? 8 : 4096);
      wr.remote = theirs_.at();
      wr.invalidate = op_ == Opcode::kLocalInvalidate ? mine_window_.key() : theirs_window_.key();
    }
    Post(&w_.a, wr);
    if (op_ == Opcode::kBindWindow) {
      Post(&w_.a, {.opcode = Opcode::kLocalInvalidate, .invalidate = mine_window_.key()});
    }
  }
  int completed() const { return completed_; }

 private:
  static constexpr Access kWrite = Access::kRemoteWrite;
  void Post(Side* side, const SendWr& wr) {
    if (!side->Post(wr).ok()) return;
    w_.cable.Run();
    WorkCompletion wc[4];
    const size_t n = side->send_ring.Pop(wc);
    if (n == 1 && wc[0].ok()) ++completed_;
    w_.b.receive_ring.Pop(wc);
  }

  Wired w_;
  const Opcode op_;
  Memory mine_{&w_.a, 4096}, theirs_{&w_.b, 4096};
  Window mine_window_{&w_.a}, theirs_window_{&w_.b};
  int completed_ = 0;
};

class Allocations : public testing::TestWithParam<std::tuple<int, bool>> {};

TEST_P(Allocations, NoneOnTheDataPath) {
  // A thousand rounds after some to warm up.
  const auto [op, crc] = GetParam();
  Round round(static_cast<Opcode>(op), crc);
  for (int i = 0; i < 10; ++i) round.Run();
  const int per_round = round.completed() / 10;
  ASSERT_GE(per_round, 1);
  const uint64_t before = AllocationCount();
  for (int i = 0; i < 1000; ++i) round.Run();
  EXPECT_EQ(AllocationCount() - before, 0u);
  EXPECT_EQ(round.completed(), 1010 * per_round);
}

INSTANTIATE_TEST_SUITE_P(Opcodes, Allocations,
                         testing::Combine(testing::Range(0, kOpcodeCount), testing::Bool()));

TEST(Allocations, ACrcTakesNoneBeforeSomethingIsSent) {
  // Two connections that are set up, one with CRC.
  // Expect: as many allocations for one as for the other.
  const auto count = [](bool crc) {
    Side side;
    const uint64_t before = AllocationCount();
    side.qp.Connected(OwnSession(false, crc));
    side.Feed(MakeFpdu(WriteHeader(0, 0), {}, crc));
    return AllocationCount() - before;
  };
  EXPECT_EQ(count(true), count(false));
}

TEST(Allocations, AreCounted) {
  // Expect: the counter works at all.
  const uint64_t before = AllocationCount();
  std::vector<uint64_t> some;
  some.resize(before % 2 + 100);
  EXPECT_GE(AllocationCount() - before, 1u);
}

}  // namespace
}  // namespace verbena::engine
