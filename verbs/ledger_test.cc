// SPDX-License-Identifier: Apache-2.0
#include "verbs/ledger.h"

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

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
  ledger->at(slow).Begin(0, {.quiet = true});
  for (uint32_t i = 1; i < kLimit; ++i) {
    ASSERT_TRUE(PostAndComplete(ledger, &position));
    EXPECT_EQ(position, slow + i);
  }
  uint64_t first = 0, name = 0;
  EXPECT_FALSE(PostAndComplete(ledger, &position));
  EXPECT_FALSE(ledger->ReserveOne(&name));
  EXPECT_EQ(ledger->Reserve(kLimit, &first), 0u);
  EXPECT_EQ(ledger->outstanding(), uint64_t{kLimit});
  ledger->Posted(slow);
  EXPECT_EQ(ledger->outstanding(), 0u);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(PostAndComplete(ledger, &position));
  ledgers->Release(ledger);
}

// A thread stands between a completion, which it has from the device, and its delivery, while
// others post and complete.
// Expect: as above; its place is still its own when it goes on.
TEST(Ledger, APlaceWaitsForItsCompletion) {
  const auto ledgers = std::make_unique<Ledgers>();  // aligned, which a stack may not be
  Ledger* const ledger = ledgers->Acquire(Ledger::Kind::kSend, kLimit);
  uint64_t slow = 0, position = 0;
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(PostAndComplete(ledger, &position));
  ASSERT_EQ(ledger->Reserve(1, &slow), 1u);
  ledger->at(slow).Begin(7, {.completes = WcOpcode::kWrite});
  ledger->Posted(slow);
  for (uint32_t i = 1; i < kLimit; ++i) ASSERT_TRUE(PostAndComplete(ledger, &position));
  EXPECT_FALSE(PostAndComplete(ledger, &position));
  EXPECT_EQ(ledger->at(slow).id, 7u);
  EXPECT_EQ(ledger->at(slow).posted.load(), ledger->Name(slow));
  EXPECT_TRUE(ledger->RetireOldest(ledger->Name(slow)));
  EXPECT_EQ(ledger->outstanding(), 0u);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(PostAndComplete(ledger, &position));
  ledgers->Release(ledger);
}

// Quiet requests, and behind them one that completes.
// Expect: its delivery frees them all; but not one whose poster is not through, nor one before it
// that has to complete itself. One that is odd is freed as well.
TEST(Ledger, ADeliveryFreesTheQuietOnesBeforeIt) {
  const auto ledgers = std::make_unique<Ledgers>();  // aligned, which a stack may not be
  Ledger* const ledger = ledgers->Acquire(Ledger::Kind::kSend, kLimit);
  enum class Second { kQuiet, kOdd, kUnposted, kLoud };
  for (int round = 0; round < 40; ++round) {
    const auto second = static_cast<Second>(round % 4);
    uint64_t first = 0;
    ASSERT_EQ(ledger->Reserve(kLimit, &first), kLimit);
    for (uint32_t i = 0; i < kLimit; ++i) {
      const bool loud = i + 1 == kLimit || (i == 1 && second == Second::kLoud);
      ledger->at(first + i).Begin(i, {.quiet = !loud});
      if (i == 1 && second == Second::kOdd) {
        ledger->at(first + i).FailAs(WcStatus::kLocalLengthError);
      }
      if (i != 1 || second != Second::kUnposted) ledger->Posted(first + i);
    }
    ledger->Retire(ledger->Name(first + kLimit - 1));
    const bool waits = second == Second::kUnposted || second == Second::kLoud;
    EXPECT_EQ(ledger->outstanding(), waits ? kLimit - 1u : 0u);
    if (second == Second::kUnposted) ledger->Posted(first + 1);
    if (second == Second::kLoud) ledger->Retire(ledger->Name(first + 1));
    EXPECT_EQ(ledger->outstanding(), 0u);
  }
  ledgers->Release(ledger);
}

