// SPDX-License-Identifier: Apache-2.0
// Who sleeps on a channel or a queue moves the bytes itself: docs/decisions/0012-waiting.md. To
// show it, the service is sent away while others sleep; and it steps in where nobody comes.
#include <sys/epoll.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "fallback/io/forwarding.h"
#include "fallback/io/kernel_world.h"
#include "fallback/provider.h"
#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

// Counts the calls of Receive, those too that bring nothing.
class CountingStreams final : public io::ForwardingStreams {
 public:
  using ForwardingStreams::ForwardingStreams;
  uint64_t receives() const { return receives_.load(); }

  ssize_t Receive(io::Socket socket, std::span<const iovec> into) override {
    receives_.fetch_add(1);
    return ForwardingStreams::Receive(socket, into);
  }

 private:
  std::atomic<uint64_t> receives_ = 0;
};

// The kernel's world, whose service can be sent away.
class Unattended final : public io::ForwardingWorld, io::Service {
 public:
  using ForwardingWorld::ForwardingWorld;

  CountingStreams& streams() override { return streams_; }
  void Start(io::Service* service) override {
    service_ = service;
    ForwardingWorld::Start(this);
  }
  void Stop(io::Service*) override {
    SendAway(false);
    ForwardingWorld::Stop(this);
  }

  // Returns when it has left.
  void SendAway(bool away) {
    std::unique_lock lock(mutex_);
    away_ = away;
    changed_.notify_all();
    if (!away) return;
    poller().Wake();
    changed_.wait(lock, [this] { return left_; });
  }
  // While it is away: what it would do now.
  void TurnOnce() { service_->Turn(0); }

 private:
  bool Turn(io::Nanos deadline) override {
    {
      std::unique_lock lock(mutex_);
      left_ = away_;
      changed_.notify_all();
      changed_.wait(lock, [this] { return !away_; });
      left_ = false;
    }
    return service_->Turn(deadline);
  }
  io::Nanos NextDeadline() const override { return service_->NextDeadline(); }

  CountingStreams streams_{inner().streams()};
  io::Service* service_ = nullptr;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool away_ = false;
  bool left_ = false;
};

class UnattendedGround final : public Ground {
 public:
  absl::StatusOr<Context> NewHost() override {
    absl::StatusOr<std::unique_ptr<io::World>> kernel = io::NewKernelWorld();
    if (!kernel.ok()) return kernel.status();
    auto world = std::make_unique<Unattended>(*std::move(kernel));
    worlds_.push_back(world.get());
    auto provider = fallback::OpenOn(std::move(world), "");
    if (!provider.ok()) return provider.status();
    return Context::OpenOn(*std::move(provider));
  }
  std::string address(int) const override { return "127.0.0.1"; }
  bool simulated() const override { return false; }
  bool Cut(const QueuePair&) override { return false; }
  bool Silence(bool) override { return false; }

  std::vector<Unattended*> worlds_;
};

class Sleepers : public ConformanceBase {
 protected:
  void SetUp() override {
    Open({"unattended", [this](const std::string&) {
            auto ground = std::make_unique<UnattendedGround>();
            ground_ = ground.get();
            return ground;
          }});
  }
  void TearDown() override {
    Services(true);
    ConformanceBase::TearDown();
  }
  void Services(bool present) {
    for (Unattended* world : ground_->worlds_) world->SendAway(!present);
  }
  // Whose server reports sends and receives to one channel, each from a queue of its own.
  Pair MakeNotified() {
    Pair pair = MakePair(*this, {.server = {.separate_receive_cq = true, .channel = true}});
    for (uint64_t i = 0; i < kMessages; ++i) {
      PostReceive(pair.server->qp, {.local = pair.server->slice(0, 64), .id = i});
    }
    return pair;
  }
  // Where the server is armed and a message has come, which nobody has taken; and no services.
  Pair MakeUnserved() {
    Pair pair = MakeNotified();
    Check(pair.server->receive_cq.RequestNotify());
    Send(pair, 0);
    EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(0));
    Check(pair.server->receive_cq.RequestNotify());
    Services(false);
    return pair;
  }
  void Send(Pair& pair, uint64_t id) {
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = id});
  }

  static constexpr uint64_t kMessages = 100;
  UnattendedGround* ground_ = nullptr;
};

// Takes what there is; the number of the next one.
uint64_t Take(CompletionQueue& cq, uint64_t next) {
  WorkCompletion wc;
  while (cq.Poll({&wc, 1}) == 1) EXPECT_THAT(wc, Succeeded(next++));
  return next;
}

