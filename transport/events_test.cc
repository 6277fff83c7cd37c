// SPDX-License-Identifier: Apache-2.0
#include "transport/events.h"

#include <poll.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "transport/fake_provider.h"

namespace verbena {
namespace {

bool Readable(const EventQueue& queue) {
  pollfd fd = {queue.fd(), POLLIN, 0};
  return poll(&fd, 1, 0) == 1 && (fd.revents & POLLIN) != 0;
}

class Events : public testing::Test {
 protected:
  void Push(const void* object, uint32_t number) {
    queue.Push(object, Event{.type = EventType::kDisconnected, .qp_number = number});
  }
  // The queue pair of the next event; 0: there is none.
  uint32_t Take() {
    const auto event = queue.TryNext();
    return event.has_value() ? event->qp_number : 0;
  }

  fake::Context context;
  EventQueue queue{&context};
  int a = 0, b = 0;  // two objects
};

TEST_F(Events, FirstInFirstOut) {
  EXPECT_FALSE(queue.TryNext().has_value());
  for (uint32_t i = 1; i <= 5; ++i) Push(&a, i);
  for (uint32_t i = 1; i <= 5; ++i) EXPECT_EQ(Take(), i);
  EXPECT_EQ(Take(), 0u);
}

TEST_F(Events, CarryAllThatWasPushed) {
  queue.Push(&a, Event{.type = EventType::kRejected,
                       .context = &b,
                       .qp_number = 7,
                       .private_data = std::string("no\0room", 7),
                       .status = absl::AbortedError("rejected")});
  const auto event = queue.TryNext();
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->type, EventType::kRejected);
  EXPECT_EQ(event->context, &b);
  EXPECT_EQ(event->qp_number, 7u);
  EXPECT_EQ(event->private_data.size(), 7u);
  EXPECT_EQ(event->status, absl::AbortedError("rejected"));
}

// Level-triggered: readable while anything waits, however often it is polled.
TEST_F(Events, DescriptorIsReadableWhileEventsWait) {
  EXPECT_FALSE(Readable(queue));
  Push(&a, 1);
  Push(&a, 2);
  EXPECT_TRUE(Readable(queue));
  EXPECT_TRUE(Readable(queue));
  Take();
  EXPECT_TRUE(Readable(queue));
  Take();
  EXPECT_FALSE(Readable(queue));
  Push(&a, 3);
  EXPECT_TRUE(Readable(queue));
}

TEST_F(Events, ForgetDropsOneObjectsOnly) {
  Push(&a, 1);
  Push(&b, 2);
  Push(&a, 3);
  Push(&b, 4);
  queue.Forget(&a);
  EXPECT_EQ(Take(), 2u);
  EXPECT_EQ(Take(), 4u);
  EXPECT_EQ(Take(), 0u);
}

TEST_F(Events, ForgettingTheLastOneEndsReadiness) {
  Push(&a, 1);
  queue.Forget(&b);
  EXPECT_TRUE(Readable(queue));
  queue.Forget(&a);
  EXPECT_FALSE(Readable(queue));
}

TEST_F(Events, NextTakesWhatIsThere) {
  Push(&a, 1);
  const auto event = queue.Next(absl::ZeroDuration());
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->qp_number, 1u);
}

TEST_F(Events, NextWaits) {
  context.steps = {[] {}, [this] { Push(&a, 9); }};
  const auto event = queue.Next();
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->qp_number, 9u);
  EXPECT_EQ(context.awaited, absl::InfiniteDuration());
}

TEST_F(Events, NextTimesOut) {
  const auto event = queue.Next(absl::Milliseconds(20));
  EXPECT_EQ(event.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_NE(event.status().message().find("event queue: no event came within 20ms"),
            std::string::npos)
      << event.status();
}

// Four push and four take: each event is taken once, and in the order of its pusher.
TEST_F(Events, ManyThreads) {
  constexpr uint32_t kEach = 2000;
  std::atomic<uint32_t> taken = 0;
  std::atomic<int> disorder = 0;
  std::vector<std::thread> threads;
  for (uint32_t pusher = 0; pusher < 4; ++pusher) {
    threads.emplace_back([this, pusher] {
      for (uint32_t i = 1; i <= kEach; ++i) Push(&a, pusher << 16 | i);
    });
  }
  for (int taker = 0; taker < 4; ++taker) {
    threads.emplace_back([&] {
      uint32_t last[4] = {};
      while (taken.load() < 4 * kEach) {
        const uint32_t number = Take();
        if (number == 0) {
          std::this_thread::yield();
          continue;
        }
        uint32_t& before = last[number >> 16];
        if ((number & 0xffff) <= before) ++disorder;
        before = number & 0xffff;
        ++taken;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(taken.load(), 4 * kEach);
  EXPECT_EQ(disorder.load(), 0);
  EXPECT_FALSE(Readable(queue));
}

}  // namespace
}  // namespace verbena
