// SPDX-License-Identifier: Apache-2.0
// Every interleaving of the threads that hand a queue pair to one another, on models of
// fallback/datapath.cc and watching.cc (docs/decisions/0007-ownership.md): nobody's request stays
// where it is, nobody drives together with another, no memory is used after its region is closed.
// And each model is shown to be sharp: without one of its parts, something of that does happen.
#include "gtest/gtest.h"
#include "tests/sim/interleave.h"

namespace verbena::sim {
namespace {

constexpr Value kOwned = 1, kLookAgain = 2;

enum Part { kAll, kNoRecheck, kPlainRelease, kColdAfterRelease, kNoNote };

// --- A post, polls and the service's ticks
enum Var { kWord, kTail, kSent, kHot, kOwners };

enum class Why { kPost, kPoll, kTick, kReady };

// WorkAndRelease. The caller owns the queue pair.
void Work(Program* p, Why why, Part without) {
  const int again = p->NewLabel(), done = p->NewLabel(), rest = p->NewLabel();
  for (bool first : {true, false}) {  // a second round comes as kReady and changes no watcher
    if (!first) p->Here(again);
    p->Ghost(kOwners, 1);
    p->Require(kOwners, 1, "two threads own it");
    p->And(0, kWord, static_cast<Value>(~kLookAgain));
    p->Load(1, kTail);
    p->StoreFrom(kSent, 1);
    const bool cools = first && why == Why::kTick;
    if (cools && without != kColdAfterRelease) {
      p->Maybe(rest);  // somebody polled since the last tick
      p->Store(kHot, 0);
      p->Fence();
      p->Here(rest);
    }
    if (first && why == Why::kReady) p->Store(kHot, 1);  // polled just now
    p->Ghost(kOwners, -1);
    if (without == kPlainRelease) {
      p->Store(kWord, 0);
      p->Fence();
      p->Goto(done);
    } else {
      p->CompareExchange(0, kWord, kOwned, 0);
      if (cools && without == kColdAfterRelease) p->Store(kHot, 0);
      p->IfBits(0, 1, done);
      if (!first) p->Goto(again);
    }
  }
  p->Here(done);
}

// TryOwn: jumps to `taken` if somebody else has it.
void TryOwn(Program* p, int taken) {
  const int free = p->NewLabel(), noted = p->NewLabel(), retry = p->NewLabel();
  p->Here(retry);
  p->Load(0, kWord);
  p->IfBits(0, kOwned, taken);
  p->IfBits(0, kLookAgain, noted);
  p->CompareExchange(0, kWord, 0, kOwned);
  p->IfNoBits(0, 1, retry);
  p->Goto(free);
  p->Here(noted);
  p->CompareExchange(0, kWord, kLookAgain, kLookAgain | kOwned);
  p->IfNoBits(0, 1, retry);
  p->Here(free);
}

void Drive(Program* p, Why why, Part without) {
  const int noted = p->NewLabel();
  p->Or(0, kWord, without == kNoNote ? kOwned : kOwned | kLookAgain);
  p->IfBits(0, kOwned, noted);
  Work(p, why, without);
  p->Here(noted);
}

Program Poster(int posts, Part without) {
  Program p;
  for (int i = 1; i <= posts; ++i) {
    const int drive = p.NewLabel(), done = p.NewLabel();
    p.Store(kTail, static_cast<Value>(i));
    p.Maybe(drive);  // nobody has polled just now
    p.Load(1, kHot);
    p.IfNoBits(1, 1, drive);
    p.Or(0, kWord, kLookAgain);
    if (without == kNoRecheck) p.Goto(done);
    p.Load(1, kHot);
    p.IfBits(1, 1, done);
    p.Here(drive);
    Drive(&p, Why::kPost, without);
    p.Here(done);
  }
  return p;
}

// Polls twice and goes away.
Program Poller(Part without) {
  Program p;
  for (int i = 0; i < 2; ++i) {
    const int next = p.NewLabel();
    p.Load(1, kHot);
    p.IfNoBits(1, 1, next);
    TryOwn(&p, next);
    Work(&p, Why::kPoll, without);
    p.Here(next);
  }
  return p;
}

// Hears of the socket once, which makes the queue pair hot; then ticks while it is.
Program Service(Part without) {
  Program p;
  const int tick = p.NewLabel(), cold = p.NewLabel();
  Drive(&p, Why::kReady, without);
  p.Here(tick);
  p.Load(1, kHot);
  p.IfNoBits(1, 1, cold);
  TryOwn(&p, tick);
  Work(&p, Why::kTick, without);
  p.Goto(tick);
  p.Here(cold);
  return p;
}

Exploration HandOver(Memory memory, Part without) {
  return Explore({Poster(2, without), Poller(without), Service(without)}, memory, {},
                 [](const std::array<Value, kVars>& m) -> std::string {
                   if ((m[kWord] & kOwned) != 0) return "it is owned for ever";
                   return m[kSent] == 2 ? "" : "a request was never sent";
                 });
}

class HandOverOn : public testing::TestWithParam<Memory> {};

TEST_P(HandOverOn, NothingIsLeftAndNobodyMeets) {
  const Exploration e = HandOver(GetParam(), kAll);
  EXPECT_TRUE(e.ok) << e.why << "\n" << e.trace;
  EXPECT_GT(e.states, 1000u);
  RecordProperty("states", static_cast<int>(e.states));
}

TEST_P(HandOverOn, NeedsEachOfItsParts) {
  for (Part part : {kNoRecheck, kPlainRelease, kColdAfterRelease, kNoNote}) {
    const Exploration e = HandOver(GetParam(), part);
    EXPECT_FALSE(e.ok) << "without part " << part;
    EXPECT_EQ(e.why, "a request was never sent") << "without part " << part;
  }
}

INSTANTIATE_TEST_SUITE_P(Memories, HandOverOn,
                         testing::Values(Memory::kSequential, Memory::kStoreBuffers),
                         [](const auto& i) {
                           return i.param == Memory::kSequential ? "Sequential" : "StoreBuffers";
                         });

// --- The rule as the protocol states it: release = clear, fence, look again.
Exploration ClearAndLook(Memory memory, bool fence) {
  Program poster;
  {
    const int noted = poster.NewLabel();
    poster.Store(kTail, 1);
    poster.Or(0, kWord, kOwned);
    poster.IfBits(0, kOwned, noted);
    poster.Load(1, kTail);
    poster.StoreFrom(kSent, 1);
    poster.Store(kWord, 0);
    poster.Here(noted);
  }
  Program owner;
  {
    const int again = owner.NewLabel(), done = owner.NewLabel();
    owner.Here(again);
    owner.Or(0, kWord, kOwned);
    owner.IfBits(0, kOwned, done);
    owner.Load(1, kTail);
    owner.StoreFrom(kSent, 1);
    owner.Store(kWord, 0);
    if (fence) owner.Fence();
    owner.Load(2, kTail);
    owner.IfSame(1, 2, done);
    owner.Goto(again);
    owner.Here(done);
  }
  return Explore({poster, owner}, memory, {}, [](const std::array<Value, kVars>& m) {
    return m[kSent] == 1 ? "" : "a request was never sent";
  });
}

TEST(ClearAndLook, NeedsTheFenceWhereStoresAreBuffered) {
  EXPECT_TRUE(ClearAndLook(Memory::kSequential, false).ok);
  EXPECT_TRUE(ClearAndLook(Memory::kStoreBuffers, true).ok);
  const Exploration e = ClearAndLook(Memory::kStoreBuffers, false);
  EXPECT_EQ(e.why, "a request was never sent");
  EXPECT_NE(e.trace, "");
}

// --- A region is closed while drives use it: KeyTable::Kill, QueuePair::ForgetDeadKeys.
enum GraceVar { kGraceWord, kAlive, kHasUnsent, kDrives, kFreed, kFramed };
struct Grace {
  bool fence = true;      // Kill's last step is an atomic addition
  bool looks = true;      // at what is framed and unsent
  bool has_order = true;  // has_unsent is stored before the release
};

// Two drives: the first frames memory and cannot send it, the second sends what is framed.
Program Driver(const Grace& g) {
  Program p;
  for (int round = 0; round < 2; ++round) {
    const int taken = p.NewLabel(), dead = p.NewLabel(), nothing = p.NewLabel();
    p.CompareExchange(0, kGraceWord, 0, kOwned);
    p.IfNoBits(0, 1, taken);
    p.Load(1, kFramed);  // the owner's own
    p.IfNoBits(1, 1, nothing);
    p.Require(kFreed, 0, "memory is sent that the program has back");
    p.Store(kFramed, 0);
    p.Here(nothing);
    p.Load(1, kAlive);
    p.IfNoBits(1, 1, dead);
    p.Require(kFreed, 0, "memory is touched that the program has back");
    if (round == 0) p.Store(kFramed, 1);
    p.Here(dead);
    p.Load(1, kFramed);
    if (g.has_order) p.StoreFrom(kHasUnsent, 1);
    p.Increment(kDrives);
    p.And(0, kGraceWord, static_cast<Value>(~kOwned));
    if (!g.has_order) p.StoreFrom(kHasUnsent, 1);
    p.Here(taken);
  }
  return p;
}

Program Closer(const Grace& g) {
  Program p;
  const int wait = p.NewLabel(), idle = p.NewLabel(), unsent = p.NewLabel(), free = p.NewLabel();
  p.Store(kAlive, 0);
  if (g.fence) p.Fence();
  p.Load(2, kDrives);
  p.Here(wait);
  p.Load(0, kGraceWord);
  p.IfNoBits(0, kOwned, idle);
  p.Load(1, kDrives);
  p.IfSame(1, 2, wait);
  p.Here(idle);
  if (g.looks) {
    p.Here(unsent);
    p.Load(0, kHasUnsent);
    p.IfNoBits(0, 1, free);
    p.CompareExchange(0, kGraceWord, 0, kOwned);
    p.IfNoBits(0, 1, unsent);
    p.Store(kFramed, 0);  // copied
    p.Store(kHasUnsent, 0);
    p.Increment(kDrives);
    p.And(0, kGraceWord, static_cast<Value>(~kOwned));
  }
  p.Here(free);
  p.Ghost(kFreed, 1);
  return p;
}

Exploration CloseUnderTraffic(Memory memory, const Grace& g) {
  std::array<Value, kVars> start{};
  start[kAlive] = 1;
  return Explore({Driver(g), Driver(g), Closer(g)}, memory, start,
                 [](const std::array<Value, kVars>&) { return ""; });
}

TEST(Grace, NothingIsUsedAfterClose) {
  for (Memory memory : {Memory::kSequential, Memory::kStoreBuffers}) {
    const Exploration e = CloseUnderTraffic(memory, {});
    EXPECT_TRUE(e.ok) << e.why << "\n" << e.trace;
    EXPECT_GT(e.states, 1000u);
  }
}

TEST(Grace, NeedsEachOfItsParts) {
  EXPECT_TRUE(CloseUnderTraffic(Memory::kSequential, {.fence = false}).ok);
  EXPECT_EQ(CloseUnderTraffic(Memory::kStoreBuffers, {.fence = false}).why,
            "memory is touched that the program has back");
  EXPECT_EQ(CloseUnderTraffic(Memory::kSequential, {.looks = false}).why,
            "memory is sent that the program has back");
  EXPECT_EQ(CloseUnderTraffic(Memory::kSequential, {.has_order = false}).why,
            "memory is sent that the program has back");
}

}  // namespace
}  // namespace verbena::sim