// Names of a queue that was reset, or closed and its ledger given to another.
// Expect: nobody's, on the short way and on the long one.
TEST(Ledger, AClearedNameIsNobodys) {
  const auto ledgers = std::make_unique<Ledgers>();  // aligned, which a stack may not be
  std::vector<uint64_t> names;
  const auto expect_void = [&](const Ledger& ledger) {
    for (const uint64_t name : names) {
      EXPECT_EQ(ledgers->Find(name), nullptr);
      EXPECT_NE(ledger.Of(name).posted.load(), name);
    }
  };
  for (int round = 0; round < 3; ++round) {
    Ledger* const ledger = ledgers->Acquire(Ledger::Kind::kSend, kLimit);
    expect_void(*ledger);
    uint64_t first = 0;
    for (int i = 0; i < 2; ++i) {
      ASSERT_EQ(ledger->Reserve(kLimit, &first), kLimit);
      for (uint32_t k = 0; k < kLimit; ++k) {
        ledger->Posted(first + k);
        names.push_back(ledger->Name(first + k));
        EXPECT_EQ(ledgers->Find(names.back()), ledger);
      }
      ledger->Clear();
      expect_void(*ledger);
    }
    ledgers->Release(ledger);
    Ledger* const shared = ledgers->Acquire(Ledger::Kind::kShared, kLimit);
    ASSERT_EQ(shared, ledger);
    const Ledger::Place* const place = shared->Take();
    ASSERT_NE(place, nullptr);
    names.push_back(place->posted);
    EXPECT_EQ(ledgers->Find(names.back()), shared);
    ledgers->Release(shared);
    expect_void(*shared);
  }
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

// Threads that post, some requests quietly, and threads that poll, on a device that works in the
// order of posts; the queue is short, so all of them are in each other's way.
// Expect: each completion finds the id that its request was posted with.
TEST(Ledger, ThreadsFindTheirOwn) {
  constexpr uint64_t kPosts = 2'000;
  struct Completion {
    uint64_t name, id;
  };
  const auto ledgers = std::make_unique<Ledgers>();  // aligned, which a stack may not be
  Ledger* const ledger = ledgers->Acquire(Ledger::Kind::kSend, kLimit);
  std::mutex device;
  std::deque<Completion> completions;
  std::atomic<uint64_t> signaled{0}, seen{0}, wrong{0};
  std::atomic<int> posting{2};
  const auto post = [&](uint64_t first) {
    for (uint64_t id = first; id < first + kPosts; ++id) {
      uint64_t name = 0, position = 0;
      while (!ledger->ReserveOne(&name)) {
        if (ledger->Reserve(1, &position) == 1) {
          name = ledger->Name(position);
          break;
        }
        std::this_thread::yield();
      }
      const bool quiet = id % 3 == 0;
      ledger->Of(name).Begin(id, {.quiet = quiet});
      if (!quiet) {
        signaled.fetch_add(1);
        const std::lock_guard lock(device);
        completions.push_back({name, id});
      }
      ledger->Posted(ledger->PositionOf(name));
    }
    posting.fetch_sub(1);
  };
  const auto poll = [&] {
    while (posting.load() > 0 || seen.load() < signaled.load()) {
      Completion completion;
      {
        const std::lock_guard lock(device);
        if (completions.empty()) continue;
        completion = completions.front();
        completions.pop_front();
      }
      if (ledger->Of(completion.name).id != completion.id) wrong.fetch_add(1);
      if (ledger->Of(completion.name).posted.load() != completion.name ||
          !ledger->RetireOldest(completion.name)) {
        ledger->Retire(completion.name);
      }
      seen.fetch_add(1);
    }
  };
  std::vector<std::thread> threads;
  threads.emplace_back(post, 0);
  threads.emplace_back(post, kPosts);
  threads.emplace_back(poll);
  threads.emplace_back(poll);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0u);
  EXPECT_EQ(seen.load(), signaled.load());
  ledgers->Release(ledger);
}

