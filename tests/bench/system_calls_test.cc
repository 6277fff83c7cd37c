// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/system_calls.h"

#include <dlfcn.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "gtest/gtest.h"

namespace {

std::atomic<int> looking = 0;

}  // namespace

extern "C" {

void* __real_dlsym(void* handle, const char* name);  // NOLINT: the linker's name for it

// Slow: nobody has an answer before two threads look for one.
void* __wrap_dlsym(void* handle, const char* name) {  // NOLINT
  looking.fetch_add(1);
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (looking.load() < 2 && std::chrono::steady_clock::now() < give_up) sched_yield();
  return __real_dlsym(handle, name);
}

}  // extern "C"

namespace verbena::bench {
namespace {

// The first calls of two threads at once. The second one does not wait for the first by a system
// call, which would be one of those that are counted here, and so on to the end of its stack.
TEST(SystemCalls, TheFirstOfTwoThreads) {
  ASSERT_EQ(looking.load(), 0) << "somebody was first";
  const auto read_nothing = [] { EXPECT_EQ(read(-1, nullptr, 0), -1); };
  std::thread other(read_nothing);
  read_nothing();
  other.join();
  EXPECT_EQ(looking.load(), 2);
  EXPECT_GE(SystemCalls(), 2u);
}

}  // namespace
}  // namespace verbena::bench
