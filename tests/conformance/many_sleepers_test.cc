// SPDX-License-Identifier: Apache-2.0
// Several threads sleep on what one queue pair reports: docs/decisions/0012-waiting.md. Each is
// woken for what is his, whoever moves the bytes.
#include <array>
#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

class ManySleepers : public Conformance {};
INSTANTIATE_TEST_SUITE_P(All, ManySleepers, testing::ValuesIn(KernelProviders()),
                         [](const auto& info) { return info.param.name; });

constexpr int kThreads = 4;
constexpr uint64_t kRounds = 200;

TEST_P(ManySleepers, WhoFindsTheQueueEmptySleepsOn) {
  // Four threads wait for one completion each, on one queue, again and again. The next request is
  // posted when the last one's completion is taken, so that all are woken for one.
  // Expect: no Wait ends without a completion.
  Pair pair = MakePair(*this);
  constexpr uint64_t kEach = 200;
  std::atomic<uint64_t> taken = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (uint64_t k = 0; k < kEach; ++k) {
        EXPECT_THAT(pair.client->cq.Wait(1, kLong), IsOk());
        ++taken;
      }
    });
  }
  for (uint64_t i = 0; i < kThreads * kEach; ++i) {
    Post(pair.client->qp, {.opcode = Opcode::kWrite,
                           .local = pair.client->slice(0, 8),
                           .remote = pair.server->at(0)});
    EXPECT_TRUE(RunUntil([&] { return taken > i; }));
  }
  for (std::thread& each : threads) each.join();
}

TEST_P(ManySleepers, OnOneChannel) {
  // Four threads sleep in Next and arm again; four others send and Wait on one queue.
  // Expect: every message arrives, though no thread has a queue pair of its own.
  // Who serves may be late by all that one of the others sends.
  Pair pair = MakePair(*this, {.server = {.limits = {.max_receive_wr = kRounds}, .channel = true}});
  std::vector<QueuePair> ours, theirs;
  for (int i = 0; i < kThreads; ++i) {
    ours.push_back(pair.client->NewQueuePair());
    theirs.push_back(pair.server->NewQueuePair());
    Connect(*this, ours.back(), theirs.back());
  }
  std::atomic<uint64_t> received = 0;
  const auto serve = [&] {
    std::array<WorkCompletion, 8> done;
    while (received.load() < kThreads * kRounds) {
      Check(pair.server->cq.RequestNotify());
      size_t n = pair.server->cq.Poll(done);
      if (n == 0) (void)pair.server->channel.Next(kAWhile);
      if (n == 0) n = pair.server->cq.Poll(done);
      for (size_t i = 0; i < n; ++i) EXPECT_TRUE(done[i].ok());
      received += n;
    }
  };
  const auto send = [&](size_t which) {
    for (uint64_t i = 0; i < kRounds; ++i) {
      // Two threads may place two messages at once: each connection has memory of its own.
      PostReceive(theirs[which], {.local = pair.server->slice(64 * which, 64)});
      Post(ours[which], {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8)});
      EXPECT_THAT(pair.client->cq.Wait(1, kLong), IsOk());
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back(serve);
    threads.emplace_back(send, i);
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(received.load(), kThreads * kRounds);
}

TEST_P(ManySleepers, OnTheTwoQueuesOfOneQueuePair) {
  // One thread Waits for the receives, one for the sends of the same queue pair, one is polling.
  // Expect: everybody gets what is his.
  Pair pair =
      MakePair(*this, Both({.limits = {.max_receive_wr = kRounds}, .separate_receive_cq = true}));
  const auto receive = [&](End& end) {
    for (uint64_t i = 0; i < kRounds; ++i) EXPECT_THAT(end.receive_cq.Wait(1, kLong), IsOk());
  };
  const auto send = [&](End& from, End& to) {
    for (uint64_t i = 0; i < kRounds; ++i) {
      PostReceive(to.qp, {.local = to.slice(0, 64)});
      Post(from.qp, {.opcode = Opcode::kSend, .local = from.slice(64, 8)});
      EXPECT_THAT(from.cq.Wait(1, kLong), IsOk());
    }
  };
  std::vector<std::thread> threads;
  threads.emplace_back(receive, std::ref(*pair.server));
  threads.emplace_back(receive, std::ref(*pair.client));
  threads.emplace_back(send, std::ref(*pair.server), std::ref(*pair.client));
  threads.emplace_back(send, std::ref(*pair.client), std::ref(*pair.server));
  for (std::thread& thread : threads) thread.join();
}

TEST_P(ManySleepers, TwoChannelsOfOneQueuePair) {
  // Sends report to one channel, receives to another; both are armed, each has a sleeper.
  // Expect: each event arrives where it belongs.
  Pair pair = MakePair(*this);
  Device& device = pair.server->device;
  CompletionChannel sends = Check(device.CreateCompletionChannel());
  CompletionChannel receives = Check(device.CreateCompletionChannel());
  CompletionQueue send_cq =
      Check(device.CreateCompletionQueue({.entries = 1024, .channel = &sends, .context = &sends}));
  CompletionQueue receive_cq = Check(
      device.CreateCompletionQueue({.entries = 1024, .channel = &receives, .context = &receives}));
  QueuePair theirs = Check(pair.server->pd.CreateQueuePair(
      {.send_cq = &send_cq, .receive_cq = &receive_cq, .limits = {.max_receive_wr = kRounds}}));
  QueuePair ours = pair.client->NewQueuePair();
  Connect(*this, ours, theirs);
  const auto loop = [](CompletionChannel& channel, CompletionQueue& cq,
                       const std::function<void()>& again) {
    for (uint64_t i = 0; i < kRounds; ++i) {
      WorkCompletion wc;
      again();
      Check(cq.RequestNotify());
      while (cq.Poll({&wc, 1}) == 0) {
        const absl::StatusOr<CqEvent> event = channel.Next(kLong);
        ASSERT_THAT(event, IsOk());
        EXPECT_EQ(event->context, &channel);
        Check(cq.RequestNotify());
      }
      EXPECT_TRUE(wc.ok());
    }
  };
  for (uint64_t i = 0; i < kRounds; ++i) {
    PostReceive(theirs, {.local = pair.server->slice(0, 64)});
  }
  std::thread receiver([&] { loop(receives, receive_cq, [] {}); });
  std::thread sender([&] {
    for (uint64_t i = 0; i < kRounds; ++i) {
      Post(ours, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8)});
      EXPECT_THAT(pair.client->cq.Wait(1, kLong), IsOk());
    }
  });
  loop(sends, send_cq,
       [&] { Post(theirs, OneSided(Opcode::kWrite, *pair.server, pair.client->at(64), 1)); });
  sender.join();
  receiver.join();
}

}  // namespace
}  // namespace verbena::conformance
