// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/key_table.h"

#include <algorithm>
#include <thread>

#include "fallback/engine/test_allocations.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

constexpr uint32_t kDomain = 3;
constexpr uint32_t kQueuePair = 7;
constexpr uint64_t kFirst = 0x100000;
constexpr uint64_t kSize = 4096;
constexpr Access kRemote = Access::kRemoteRead | Access::kRemoteWrite | Access::kRemoteAtomic;
constexpr Access kAll = kRemote | Access::kLocalWrite | Access::kWindowBind;

class Table : public testing::Test {
 protected:
  Table() { Add(&region_, kAll); }
  void Add(Region* r, Access access) {
    r->key = table_.NewKey();
    r->domain = kDomain;
    r->access = access;
    r->first = kFirst;
    r->length = kSize;
    r->host = memory_;
    table_.Add(r);
  }
  void Bind(Region* window, uint64_t offset, uint64_t length, Access access) {
    if (!window->window) {  // for good, before its first key
      window->window = true;
      window->domain = kDomain;
    }
    window->key = table_.NewKey();
    window->access = access;
    window->first = kFirst + offset;
    window->length = length;
    window->host = memory_ + offset;
    window->bound_qp = kQueuePair;
    window->parent = &region_;
    window->bound = true;
    region_.windows.fetch_add(1);
    EXPECT_TRUE(table_.Insert(window));
  }
  Translation Check(uint32_t key, uint64_t address, uint64_t length,
                    Access needed = Access::kRemoteWrite, uint32_t domain = kDomain,
                    uint32_t queue_pair = kQueuePair) {
    const Reach reach = {key, domain, queue_pair, needed, address, length};
    const Translation t = table_.Check(reach);
    const Translation again = table_.Check(reach, &recent_);  // who remembers is told the same
    EXPECT_EQ(again.fault, t.fault);
    EXPECT_EQ(again.host, t.host);
    EXPECT_EQ(again.region, t.region);
    return t;
  }

  KeyTable table_;
  Recent recent_;
  std::byte memory_[kSize];
  Region region_;
};

TEST_F(Table, FindsWhatIsThere) {
  EXPECT_EQ(table_.Find(region_.key), &region_);
  EXPECT_EQ(table_.Find(region_.key ^ 1), nullptr);
  EXPECT_EQ(table_.Find(0), nullptr);
}

TEST_F(Table, KillEndsIt) {
  // Expect: gone for lookups, and the version says that something died; a second time is harmless.
  const uint64_t before = table_.version();
  table_.Kill(&region_);
  EXPECT_EQ(table_.Find(region_.key), nullptr);
  EXPECT_EQ(Check(region_.key, kFirst, 8).fault, AccessFault::kKey);
  EXPECT_NE(table_.version(), before);
  const uint64_t after = table_.version();
  table_.Kill(&region_);
  EXPECT_EQ(table_.version(), after);
}

struct BoundsRow {
  const char* name;
  uint64_t address, length;
  AccessFault fault;
};
class BoundsOf : public Table, public testing::WithParamInterface<BoundsRow> {};

TEST_P(BoundsOf, ARegion) {
  const BoundsRow& row = GetParam();
  const Translation t = Check(region_.key, row.address, row.length);
  EXPECT_EQ(t.fault, row.fault) << AccessFaultText(t.fault);
  EXPECT_EQ(t.host, t.ok() ? memory_ + (row.address - kFirst) : nullptr);
  EXPECT_EQ(t.region, &region_);
}

constexpr BoundsRow kBounds[] = {
    {"All", kFirst, kSize, AccessFault::kNone},
    {"FirstByte", kFirst, 1, AccessFault::kNone},
    {"LastByte", kFirst + kSize - 1, 1, AccessFault::kNone},
    {"NothingAtTheEnd", kFirst + kSize, 0, AccessFault::kNone},
    {"OneBefore", kFirst - 1, 1, AccessFault::kBounds},
    {"OneTooEarly", kFirst - 1, 2, AccessFault::kBounds},
    {"OneTooMany", kFirst, kSize + 1, AccessFault::kBounds},
    {"OneOver", kFirst + 1, kSize, AccessFault::kBounds},
    {"OneBehind", kFirst + kSize, 1, AccessFault::kBounds},
    {"FarAway", 0, 1, AccessFault::kBounds},
    {"HugeLength", kFirst, ~0ull - kFirst, AccessFault::kBounds},
    {"Wraps", ~0ull, 2, AccessFault::kWrap},
    {"WrapsFromInside", kFirst + 1, ~0ull - kFirst + 1, AccessFault::kWrap},
};
INSTANTIATE_TEST_SUITE_P(Rows, BoundsOf, testing::ValuesIn(kBounds),
                         [](const auto& i) { return std::string(i.param.name); });

