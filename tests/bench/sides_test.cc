// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/sides.h"

#include <signal.h>
#include <unistd.h>

#include <array>

#include "gtest/gtest.h"

namespace verbena::bench {
namespace {

int RunRow(std::function<void()> serve) {
  std::array<char, 8> program{"bench"}, row{"row"};
  std::array<char*, 2> args{program.data(), row.data()};
  const auto measure = [](const Options&, Shared&) -> Result {
    for (;;) pause();
  };
  return Main(2, args.data(), {{"row", [serve](const Options&, Shared&) { serve(); }, measure}});
}

// A client that waits for a server that has died says so, and does not wait for its patience to
// end, which would be a signal of its own.
TEST(SidesDeathTest, AServerThatDies) {
  EXPECT_EXIT(RunRow([] { raise(SIGKILL); }), ::testing::ExitedWithCode(1),
              "the server ended, signal 9");
}

TEST(SidesDeathTest, AServerThatFails) {
  EXPECT_EXIT(RunRow([] { Die("for a reason"); }), ::testing::ExitedWithCode(1),
              "for a reason(.|\n)*the server ended, status 1");
}

}  // namespace
}  // namespace verbena::bench
