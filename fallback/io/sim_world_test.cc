// SPDX-License-Identifier: Apache-2.0
// Services on a simulated network: who turns them, and how time passes while they wait.
#include <errno.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "fallback/io/sim_network.h"
#include "gtest/gtest.h"

namespace verbena::io {
namespace {

constexpr Nanos kMs = 1'000'000;
constexpr uint64_t kListenerTag = 1, kStreamTag = 2;

Address Ip(const char* ip, uint16_t port = 0) { return *Address::FromIp(ip, port); }

// Sends back what it is sent.
class Echo final : public Service {
 public:
  explicit Echo(World& world) : world_(world) {
    listener_ = *world.streams().Listen(Ip("0.0.0.0", 7471), 4);
    world.poller().Watch(listener_, kListenerTag, true, false);
    world.Start(this);
  }
  ~Echo() override { world_.Stop(this); }

  bool Turn(Nanos deadline) override {
    world_.Nudge();  // expect: nothing, as a turn is under way
    Ready ready[4];
    const size_t count = world_.poller().Wait(ready, deadline);
    for (size_t i = 0; i < count; ++i) {
      if (ready[i].tag == kListenerTag) Take();
      if (ready[i].tag == kStreamTag) Move(ready[i].readable);
    }
    return count != 0;
  }
  Nanos NextDeadline() const override { return kNever; }

 private:
  void Take() {
    stream_ = world_.streams().Accept(listener_);
    ASSERT_GE(stream_, 0);
    world_.poller().Watch(stream_, kStreamTag, true, false);
  }
  void Move(bool readable) {
    char buffer[512];
    const iovec room{buffer, sizeof(buffer)};
    const ssize_t got = readable ? world_.streams().Receive(stream_, {&room, 1}) : -EAGAIN;
    if (got > 0) pending_.append(buffer, got);
    const iovec data{pending_.data(), pending_.size()};
    const ssize_t sent = pending_.empty() ? 0 : world_.streams().Send(stream_, {&data, 1});
    if (sent > 0) pending_.erase(0, sent);
    world_.poller().Change(stream_, kStreamTag, true, !pending_.empty());
  }

  World& world_;
  Socket listener_, stream_ = kNoSocket;
  std::string pending_;
};

// Sends `text` and collects the echo, with Await as its only engine.
std::string Ask(World& world, const std::string& text) {
  Streams& streams = world.streams();
  const Socket socket = *streams.Connect(Ip("10.0.0.2", 7471), {});
  absl::Status connected;
  EXPECT_TRUE(world.Await(
      [&] {
        connected = streams.ConnectResult(socket);
        return connected.ok();
      },
      world.poller().Now() + 100 * kMs))
      << connected;
  std::string answer;
  size_t sent = 0;
  EXPECT_TRUE(world.Await(
      [&] {
        const iovec data{const_cast<char*>(text.data()) + sent, text.size() - sent};
        const ssize_t count = sent < text.size() ? streams.Send(socket, {&data, 1}) : 0;
        if (count > 0) sent += count;
        char buffer[256];
        const iovec room{buffer, sizeof(buffer)};
        for (ssize_t got; (got = streams.Receive(socket, {&room, 1})) > 0;) {
          answer.append(buffer, got);
        }
        return answer.size() == text.size();
      },
      kNever));
  streams.Close(socket, false);
  return answer;
}

// Expect: one thread drives both ends to the goal, the same way each time.
TEST(SimWorld, AwaitTurnsAllServices) {
  const std::string text(5000, 'v');
  std::vector<std::string> runs;
  for (int run = 0; run < 2; ++run) {
    SimOptions options;
    options.seed = 42;
    SimNetwork network(options);
    auto client = network.NewWorld("10.0.0.1"), server = network.NewWorld("10.0.0.2");
    Echo echo(*server);
    EXPECT_EQ(Ask(*client, text), text) << network.Describe();
    runs.push_back(std::to_string(network.Now()) + " " + network.Describe());
  }
  EXPECT_EQ(runs[0], runs[1]);
}

// Expect: a deadline is reached at once in real time, exactly in virtual time.
TEST(SimWorld, AwaitJumpsToTheDeadline) {
  SimNetwork network;
  auto world = network.NewWorld("10.0.0.1");
  const Nanos deadline = network.Now() + 3600'000 * kMs;
  EXPECT_FALSE(world->Await([] { return false; }, deadline));
  EXPECT_EQ(network.Now(), deadline);
}

class Timer final : public Service {
 public:
  Timer(World& world, Nanos period) : world_(world), period_(period) {
    next_ = world.poller().Now() + period;
    world.Start(this);
  }
  ~Timer() override { world_.Stop(this); }
  bool Turn(Nanos) override {
    if (world_.poller().Now() < next_) return false;
    next_ += period_;
    ++fired_;
    return true;
  }
  Nanos NextDeadline() const override { return next_; }

