// SPDX-License-Identifier: Apache-2.0
#include "verbs/ledger.h"

#include <cstdint>
#include <memory>

#include "gtest/gtest.h"

namespace verbena::verbs {
namespace {

constexpr uint32_t kLimit = 4;

// One request of a thread that is never interrupted; false: there is no place.
bool PostAndComplete(Ledger* ledger, uint64_t* position) {
  if (ledger->Reserve(1, position) == 0) return false;
  ledger->Posted(*position);
  ledger->Retire(ledger->Name(*position));
  return true;
}

// A thread stands between its place and its post while others post and complete.
// Expect: they get as far as the queue is long, never round to its place, and on once it has
// posted.
TEST(Ledger, APlaceWaitsForItsPoster) {
  const auto ledgers = std::make_unique<Ledgers>();  // aligned, which a stack may not be
  Ledger* const ledger = ledgers->Acquire(Ledger::Kind::kSend, kLimit);
  uint64_t slow = 0, position = 0;
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(PostAndComplete(ledger, &position));
  ASSERT_EQ(ledger->Reserve(1, &slow), 1u);
  for (uint32_t i = 1; i < kLimit; ++i) {
    ASSERT_TRUE(PostAndComplete(ledger, &position));
    EXPECT_EQ(position, slow + i);
  }
  uint64_t first = 0;
  EXPECT_FALSE(PostAndComplete(ledger, &position));
  EXPECT_FALSE(ledger->ReserveOne(&position));
  EXPECT_EQ(ledger->Reserve(kLimit, &first), 0u);
  ledger->Posted(slow);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(PostAndComplete(ledger, &position));
  ledgers->Release(ledger);
}

// Places that the driver refused, with another thread's behind them.
// Expect: they hold nobody up, nor does what is reserved again.
TEST(Ledger, GivenBackPlacesHoldNobodyUp) {
  const auto ledgers = std::make_unique<Ledgers>();  // aligned, which a stack may not be
  Ledger* const ledger = ledgers->Acquire(Ledger::Kind::kSend, kLimit);
  for (int round = 0; round < 20; ++round) {
    uint64_t first = 0, behind = 0, position = 0;
    ASSERT_EQ(ledger->Reserve(2, &first), 2u) << round;
    ASSERT_EQ(ledger->Reserve(1, &behind), 1u);
    ledger->GiveBack(first, 0, 2);
    ledger->Posted(behind);
    ledger->Retire(ledger->Name(behind));
    ASSERT_EQ(ledger->Reserve(1, &position), 1u);
    ledger->GiveBack(position, 0, 1);
    EXPECT_EQ(ledger->outstanding(), 0u);
  }
  ledgers->Release(ledger);
}

// A ledger that another queue had, with another limit.
TEST(Ledger, IsAsNewWhenItIsTakenAgain) {
  const auto ledgers = std::make_unique<Ledgers>();  // aligned, which a stack may not be
  for (const uint32_t limit : {kLimit, 1u, 64u, 3u}) {
    Ledger* const ledger = ledgers->Acquire(Ledger::Kind::kReceive, limit);
    uint64_t first = 0, position = 0;
    EXPECT_EQ(ledger->Reserve(limit + 1, &first), limit);
    for (uint32_t i = 0; i < limit; ++i) ledger->Posted(first + i);
    EXPECT_FALSE(ledger->ReserveOne(&position));
    for (uint32_t i = 0; i < limit; ++i) ledger->Retire(ledger->Name(first + i));
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(PostAndComplete(ledger, &position)) << limit;
    ledgers->Release(ledger);
  }
}

}  // namespace
}  // namespace verbena::verbs