// A ledger that another queue had, with another limit.
TEST(Ledger, IsAsNewWhenItIsTakenAgain) {
  const auto ledgers = std::make_unique<Ledgers>();  // aligned, which a stack may not be
  for (const uint32_t limit : {kLimit, 1u, 64u, 3u}) {
    Ledger* const ledger = ledgers->Acquire(Ledger::Kind::kReceive, limit);
    uint64_t first = 0, position = 0, name = 0;
    EXPECT_EQ(ledger->Reserve(limit + 1, &first), limit);
    for (uint32_t i = 0; i < limit; ++i) ledger->Posted(first + i);
    EXPECT_FALSE(ledger->ReserveOne(&name));
    for (uint32_t i = 0; i < limit; ++i) ledger->Retire(ledger->Name(first + i));
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(PostAndComplete(ledger, &position)) << limit;
    ledgers->Release(ledger);
  }
}

// On iWARP whoever has the turn takes the next places of the ring one by one.
// Expect: as many as are free and neighbours, the rest when the ring begins again.
TEST(Ledger, TheNextPlacesAreNeighbours) {
  const auto ledgers = std::make_unique<Ledgers>();  // aligned, which a stack may not be
  Ledger* const ledger = ledgers->Acquire(Ledger::Kind::kSend, 6);  // of 16 places
  Ledger::Place* next = nullptr;
  for (uint64_t position = 0; position < 100;) {
    const uint32_t ahead = ledger->Ahead(&next);
    ASSERT_EQ(ahead, std::min<uint64_t>(6, 16 - position % 16));
    for (uint32_t i = 0; i < ahead; ++i, ++position) {
      const uint64_t name = ledger->next();
      ledger->TakeNext(name);
      EXPECT_EQ(name, ledger->Name(position));
      EXPECT_EQ(next + i, &ledger->Of(name));
      (next + i)->Begin(position, {});
      ledger->Posted(position);
    }
    if (ahead == 6) {
      EXPECT_EQ(ledger->Ahead(&next), 0u);
    }
    for (uint64_t i = position - ahead; i < position; ++i) ledger->Retire(ledger->Name(i));
    EXPECT_EQ(ledger->outstanding(), 0u);
  }
  ledgers->Release(ledger);
}

TEST(Ledger, HasRoomForSoManyBesideWhatIsOutstanding) {
  const auto ledgers = std::make_unique<Ledgers>();
  Ledger* const ledger = ledgers->Acquire(Ledger::Kind::kSend, 6);
  for (const uint32_t most : {1u, 3u, 6u, 100u}) {
    for (uint32_t outstanding = 0; outstanding < 6; ++outstanding) {
      EXPECT_EQ(ledger->HasRoomFor(ledger->RoomWith(most), ledger->next()), outstanding < most);
      const uint64_t name = ledger->next();
      ledger->TakeNext(name);
      ledger->Of(name).Begin(1, {});
      ledger->Posted(ledger->PositionOf(name));
    }
    for (int i = 6; i > 0; --i) {
      ledger->Retire(ledger->Name(ledger->posted() - static_cast<uint64_t>(i)));
    }
  }
  ledgers->Release(ledger);
}

// Requests are given back behind others, after what is before them was done.
// Expect: they count as done.
TEST(Ledger, AHoleBehindWhatIsDoneIsDone) {
  const auto ledgers = std::make_unique<Ledgers>();
  Ledger* const ledger = ledgers->Acquire(Ledger::Kind::kSend, kLimit);
  uint64_t done = 0, unneeded = 0, behind = 0;
  ASSERT_EQ(ledger->Reserve(1, &done), 1u);
  ASSERT_EQ(ledger->Reserve(1, &unneeded), 1u);
  ASSERT_EQ(ledger->Reserve(1, &behind), 1u);
  ledger->Posted(done);
  ledger->Done(ledger->Name(done));
  EXPECT_FALSE(ledger->GiveBack(unneeded, 0, 1));
  EXPECT_EQ(ledger->completed(), behind);
  ledgers->Release(ledger);
}

}  // namespace
}  // namespace verbena::verbs
