// SPDX-License-Identifier: Apache-2.0
// The server's small parts: locks of blocks, and memory that callers wait for.
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