TEST_F(Sleepers, NextNeedsNoService) {
  // A thread sleeps in Next, another in Wait; both services are away.
  // Expect: all messages arrive, and all are acknowledged.
  Pair pair = MakeUnserved();
  CompletionQueue& cq = pair.server->receive_cq;
  std::thread server([&] {
    for (uint64_t next = Take(cq, 0); next < kMessages;) {
      Check(cq.RequestNotify());
      const uint64_t before = next;
      next = Take(cq, next);
      if (next > before) continue;
      EXPECT_THAT(pair.server->channel.Next(kLong), IsOk());
      next = Take(cq, next);
    }
    Check(cq.RequestNotify());
    Take(cq, kMessages);  // who arms looks once more, and the last acknowledgement goes
  });
  for (uint64_t i = 1; i < kMessages; ++i) {
    Send(pair, i);
    EXPECT_THAT(pair.client->cq.Wait(1, kLong), IsOk()) << i;
  }
  server.join();
}

TEST_F(Sleepers, AnAnswerTakesTheAcknowledgementAlong) {
  // The server sleeps in Next and answers each message. Both services are away, which would look
  // after acknowledgements that wait.
  // Expect: a send call for each answer, not two; and no receive call for what is not there, since
  // who arms and looks owes nothing any more.
  Pair pair = MakeUnserved();
  CompletionQueue& cq = pair.server->receive_cq;
  const uint64_t before = pair.server->qp.counters().send_calls;
  const CountingStreams& streams = ground_->worlds_.front()->streams();  // the server's
  const uint64_t received = streams.receives();
  std::thread server([&] {
    Take(cq, 0);
    uint64_t own = 1;
    for (uint64_t i = 1; i < kMessages; ++i) {
      Check(cq.RequestNotify());
      while (Take(cq, i) == i) EXPECT_THAT(pair.server->channel.Next(kLong), IsOk());
      Post(pair.server->qp, {.opcode = Opcode::kWrite,
                             .local = pair.server->slice(0, 8),
                             .remote = pair.client->at(64),
                             .id = i});
      own = Take(pair.server->cq, own);
    }
  });
  for (uint64_t i = 1; i < kMessages; ++i) {
    Send(pair, i);
    EXPECT_THAT(pair.client->cq.Wait(1, kLong), IsOk()) << i;
  }
  server.join();
  EXPECT_LT(pair.server->qp.counters().send_calls - before, kMessages + kMessages / 4);
  EXPECT_LT(streams.receives() - received, kMessages + kMessages / 4);
}

TEST_F(Sleepers, TheDescriptorIsProgress) {
  // The program's own epoll has the channel's descriptor; the service is away.
  // Expect: the descriptor is readable for each message, and TryNext makes the event of it.
  Pair pair = MakeNotified();
  CompletionQueue& cq = pair.server->receive_cq;
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event want{.events = EPOLLIN, .data = {}};
  ASSERT_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, pair.server->channel.fd(), &want), 0);
  Check(cq.RequestNotify());
  Services(false);
  for (uint64_t i = 0; i < kMessages; ++i) {
    Send(pair, i);
    CqEvent event;
    epoll_event ready;
    do {
      ASSERT_EQ(epoll_wait(epoll, &ready, 1, 10'000), 1) << i;
    } while (!pair.server->channel.TryNext(&event));
    EXPECT_EQ(event.context, &cq);
    EXPECT_EQ(Take(cq, i), i + 1);
    Check(cq.RequestNotify());
    EXPECT_EQ(Take(cq, i + 1), i + 1);
  }
  close(epoll);
}

TEST_F(Sleepers, WhoTurnsToPollingNeedsNoService) {
  // Armed, an event, and then the program only polls; the service is away.
  // Expect: all messages arrive.
  Pair pair = MakeNotified();
  CompletionQueue& cq = pair.server->receive_cq;
  Check(cq.RequestNotify());
  Services(false);
  Send(pair, 0);
  ASSERT_THAT(pair.server->channel.Next(kLong), IsOk());
  ASSERT_EQ(Take(cq, 0), 1u);
  for (uint64_t i = 1; i < kMessages; ++i) {
    Send(pair, i);
    ASSERT_TRUE(RunUntil([&] { return Take(cq, i) == i + 1; })) << i;
  }
}

TEST_F(Sleepers, WhoKeepsPollingNeedsNoServiceWhenItBeginsAgain) {
  // Messages, then 20 ms of polls that find nothing; then the service is away. Before, it has its
  // turn after each poll: on a busy machine, its own thread would find a poller that is held up.
  // Expect: polls find the next messages.
  Pair pair = MakePair(*this, {.server = {.limits = {.max_receive_wr = 2 * kMessages}}});
  for (uint64_t i = 0; i < 2 * kMessages; ++i) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 64), .id = i});
  }
  Unattended& servers = *ground_->worlds_.front();
  servers.SendAway(true);
  CompletionQueue& cq = pair.server->cq;
  bool away = false;
  uint64_t next = 0;
  const auto poll = [&] {
    next = Take(cq, next);
    if (!away) servers.TurnOnce();
  };
  const auto send = [&](uint64_t id) {
    Send(pair, id);
    ASSERT_TRUE(Spin([&] {
      poll();
      return next == id + 1;
    })) << id;
    EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(id));
  };
  for (uint64_t i = 0; i < kMessages; ++i) ASSERT_NO_FATAL_FAILURE(send(i));
  const absl::Time end = absl::Now() + absl::Milliseconds(20);
  while (absl::Now() < end) poll();
  away = true;
  for (uint64_t i = kMessages; i < 2 * kMessages; ++i) ASSERT_NO_FATAL_FAILURE(send(i));
}

