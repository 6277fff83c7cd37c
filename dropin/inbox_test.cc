// SPDX-License-Identifier: Apache-2.0
#include "dropin/inbox.h"

#include <poll.h>

#include <future>
#include <thread>

#include "gtest/gtest.h"

namespace verbena::dropin {
namespace {

TEST(Inbox, WhatAnEventIsOfLearnsOfItBeforeItCanGo) {
  // While an event is taken, the object that it is of is destroyed: it drops its events, and then
  // asks whether any was taken.
  // Expect: by then it has been told.
  Inbox<int> inbox;
  inbox.Push(1);
  bool told = false, told_when_dropped = false;
  std::future<void> destroyed;
  int event = 0;
  ASSERT_TRUE(inbox.Take(&event, [&](int) {
    destroyed = std::async(std::launch::async, [&] {
      inbox.Drop([](int) { return true; });
      told_when_dropped = told;
    });
    for (int i = 0; i < 1000; ++i) std::this_thread::yield();  // it may come as far as it can
    told = true;
  }));
  destroyed.get();
  EXPECT_TRUE(told_when_dropped);
}

TEST(Inbox, DroppedEventsAreNotToBeSeen) {
  // Two of three events are dropped.
  // Expect: the descriptor is readable for the one that is left, and no longer.
  Inbox<int> inbox;
  for (int i : {1, 2, 3}) inbox.Push(i);
  inbox.Drop([](int i) { return i != 2; });
  pollfd readable{inbox.fd(), POLLIN, 0};
  ASSERT_EQ(poll(&readable, 1, 0), 1);
  int event = 0;
  ASSERT_TRUE(inbox.Take(&event, [](int) {}));
  EXPECT_EQ(event, 2);
  EXPECT_EQ(poll(&readable, 1, 0), 0);
}

}  // namespace
}  // namespace verbena::dropin
