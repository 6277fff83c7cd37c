// SPDX-License-Identifier: Apache-2.0
// The simulator itself. The engine's time with it is a part of its own in tests/tiers.
#include <algorithm>
#include <numeric>

#include "gtest/gtest.h"
#include "tests/sim/pattern.h"
#include "tests/sim/trial.h"

namespace verbena::sim {
namespace {

TEST(Sim, AFewSeedsPass) {
  const Report r = RunMany(1, 2);
  EXPECT_FALSE(r.failed) << "seed " << r.seed << ": " << r.text;
  EXPECT_GT(r.requests, 0u);
}

// Posts long after an error; a farewell of a second while another link retries every 10 µs; a
// message that fails in the middle, into a receive that is too small for it.
TEST(Sim, SeedsThatTheModelOnceGotWrong) {
  for (uint64_t seed : {1753257498701240u, 1753257632295350u, 1753257739543850u, 1753259965535626u,
                        1753260233766739u, 1753260343383244u, 1753295552551162u}) {
    EXPECT_EQ(Tell(seed, {}).find("FAILED"), std::string::npos) << seed;
  }
}

TEST(Sim, ASeedGivesTheSameStoryAgain) {
  for (uint64_t seed = 1; seed <= 20; ++seed) EXPECT_EQ(Tell(seed, {}), Tell(seed, {}));
}

TEST(Shrink, KeepsWhatTheFailureNeeds) {
  // It fails if 3 and 700 are there, and 12 or 13.
  std::vector<uint32_t> steps(1000);
  std::iota(steps.begin(), steps.end(), 0);
  const auto has = [](const std::vector<uint32_t>& v, uint32_t n) {
    return std::count(v.begin(), v.end(), n) > 0;
  };
  int tries = 0;
  steps = Shrink(steps, [&](const std::vector<uint32_t>& v) {
    ++tries;
    return has(v, 3) && has(v, 700) && (has(v, 12) || has(v, 13));
  });
  EXPECT_EQ(steps, (std::vector<uint32_t>{3, 13, 700}));
  EXPECT_LT(tries, 200);
}

TEST(Pattern, FindsTheFirstWrongByte) {
  std::byte bytes[64];
  FillPattern(bytes, 7, 3, 50);
  EXPECT_EQ(Differs(bytes, 7, 3, 50), 50u);
  for (size_t i = 0; i < 50; ++i) {
    bytes[i] ^= std::byte{1};
    EXPECT_EQ(Differs(bytes, 7, 3, 50), i);
    bytes[i] ^= std::byte{1};
  }
}

}  // namespace
}  // namespace verbena::sim
