// SPDX-License-Identifier: Apache-2.0
// The poller's waiting and waking, the service thread, Await and Changed.
#include "fallback/io/kernel_world.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

#include "fallback/io/epoll_poller.h"
#include "gtest/gtest.h"

namespace verbena::io {
namespace {

constexpr Nanos kMs = 1000000;

struct SocketPair {
  SocketPair() { EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, end), 0); }
  ~SocketPair() {
    close(end[0]);
    if (end[1] >= 0) close(end[1]);
  }
  void Say() { EXPECT_EQ(write(end[1], "x", 1), 1); }
  int end[2];
};

TEST(EpollPoller, DeadlineIsExactEnough) {
  auto poller = *EpollPoller::Create();
  Ready ready[4];
  const Nanos start = poller->Now();
  EXPECT_EQ(poller->Wait(ready, start + 3 * kMs), 0u);
  const Nanos waited = poller->Now() - start;
  EXPECT_GE(waited, 3 * kMs);
  EXPECT_LT(waited, 3 * kMs + 2000 * kMs);  // generous: busy machines
  EXPECT_EQ(poller->Wait(ready, 0), 0u);    // long past: only a look
}

TEST(EpollPoller, ReportsWhatIsWatched) {
  auto poller = *EpollPoller::Create();
  SocketPair pair;
  Ready ready[4];
  poller->Watch(pair.end[0], 42, true, false);
  EXPECT_EQ(poller->Wait(ready, 0), 0u);
  pair.Say();
  for (int level_triggered = 0; level_triggered < 2; ++level_triggered) {
    ASSERT_EQ(poller->Wait(ready, kNever), 1u);
    EXPECT_EQ(ready[0].tag, 42u);
    EXPECT_TRUE(ready[0].readable);
    EXPECT_FALSE(ready[0].writable);
  }
  poller->Change(pair.end[0], 43, false, true);
  ASSERT_EQ(poller->Wait(ready, kNever), 1u);
  EXPECT_EQ(ready[0].tag, 43u);
  EXPECT_FALSE(ready[0].readable);
  EXPECT_TRUE(ready[0].writable);
  poller->Unwatch(pair.end[0]);
  EXPECT_EQ(poller->Wait(ready, 0), 0u);
}

// A broken connection that is watched for nothing. Expect: silence, then news when watched again.
TEST(EpollPoller, WatchedForNeitherStaysSilent) {
  auto poller = *EpollPoller::Create();
  SocketPair pair;
  Ready ready[4];
  poller->Watch(pair.end[0], 1, true, false);
  poller->Change(pair.end[0], 1, false, false);
  close(pair.end[1]);
  pair.end[1] = -1;
  EXPECT_EQ(poller->Wait(ready, 0), 0u);
  poller->Change(pair.end[0], 1, false, true);
  ASSERT_EQ(poller->Wait(ready, kNever), 1u);
  EXPECT_TRUE(ready[0].readable);  // hang-up
}

// Expect: a wake before the wait counts, once; a wake during it ends it (NoWakeIsLost, too).
TEST(EpollPoller, Wake) {
  auto poller = *EpollPoller::Create();
  Ready ready[4];
  poller->Wake();
  poller->Wake();
  EXPECT_EQ(poller->Wait(ready, kNever), 0u);
  EXPECT_EQ(poller->Wait(ready, poller->Now() + kMs), 0u);
  std::thread other([&] { poller->Wake(); });
  EXPECT_EQ(poller->Wait(ready, kNever), 0u);
  other.join();
}

// Many wakes against many waits. Expect: each request is seen (the test would hang otherwise).
TEST(EpollPoller, NoWakeIsLost) {
  auto poller = *EpollPoller::Create();
  constexpr int kRounds = 20000;
  std::atomic<int> asked{0}, seen{0};
  std::thread waiter([&] {
    Ready ready[4];
    while (seen.load() < kRounds) {
      poller->Wait(ready, kNever);
      seen.store(asked.load());
    }
  });
  for (int i = 1; i <= kRounds; ++i) {
    asked.store(i);
    poller->Wake();
    if (i % 16 == 0) {
      while (seen.load() < i) std::this_thread::yield();
    }
  }
  waiter.join();
  EXPECT_EQ(seen.load(), kRounds);
}

