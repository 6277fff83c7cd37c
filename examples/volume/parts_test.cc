// SPDX-License-Identifier: Apache-2.0
// The server's small parts: locks of blocks, and memory that callers wait for.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "examples/volume/buffers.h"
#include "examples/volume/range_locks.h"
#include "gtest/gtest.h"
#include "rpc/task.h"

namespace verbena::volume {
namespace {

// A coroutine that holds what it took until it is let go.
template <typename Held>
struct Holder {
  std::optional<Held> held;
};

rpc::Task<bool> Hold(RangeLocks& locks, uint64_t first, uint64_t end, bool alone,
                     Holder<RangeLocks::Hold>& holder) {
  if (alone) {
    holder.held.emplace(co_await locks.HaveAlone(first, end));
  } else {
    holder.held.emplace(co_await locks.Share(first, end));
  }
  co_return true;
}

void Start(rpc::Task<bool> task) {
  rpc::StartTask(
      std::move(task), [](bool) {}, [](std::exception_ptr) { FAIL(); });
}

TEST(RangeLocks, ReadersShareAndAWriterIsAlone) {
  RangeLocks locks;
  Holder<RangeLocks::Hold> first, second, writer, elsewhere, behind;
  Start(Hold(locks, 0, 10, false, first));
  Start(Hold(locks, 5, 15, false, second));
  EXPECT_TRUE(first.held && second.held);
  Start(Hold(locks, 9, 10, true, writer));
  Start(Hold(locks, 20, 30, true, elsewhere));
  EXPECT_FALSE(writer.held);
  EXPECT_TRUE(elsewhere.held);
  Start(Hold(locks, 0, 10, false, behind));
  EXPECT_FALSE(behind.held) << "it would pass by a writer that waits";
  first.held.reset();
  EXPECT_FALSE(writer.held);
  second.held.reset();
  EXPECT_TRUE(writer.held);
  EXPECT_FALSE(behind.held);
  writer.held.reset();
  EXPECT_TRUE(behind.held);
}

rpc::Task<bool> Take(Buffers& buffers, size_t bytes, Holder<Buffers::Buffer>& holder) {
  holder.held.emplace(co_await buffers.Take(bytes));
  co_return true;
}

// How much of its thread's stack is in use, at the most that was seen.
class StackMeter {
 public:
  [[gnu::noinline]] void Look() {
    const auto now = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
    least_ = std::min(least_, now);
    most_ = std::max(most_, now);
  }
  uintptr_t spread() const { return most_ - least_; }

 private:
  uintptr_t least_ = ~uintptr_t{0}, most_ = 0;
};
constexpr int kWaiters = 1000;
constexpr uintptr_t kStackOfAFew = 8192;

rpc::Task<bool> HoldAndLook(RangeLocks& locks, StackMeter& meter) {
  const RangeLocks::Hold hold = co_await locks.HaveAlone(0, 1);
  meter.Look();
  co_return true;
}

TEST(RangeLocks, ManyWhoWaitForEachOtherTakeTheStackOfOne) {
  RangeLocks locks;
  Holder<RangeLocks::Hold> first;
  Start(Hold(locks, 0, 1, true, first));
  StackMeter meter;
  int ended = 0;
  for (int i = 0; i < kWaiters; ++i) {
    rpc::StartTask(
        HoldAndLook(locks, meter), [&](bool) { ++ended; }, [](std::exception_ptr) { FAIL(); });
  }
  EXPECT_EQ(ended, 0);
  first.held.reset();
  EXPECT_EQ(ended, kWaiters);
  EXPECT_LT(meter.spread(), kStackOfAFew);
}

rpc::Task<bool> TakeAndLook(Buffers& buffers, StackMeter& meter) {
  const Buffers::Buffer buffer = co_await buffers.Take(kMostBytes);
  meter.Look();
  co_return true;
}

TEST(Buffers, ManyWhoWaitForEachOtherTakeTheStackOfOne) {
  Buffers buffers(kMostBytes);
  StackMeter meter;
  int ended = 0;
  {
    Holder<Buffers::Buffer> first;
    Start(Take(buffers, kMostBytes, first));
    for (int i = 0; i < kWaiters; ++i) {
      rpc::StartTask(
          TakeAndLook(buffers, meter), [&](bool) { ++ended; }, [](std::exception_ptr) { FAIL(); });
    }
    EXPECT_EQ(ended, 0);
  }
  EXPECT_EQ(ended, kWaiters);
  EXPECT_LT(meter.spread(), kStackOfAFew);
}

TEST(Buffers, WhoFindsNoneWaitsForItsTurn) {
  Buffers buffers(kMostBytes);
  Holder<Buffers::Buffer> all, small, large;
  Start(Take(buffers, kMostBytes, all));
  ASSERT_TRUE(all.held);
  EXPECT_EQ(all.held->bytes().size(), kMostBytes);
  Start(Take(buffers, kBlock, small));
  Start(Take(buffers, kMostBytes, large));
  EXPECT_FALSE(small.held);
  all.held.reset();
  ASSERT_TRUE(small.held);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(small.held->bytes().data()) % kBlock, 0u);
  EXPECT_FALSE(large.held);
  small.held.reset();
  EXPECT_TRUE(large.held);
}

}  // namespace
}  // namespace verbena::volume