TEST_F(Table, AccessIsTakenBitByBit) {
  // Every set of rights against every need.
  for (int granted = 0; granted < 32; ++granted) {
    Region r;
    Add(&r, static_cast<Access>(granted));
    for (const int needed : {0, 1, 2, 4, 8}) {
      const Translation t = Check(r.key, kFirst, 8, static_cast<Access>(needed));
      EXPECT_EQ(t.fault, (granted & needed) == needed ? AccessFault::kNone : AccessFault::kAccess)
          << granted << " " << needed;
    }
    table_.Kill(&r);
  }
}

TEST_F(Table, WhatIsRememberedIsForgotten) {
  // A region is asked for twice, and dies; another has its key, as keys come again one day.
  // Expect: the second answer is the remembered one, which other bounds, rights and domains do not
  // get; a dead key is refused, and the new region found.
  EXPECT_TRUE(Check(region_.key, kFirst, 8).ok());
  EXPECT_EQ(recent_.region, &region_);
  EXPECT_TRUE(Check(region_.key, kFirst + 8, 8).ok());
  EXPECT_EQ(Check(region_.key, kFirst + kSize, 8).fault, AccessFault::kBounds);
  EXPECT_EQ(Check(region_.key, kFirst, 8, Access::kRemoteRead, kDomain + 1).fault,
            AccessFault::kDomain);
  EXPECT_EQ(recent_.region, &region_);
  table_.Kill(&region_);
  EXPECT_EQ(Check(region_.key, kFirst, 8).fault, AccessFault::kKey);
  Region other;
  Add(&other, kAll);
  table_.Kill(&other);
  other.key = uint32_t{region_.key};
  ASSERT_TRUE(table_.Insert(&other));
  EXPECT_EQ(Check(region_.key, kFirst, 8).region, &other);
}

TEST_F(Table, AKeyThatSomebodyChose) {
  // A window is given the key of a region, and a region the key of a window.
  // Expect: the window is refused; the region gets another key; both are found by their own.
  Region window;
  Bind(&window, 0, 8, Access::kRemoteWrite);
  Region late;
  late.key = uint32_t{window.key};
  late.domain = kDomain;
  late.access = kAll;
  late.first = kFirst;
  late.length = 8;
  late.host = memory_;
  table_.Add(&late);
  EXPECT_NE(uint32_t{late.key}, uint32_t{window.key});
  EXPECT_EQ(Check(window.key, kFirst, 8).region, &window);
  EXPECT_EQ(Check(late.key, kFirst, 8).region, &late);
  Region other;
  other.key = uint32_t{region_.key};
  EXPECT_FALSE(table_.Insert(&other));
  EXPECT_EQ(Check(region_.key, kFirst, 8).region, &region_);
  table_.Kill(&late);
}

TEST_F(Table, OtherDomain) {
  EXPECT_EQ(Check(region_.key, kFirst, 8, Access::kRemoteRead, kDomain + 1).fault,
            AccessFault::kDomain);
}

TEST_F(Table, WindowBelongsToOneQueuePair) {
  // Expect: remote access through that one only, inside the window only; no local use at all.
  Region window;
  Bind(&window, 64, 128, Access::kRemoteWrite);
  EXPECT_TRUE(Check(window.key, kFirst + 64, 128).ok());
  EXPECT_EQ(Check(window.key, kFirst + 64, 8).host, memory_ + 64);
  EXPECT_EQ(Check(window.key, kFirst + 64, 8, Access::kRemoteWrite, kDomain, 8).fault,
            AccessFault::kDomain);
  EXPECT_EQ(Check(window.key, kFirst + 63, 8).fault, AccessFault::kBounds);
  EXPECT_EQ(Check(window.key, kFirst + 185, 8).fault, AccessFault::kBounds);
  EXPECT_EQ(Check(window.key, kFirst + 64, 8, Access::kRemoteRead).fault, AccessFault::kAccess);
  EXPECT_EQ(Check(window.key, kFirst + 64, 8, Access::kLocalWrite).fault, AccessFault::kKey);
  EXPECT_EQ(Check(window.key, kFirst + 64, 8, Access::kLocalRead).fault, AccessFault::kKey);
}

TEST_F(Table, WindowDiesWithItsRegion) {
  Region window;
  Bind(&window, 0, 64, Access::kRemoteWrite);
  table_.Kill(&region_);
  EXPECT_EQ(Check(window.key, kFirst, 8).fault, AccessFault::kKey);
}