class Crank final : public Service {
 public:
  explicit Crank(World& world) : world_(world) {}
  bool Turn(Nanos deadline) override {
    Ready ready[8];
    world_.poller().Wait(ready, deadline);
    if (turns_.fetch_add(1) == 0) {
      char name[16] = {};
      pthread_getname_np(pthread_self(), name, sizeof(name));
      name_ = name;
      sigset_t mask;
      pthread_sigmask(SIG_SETMASK, nullptr, &mask);
      signals_blocked_ = sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGCHLD) == 1;
    }
    world_.Changed();
    return true;
  }
  Nanos NextDeadline() const override { return kNever; }

  std::atomic<int> turns_{0};
  std::string name_;
  bool signals_blocked_ = false;

 private:
  World& world_;
};

// Expect: turned on a thread named verbena, without signals, only when there is something to do;
// stopped and started again at will.
TEST(KernelWorld, TurnsItsService) {
  auto world = *NewKernelWorld();
  for (int round = 0; round < 3; ++round) {
    Crank crank(*world);
    world->Start(&crank);
    world->poller().Wake();
    EXPECT_TRUE(world->Await([&] { return crank.turns_.load() > 0; }, kNever));
    const auto pass = [&](Nanos time) {
      world->Await([] { return false; }, world->poller().Now() + time);
    };
    pass(kMs);
    const int turns = crank.turns_.load();
    pass(20 * kMs);
    // A wake left over from Stop may still come.
    EXPECT_LE(crank.turns_.load(), turns + 1) << "an idle service thread runs";
    world->Stop(&crank);
    EXPECT_EQ(crank.name_, "verbena");
    EXPECT_TRUE(crank.signals_blocked_);
  }
}

TEST(KernelWorld, AwaitTimesOut) {
  auto world = *NewKernelWorld();
  const Nanos start = world->poller().Now();
  EXPECT_FALSE(world->Await([] { return false; }, start + 2 * kMs));
  EXPECT_GE(world->poller().Now(), start + 2 * kMs);
  EXPECT_TRUE(world->Await([] { return true; }, 0));
}

// The change comes right after the n-th look, before the waiter can sleep. Expect: it does not
// sleep for ever (the test would hang).
TEST(KernelWorld, ChangeBetweenLookAndSleep) {
  auto world = *NewKernelWorld();
  for (int n = 1; n <= 3; ++n) {
    int looks = 0;
    const auto ready = [&] {
      const bool answer = looks >= n;
      if (++looks == n) world->Changed();
      return answer;
    };
    // Looks after the second need a reason to be taken.
    std::atomic<bool> done{false};
    std::thread other([&] {
      while (n > 2 && !done.load()) world->Changed();
    });
    EXPECT_TRUE(world->Await(ready, kNever));
    done.store(true);
    other.join();
  }
}

// Two threads hand a number to and fro with relaxed stores, the weakest a caller may use.
// Expect: no hand-over sleeps for ever (the test would hang).
TEST(KernelWorld, NoChangeIsLost) {
  auto world = *NewKernelWorld();
  constexpr int kRounds = 20000;
  std::atomic<int> turn{0};
  const auto play = [&](int parity) {
    for (int i = parity; i < kRounds; i += 2) {
      ASSERT_TRUE(world->Await([&] { return turn.load(std::memory_order_relaxed) == i; }, kNever));
      turn.store(i + 1, std::memory_order_relaxed);
      world->Changed();
    }
  };
  std::thread odd([&] { play(1); });
  play(0);
  odd.join();
  EXPECT_EQ(turn.load(), kRounds);
}

}  // namespace
}  // namespace verbena::io
