// SPDX-License-Identifier: Apache-2.0
// When an iWARP device is given its requests, and that each of them completes once and in order.
#include <atomic>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "verbs/iwarp_fixture.h"

namespace verbena::verbs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

TEST_F(IwarpPosts, ConfirmedRequestsHaveAReadBehindThem) {
  Connect(16, true);
  for (int i = 0; i < 3; ++i) {
    the_driver.given.clear();
    the_driver.completed = 0;
    ASSERT_TRUE(Post(Request(Opcode::kWrite, SendFlags::kSignaled)).ok());
    ASSERT_THAT(the_driver.given, SizeIs(2));
    EXPECT_EQ(the_driver.given[0].opcode, IBV_WR_RDMA_WRITE);
    EXPECT_EQ(the_driver.given[1].opcode, IBV_WR_RDMA_READ);
    EXPECT_THAT(Completions(), SizeIs(1));
  }
}

TEST_F(IwarpPosts, AnotherConnectionMayBeConfirmed) {
  // One that is not, and behind RESET one that is; a read, which needs no confirmation, comes
  // first. Expect: the write is confirmed, though the same one was not before.
  const SendWr write = Request(Opcode::kWrite, SendFlags::kSignaled);
  const SendWr read = Request(Opcode::kRead, SendFlags::kSignaled);
  for (const bool confirmed : {false, true}) {
    Connect(16, confirmed);
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(Post(read).ok());
      the_driver.given.clear();
      the_driver.completed = 0;
      ASSERT_TRUE(Post(write).ok());
      EXPECT_THAT(the_driver.given, SizeIs(confirmed ? 2 : 1));
      (void)Completions();
    }
    ASSERT_TRUE(qp_->Modify({.state = QpState::kReset}).ok());
    ASSERT_TRUE(qp_->Modify({.state = QpState::kInit}).ok());
  }
}

TEST_F(IwarpPosts, ReadsTooManyWaitAndNothingOvertakesThem) {
  // Three reads may be in flight, and the driver completes nothing for a while.
  // Expect: it gets two of them, then nothing; when it completes them, the rest in order.
  Connect(3);
  for (int round = 0; round < 3; ++round) {
    the_driver.given.clear();
    the_driver.completed = 0;
    for (uint64_t id = 1; id <= 6; ++id) {
      const Opcode opcode = id <= 4 ? Opcode::kRead : Opcode::kWrite;
      ASSERT_TRUE(Post(Request(opcode, SendFlags::kSignaled, id)).ok());
    }
    EXPECT_THAT(the_driver.given, SizeIs(2));
    std::vector<uint64_t> ids;
    for (int i = 0; i < 1000 && ids.size() < 6; ++i) {
      for (const WorkCompletion& wc : Completions()) ids.push_back(wc.id);
    }
    EXPECT_THAT(ids, ElementsAre(1, 2, 3, 4, 5, 6));
    const std::lock_guard lock(the_driver.mutex);
    ASSERT_THAT(the_driver.given, SizeIs(6));
    for (uint64_t i = 0; i < 6; ++i) EXPECT_EQ(the_driver.given[i].remote, i + 1);
  }
}

TEST_F(IwarpPosts, ThreadsPostInTheOrderOfTheirPlacesAndNotInSqd) {
  // Threads post writes, and reads that have to wait, while the send queue is stopped and goes on.
  // Expect: the driver gets all of them, one at a time, in the order of their places and so of each
  // thread's posts; none while it is stopped.
  Connect(2);
  constexpr uint64_t kThreads = 3, kPosts = 600;
  const absl::Time end = absl::Now() + absl::Seconds(30);
  std::atomic<uint64_t> running = kThreads, failed = 0;
  const auto post = [&](uint64_t thread) {
    for (uint64_t i = 1; i <= kPosts; ++i) {
      SendWr wr = Request(i % 7 == 0 ? Opcode::kRead : Opcode::kWrite, SendFlags::kSignaled);
      if (i % 11 == 0) wr.flags = wr.flags | SendFlags::kFence;
      wr.remote.address = thread << 32 | i;
      PostResult result;
      do {
        result = Post(wr);
        if (!result.ok()) sched_yield();
      } while (result.error == PostError::kQueueFull && absl::Now() < end);
      if (!result.ok()) ++failed;
    }
    --running;
  };
  std::atomic<uint64_t> seen = 0;
  const auto poll = [&] {
    while (seen < kThreads * kPosts && absl::Now() < end) seen += Completions().size();
  };
  const auto stop = [&] {
    while (running > 0) {
      // What was in the driver when it stops completes, and asks for that by a read of its own.
      if (!qp_->Modify({.state = QpState::kSqd}).ok()) ++failed;
      the_driver.closed = true;
      for (int i = 0; i < 20; ++i) sched_yield();
      the_driver.closed = false;
      if (!qp_->Modify({.state = QpState::kRts}).ok()) ++failed;
      for (int i = 0; i < 20; ++i) sched_yield();
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < kThreads; ++i) threads.emplace_back(post, i);
  threads.emplace_back(poll);
  threads.emplace_back(stop);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed, 0u);
  EXPECT_EQ(seen, kThreads * kPosts);
  EXPECT_EQ(the_driver.together, 0);
  EXPECT_EQ(the_driver.intruders, 0);
  const std::lock_guard lock(the_driver.mutex);
  ASSERT_THAT(the_driver.given, SizeIs(kThreads * kPosts));
  std::vector<uint64_t> last(kThreads, 0);
  for (size_t i = 0; i < the_driver.given.size(); ++i) {
    const Given& each = the_driver.given[i];
    if (i > 0) {
      ASSERT_LT(static_cast<int64_t>(the_driver.given[i - 1].name - each.name), 0);
    }
    ASSERT_EQ(each.remote & 0xffffffff, ++last.at(each.remote >> 32));
  }
}

