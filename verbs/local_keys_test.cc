// SPDX-License-Identifier: Apache-2.0
#include "verbs/local_keys.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace verbena::verbs {
namespace {

bool Covers(const LocalKeys& keys, const std::vector<Sge>& entries, bool written = false) {
  return keys.Covers(SgeList(entries), written);
}

TEST(LocalKeys, EveryByteOfEveryEntryCounts) {
  LocalKeys keys;
  keys.Add(7, 1000, 100, true);
  EXPECT_TRUE(Covers(keys, {{1000, 100, 7}}));
  EXPECT_TRUE(Covers(keys, {{1099, 1, 7}}));
  EXPECT_FALSE(Covers(keys, {{1000, 101, 7}}));
  EXPECT_FALSE(Covers(keys, {{999, 1, 7}}));
  EXPECT_FALSE(Covers(keys, {{1100, 1, 7}}));
  EXPECT_FALSE(Covers(keys, {{~uint64_t{0}, 8, 7}}));
  EXPECT_FALSE(Covers(keys, {{1000, 1, 8}}));
  EXPECT_FALSE(Covers(keys, {{1000, 1, 7}, {1000, 1, 8}}));
  EXPECT_TRUE(Covers(keys, {{1, 0, 99}, {1000, 1, 7}}));  // an entry of no bytes names nothing
  EXPECT_TRUE(Covers(keys, {}));
}

TEST(LocalKeys, ASinkMustBeWritable) {
  LocalKeys keys;
  keys.Add(1, 0, 8, false);
  keys.Add(2, 0, 8, true);
  EXPECT_TRUE(Covers(keys, {{0, 8, 1}}));
  EXPECT_FALSE(Covers(keys, {{0, 8, 1}}, true));
  EXPECT_TRUE(Covers(keys, {{0, 8, 2}}, true));
}

TEST(LocalKeys, AClosedRegionIsGoneAndItsKeyMayComeAgain) {
  LocalKeys keys;
  for (uint32_t key = 1; key <= 5000; ++key) keys.Add(key, key, 8, true);
  keys.Remove(17);
  EXPECT_FALSE(Covers(keys, {{17, 8, 17}}));
  EXPECT_TRUE(Covers(keys, {{18, 8, 18}}));
  keys.Add(17, 64, 8, true);
  EXPECT_TRUE(Covers(keys, {{64, 8, 17}}));
  EXPECT_FALSE(Covers(keys, {{17, 8, 17}}));
}

// Whoever has found a region keeps it.
// Expect: it says when it is not of that key any more, and an entry without bytes is nowhere.
TEST(LocalKeys, ARegionThatWasFoundTellsWhenItIsClosed) {
  LocalKeys keys;
  EXPECT_EQ(keys.Find(0), nullptr);
  keys.Add(0, 1000, 100, true);
  keys.Add(7, 1000, 100, true, 9);
  const LocalKeys::Region* const region = keys.Find(7);
  ASSERT_NE(region, nullptr);
  EXPECT_EQ(region->key(), 7u);
  EXPECT_EQ(region->sink(), 9u);
  EXPECT_TRUE(region->Holds({1000, 100, 7}));
  EXPECT_TRUE(region->Holds({1099, 1, 7}));
  EXPECT_FALSE(region->Holds({1000, 0, 7}));
  EXPECT_FALSE(region->Holds({1050, 51, 7}));
  EXPECT_FALSE(region->Holds({999, 2, 7}));
  EXPECT_FALSE(region->Holds({0, 0xffffffff, 7}));
  keys.Remove(7);
  EXPECT_FALSE(region->Holds({1000, 100, 7}));
  EXPECT_EQ(keys.Find(7), nullptr);
  ASSERT_NE(keys.Find(0), nullptr);
  keys.Remove(0);
  EXPECT_EQ(keys.Find(0), nullptr);
  keys.Add(8, 1, 4, true);  // perhaps in the place of the other
  EXPECT_NE(region->key(), 7u);
}

// To the end of the address space, and around it.
TEST(LocalKeys, ARegionAtTheEndHasAnEnd) {
  LocalKeys keys;
  keys.Add(1, ~uint64_t{0} - 99, 100, true);
  const LocalKeys::Region* const region = keys.Find(1);
  EXPECT_TRUE(region->Holds({~uint64_t{0} - 99, 100, 1}));
  EXPECT_TRUE(region->Holds({~uint64_t{0}, 1, 1}));
  EXPECT_FALSE(region->Holds({~uint64_t{0}, 2, 1}));
  EXPECT_FALSE(region->Holds({0, 1, 1}));
}

TEST(LocalKeys, ASinkIsItsRegionsAlone) {
  LocalKeys keys;
  keys.Add(1, 0, 8, true);
  keys.Add(2, 0, 8, true, 2);  // open to peers: it is its own
  EXPECT_EQ(keys.Sink(1), 0u);
  EXPECT_EQ(keys.Sink(2), 2u);
  EXPECT_EQ(keys.Sink(3), 0u);
  keys.SetSink(1, 9);
  EXPECT_EQ(keys.Sink(1), 9u);
  keys.Remove(1);
  keys.SetSink(1, 9);  // too late
  keys.Add(1, 0, 8, true);
  EXPECT_EQ(keys.Sink(1), 0u);
}

}  // namespace
}  // namespace verbena::verbs