TEST_F(Table, ReleasedWindowIsFree) {
  Region window;
  Bind(&window, 0, 64, Access::kRemoteWrite);
  ReleaseWindow(&table_, &window);
  EXPECT_EQ(table_.Find(window.key), nullptr);
  EXPECT_EQ(region_.windows, 0u);
  EXPECT_FALSE(window.bound);
  EXPECT_EQ(window.parent, nullptr);
}

TEST_F(Table, GrowsAndShrinks) {
  // Far more regions than buckets; every other one dies.
  // Expect: each lookup is right, before and after.
  constexpr int kRegions = 20000;
  std::vector<Region> regions(kRegions);
  for (Region& r : regions) Add(&r, kAll);
  for (Region& r : regions) ASSERT_EQ(table_.Find(r.key), &r);
  for (int i = 0; i < kRegions; i += 2) table_.Kill(&regions[i]);
  for (int i = 0; i < kRegions; ++i) {
    ASSERT_EQ(table_.Find(regions[i].key), i % 2 == 0 ? nullptr : &regions[i]);
  }
  EXPECT_EQ(table_.Find(region_.key), &region_);
}

TEST_F(Table, LookupsWhileOthersRegister) {
  // Two threads look up keys that live all the time, and one that is bound anew again and again,
  // while others register, grow the table and deregister.
  // Expect: what lives is always found; a window's translation is of one bind, never of two.
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> misses{0}, lookups{0};
  Region window;
  Bind(&window, 0, 64, Access::kRemoteWrite);
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      Recent recent;
      while (!stop) {
        if (table_.Find(region_.key) != &region_) ++misses;
        const uint32_t key = window.key;
        const Translation t =
            table_.Check({key, kDomain, kQueuePair, Access::kRemoteWrite, kFirst, 0}, &recent);
        if (t.ok() && t.host != memory_) ++misses;
        ++lookups;
      }
    });
  }
  std::vector<Region> regions(3000);
  for (int round = 0; round < 3; ++round) {
    for (Region& r : regions) Add(&r, kAll);
    for (int i = 0; i < 200; ++i) {
      ReleaseWindow(&table_, &window);
      Bind(&window, 0, 64 + i, Access::kRemoteWrite);
    }
    for (Region& r : regions) table_.Kill(&r);
  }
  while (lookups < 1000) std::this_thread::yield();
  stop = true;
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(misses, 0u);
}

TEST(Keys, DoNotRepeat) {
  // Expect: 2^18 keys without a repetition, none of them 0, and no pattern in their distances.
  KeySource source;
  std::vector<uint32_t> keys(1 << 18);
  for (uint32_t& k : keys) k = source.Next();
  size_t same_step = 0;
  for (size_t i = 2; i < keys.size(); ++i) {
    same_step += keys[i] - keys[i - 1] == keys[i - 1] - keys[i - 2] ? 1 : 0;
  }
  EXPECT_LT(same_step, 10u);
  std::sort(keys.begin(), keys.end());
  EXPECT_NE(keys.front(), 0u);
  EXPECT_EQ(std::adjacent_find(keys.begin(), keys.end()), keys.end());
}

TEST(Keys, DifferFromSourceToSource) {
  KeySource a, b;
  int same = 0;
  for (int i = 0; i < 100; ++i) same += a.Next() == b.Next() ? 1 : 0;
  EXPECT_LT(same, 3);
}

TEST(Keys, EveryFaultHasAText) {
  for (int i = 0; i <= static_cast<int>(AccessFault::kAccess); ++i) {
    EXPECT_STRNE(AccessFaultText(static_cast<AccessFault>(i)), "unknown fault");
  }
}

TEST(KeyTable, NoMemoryToGrow) {
  // The table must grow and cannot; the program catches that, and goes on.
  // Expect: lookups work, and so does the same registration when there is memory again.
  KeyTable table;
  std::vector<std::unique_ptr<Region>> regions;
  bool refused = false;
  for (int i = 0; i < 300; ++i) {
    regions.push_back(std::make_unique<Region>());
    regions.back()->key = table.NewKey();
    RefuseAllocation(1);
    try {
      table.Add(regions.back().get());
      RefuseAllocation(0);
    } catch (const std::bad_alloc&) {
      refused = true;
      EXPECT_EQ(table.Find(regions.back()->key), nullptr);
      table.Add(regions.back().get());
    }
    EXPECT_EQ(table.Find(regions.back()->key), regions.back().get());
  }
  EXPECT_TRUE(refused);
}

}  // namespace
}  // namespace verbena::engine