TEST_F(IwarpPosts, APollForOneTellsWhatItIs) {
  // A receive, a read and a write, whose lengths come from different places; and one that completes
  // silently in SQD, whose end the device tells by a read of its own.
  // Expect: three completions, and none of that read.
  room_ = 1;
  Connect(16);
  for (int round = 0; round < 100; ++round) {
    const ReceiveWr receive{.local = At(0, 8), .id = 4};
    ASSERT_TRUE(qp_->PostReceive({&receive, 1}).ok());
    std::vector<WorkCompletion> done = Completions();
    ASSERT_THAT(done, SizeIs(1));
    EXPECT_EQ(done[0].opcode, WcOpcode::kReceive);
    EXPECT_EQ(done[0].length, 5u);
    EXPECT_EQ(done[0].id, 4u);
    for (const Opcode opcode : {Opcode::kRead, Opcode::kWrite}) {
      ASSERT_TRUE(Post(Request(opcode, SendFlags::kSignaled, 9)).ok());
      done = Completions();
      ASSERT_THAT(done, SizeIs(1));
      EXPECT_TRUE(done[0].ok());
      EXPECT_EQ(done[0].opcode, CompletionOf(opcode));
      EXPECT_EQ(done[0].length, opcode == Opcode::kRead ? 8u : 0u);
      EXPECT_FALSE(done[0].has_immediate || done[0].has_invalidated);
      EXPECT_EQ(done[0].immediate_or_key, 0u);
      EXPECT_EQ(done[0].vendor_error, 0u);
    }
  }
  service_->Stop();  // which looks as well while the queue drains
  ASSERT_TRUE(Post(Request(Opcode::kWrite, SendFlags::kNone)).ok());
  ASSERT_TRUE(qp_->Modify({.state = QpState::kSqd}).ok());
  EXPECT_EQ(the_driver.given.back().opcode, IBV_WR_RDMA_READ);
  EXPECT_THAT(Completions(), IsEmpty());
  EXPECT_THAT(Completions(), IsEmpty());
  ASSERT_TRUE(qp_->Modify({.state = QpState::kRts}).ok());
}

TEST_F(IwarpPosts, WhatAPollHoldsWhileOthersFlushIsToldOnce) {
  // One thread has taken completions from the device; the queue pair goes to ERR, and another
  // thread polls, before the first one delivers. Expect: each request completes once.
  Connect(16);
  for (uint64_t id = 1; id <= 3; ++id) {
    ASSERT_TRUE(
        Post(Request(id == 2 ? Opcode::kRead : Opcode::kSend, SendFlags::kSignaled, id)).ok());
  }
  std::vector<WorkCompletion> all, others;
  the_driver.after_poll = [&] {
    EXPECT_TRUE(qp_->Modify({.state = QpState::kErr}).ok());
    others = Completions();
  };
  all = Completions();
  all.insert(all.end(), others.begin(), others.end());
  for (const WorkCompletion& late : Completions()) all.push_back(late);
  std::vector<uint64_t> ids;
  for (const WorkCompletion& wc : all) ids.push_back(wc.id);
  EXPECT_THAT(ids, testing::UnorderedElementsAre(1, 2, 3));
}

TEST_F(IwarpPosts, TheOneThatAPollHoldsWhileOthersFlushIsToldOnce) {
  // The same with polls for one, each of which may be disturbed.
  // Expect: each request completes once, whichever it was, and as what it was.
  room_ = 1;
  for (int disturbed = 1; disturbed <= 3; ++disturbed) {
    Connect(16);
    the_driver.given.clear();
    the_driver.completed = 0;
    for (uint64_t id = 1; id <= 3; ++id) {
      ASSERT_TRUE(
          Post(Request(id == 2 ? Opcode::kRead : Opcode::kSend, SendFlags::kSignaled, id)).ok());
    }
    std::vector<WorkCompletion> all;
    for (int i = 1; i <= 10; ++i) {
      if (i == disturbed) {
        the_driver.after_poll = [&] {
          EXPECT_TRUE(qp_->Modify({.state = QpState::kErr}).ok());
          for (const WorkCompletion& wc : Completions()) all.push_back(wc);
        };
      }
      for (const WorkCompletion& wc : Completions()) all.push_back(wc);
    }
    std::vector<uint64_t> ids;
    for (const WorkCompletion& wc : all) {
      ids.push_back(wc.id);
      EXPECT_EQ(wc.opcode, wc.id == 2 ? WcOpcode::kRead : WcOpcode::kSend);
      EXPECT_TRUE(wc.ok() || wc.status == WcStatus::kFlushed ||
                  wc.status == WcStatus::kRemoteOperationError);
    }
    EXPECT_THAT(ids, testing::UnorderedElementsAre(1, 2, 3));
    ASSERT_TRUE(qp_->Modify({.state = QpState::kReset}).ok());
    ASSERT_TRUE(qp_->Modify({.state = QpState::kInit}).ok());
  }
}

}  // namespace
}  // namespace verbena::verbs
