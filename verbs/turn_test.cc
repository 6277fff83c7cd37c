// SPDX-License-Identifier: Apache-2.0
#include "verbs/turn.h"

#include <mutex>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace verbena::verbs {
namespace {

TEST(Turn, IsOneThreadsAtATime) {
  Turn turn;
  int count = 0;  // ThreadSanitizer sees it, too
  const auto work = [&] {
    for (int i = 0; i < 20000; ++i) {
      const std::lock_guard mine(turn);
      ++count;
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 80000);
}

TEST(Turn, IsNotHadTwice) {
  Turn turn;
  EXPECT_TRUE(turn.try_lock());
  EXPECT_FALSE(turn.try_lock());
  turn.unlock();
  EXPECT_TRUE(turn.try_lock());
}

}  // namespace
}  // namespace verbena::verbs