  int fired_ = 0;

 private:
  World& world_;
  const Nanos period_;
  Nanos next_;
};

// Expect: the clock stops at each service's deadline, none is jumped over.
TEST(SimWorld, TimersFire) {
  SimNetwork network;
  auto one = network.NewWorld("10.0.0.1"), two = network.NewWorld("10.0.0.2");
  Timer slow(*one, 10 * kMs), fast(*two, 3 * kMs);
  EXPECT_FALSE(one->Await([] { return false; }, network.Now() + 100 * kMs));
  EXPECT_NEAR(slow.fired_, 10, 1);
  EXPECT_NEAR(fast.fired_, 33, 1);
}

// Expect: a poll loop makes time pass, by a microsecond at least and a millisecond at most.
TEST(SimWorld, NudgeLetsTimePass) {
  SimNetwork network;
  auto world = network.NewWorld("10.0.0.1");
  Nanos before = network.Now();
  world->Nudge();
  EXPECT_EQ(network.Now() - before, kMs);
  Timer timer(*world, 5000);
  before = network.Now();
  world->Nudge();
  EXPECT_EQ(network.Now() - before, 5000);
  world->Nudge();
  EXPECT_EQ(timer.fired_, 1);
  EXPECT_EQ(network.Now() - before, 6000);
}

// Nothing can happen. Expect: an answer after a bounded real time, with a word on stderr.
TEST(SimWorld, DeadlockEnds) {
  SimOptions options;
  options.idle_real_ms = 50;
  SimNetwork network(options);
  auto world = network.NewWorld("10.0.0.1");
  testing::internal::CaptureStderr();
  EXPECT_FALSE(world->Await([] { return false; }, kNever));
  EXPECT_NE(testing::internal::GetCapturedStderr().find("nothing will ever happen"),
            std::string::npos);
}

// A thread awaits what another real thread does later. Expect: it is woken, no deadlock is called,
// and a virtual time-out of seconds does not strike while the other thread takes milliseconds.
TEST(SimWorld, OtherThreadsMayAct) {
  SimNetwork network;
  auto world = network.NewWorld("10.0.0.1");
  std::atomic<int> turn{0};
  std::thread other([&] {
    for (int i = 1; i < 200; i += 2) {
      EXPECT_TRUE(world->Await([&] { return turn.load() == i; }, kNever));
      turn.store(i + 1);
      world->Changed();
    }
  });
  for (int i = 0; i < 200; i += 2) {
    EXPECT_TRUE(world->Await([&] { return turn.load() == i; }, network.Now() + 60'000 * kMs));
    turn.store(i + 1);
    world->Changed();
  }
  other.join();
  EXPECT_EQ(turn.load(), 200);
}

// One echo server, clients on threads of their own, one of them a poller. Expect: no hang, no race.
TEST(SimWorld, ThreadsShareTheCrank) {
  SimNetwork network;
  auto client = network.NewWorld("10.0.0.1"), server = network.NewWorld("10.0.0.2");
  Echo echo(*server);
  std::atomic<bool> done{false};
  std::thread poller([&] {
    while (!done.load()) server->Nudge();
  });
  EXPECT_EQ(Ask(*client, std::string(3000, 'x')), std::string(3000, 'x')) << network.Describe();
  done.store(true);
  poller.join();
}

}  // namespace
}  // namespace verbena::io