TEST_F(Sleepers, ASendQueueThatIsPolledNeedsNoService) {
  // The receive queue is armed; the send queue of the same queue pair is polled. No service.
  // Expect: the polls find the acknowledgements of the server's writes.
  Pair pair = MakeNotified();
  Check(pair.server->receive_cq.RequestNotify());
  ground_->worlds_.front()->SendAway(true);  // the server's
  for (uint64_t i = 0; i < kMessages; ++i) {
    Post(pair.server->qp, OneSided(Opcode::kWrite, *pair.server, pair.client->at(0), i));
    ASSERT_TRUE(RunUntil([&] { return Take(pair.server->cq, i) == i + 1; })) << i;
  }
}

TEST_F(Sleepers, ALargeAnswerLeavesWhileTheTargetSleeps) {
  // 16 reads of 256 KiB; the target's thread sleeps on its channel, the service is away.
  // Expect: all complete: the sleeper is woken when the socket takes more.
  Pair pair = MakeNotified();
  Check(pair.server->receive_cq.RequestNotify());
  Fill(pair.server->buffer.bytes(), 1);
  ground_->worlds_.front()->SendAway(true);
  std::thread server([&] { EXPECT_THAT(pair.server->channel.Next(kLong), IsOk()); });
  for (uint64_t i = 0; i < 16; ++i) {
    Post(pair.client->qp, OneSided(Opcode::kRead, *pair.client, pair.server->at(0), i, 256 << 10));
  }
  for (const WorkCompletion& wc : WaitFor(pair.client->cq, 16)) EXPECT_TRUE(wc.ok());
  EXPECT_THAT(pair.client->buffer.bytes(), HasPattern(1));
  Send(pair, 0);  // the event that ends the sleep
  server.join();
}

CONFORMANCE_SUITE(Unserved);

TEST_P(Unserved, AnArmedTargetThatNeverLooks) {
  // Armed, and then nothing of the server's is called; reads, writes and messages come.
  // Expect: all complete.
  Pair pair = MakePair(*this, {.server = {.channel = true}});
  for (uint64_t i = 0; i < 60; ++i) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 64), .id = i});
  }
  Check(pair.server->cq.RequestNotify());
  for (uint64_t i = 0; i < 60; ++i) {
    if (i % 3 == 0) {
      Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = i});
    } else {
      const Opcode opcode = i % 3 == 1 ? Opcode::kRead : Opcode::kWrite;
      Post(pair.client->qp, OneSided(opcode, *pair.client, pair.server->at(0), i));
    }
    ASSERT_THAT(WaitOne(pair.client->cq), Succeeded(i));
  }
}

TEST_P(Unserved, AnEventThatNobodyTakesCostsNothing) {
  // An event waits in the channel, its queue pair in the channel's set; nobody does anything.
  // Expect: the service sleeps, although the descriptor is readable all the time.
  if (simulated()) GTEST_SKIP() << "world: its service is turned by those who wait";
  Pair pair = MakePair(*this, {.server = {.channel = true}});
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 64), .id = 1});
  Check(pair.server->cq.RequestNotify());
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = 2});
  ASSERT_THAT(WaitOne(pair.client->cq), Succeeded(2));
  ASSERT_TRUE(WaitReadable(pair.server->channel.fd()));
  const auto wakeups = [&] { return pair.server->device.counters().service_wakeups; };
  uint64_t before = wakeups();
  EXPECT_TRUE(RunUntil([&] {  // it looks around a few times more
    RunFor(kAWhile);
    return std::exchange(before, wakeups()) == wakeups();
  }));
  Check(pair.server->cq.RequestNotify());  // into the set again
  RunFor(kAWhile);
  before = wakeups();
  RunFor(4 * kAWhile);
  EXPECT_EQ(wakeups(), before);
}

TEST_P(Unserved, ClosedWhileItsSocketIsReady) {
  // Messages wait in the socket of a queue pair that is armed; everything is closed.
  // Expect: it closes, and the other queue pair of the channel works on.
  Pair pair = MakePair(*this, {.server = {.channel = true}});
  QueuePair ours = pair.client->NewQueuePair(), theirs = pair.server->NewQueuePair();
  Connect(*this, ours, theirs);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 64), .id = 1});
  Check(pair.server->cq.RequestNotify());
  Post(ours, {.opcode = Opcode::kWrite,
              .local = pair.client->slice(0, 8),
              .remote = pair.server->at(64),
              .id = 2});
  Check(theirs.Close());
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = 3});
  EXPECT_THAT(pair.server->channel.Next(kLong), IsOk());
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(1));
}

}  // namespace
}  // namespace verbena::conformance
