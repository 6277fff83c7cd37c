// SPDX-License-Identifier: Apache-2.0
// Part of verbs_test: completion channels, and the signals that meet whoever waits there.
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <future>
#include <thread>

#include "gtest/gtest.h"
#include "tests/dropin/verbs_fixture.h"

namespace verbena::dropin {
namespace {

TEST_F(Verbs, AChannelIsReadableExactlyWhileAnEventWaits) {
  // The descriptor is polled, blocking and not.
  // Expect: not readable before; readable with the event; EAGAIN when it was taken.
  Connect();
  ASSERT_EQ(Receive(1, 0, 8, 1), 0);
  ASSERT_EQ(ibv_req_notify_cq(cq_[1], 0), 0);
  pollfd poll_one{channel_->fd, POLLIN, 0};
  EXPECT_EQ(poll(&poll_one, 1, 0), 0);
  ASSERT_EQ(Send(0, 16, 8, 2), 0);
  ASSERT_EQ(poll(&poll_one, 1, 20'000), 1);
  ibv_cq* cq = nullptr;
  void* of = nullptr;
  ASSERT_EQ(ibv_get_cq_event(channel_, &cq, &of), 0);
  EXPECT_EQ(cq, cq_[1]);
  EXPECT_EQ(poll(&poll_one, 1, 0), 0);
  ASSERT_EQ(fcntl(channel_->fd, F_SETFL, O_NONBLOCK), 0);
  EXPECT_EQ(ibv_get_cq_event(channel_, &cq, &of), -1);
  EXPECT_EQ(errno, EAGAIN);
  ibv_ack_cq_events(cq_[1], 1);
  EXPECT_EQ(Next(cq_[1]).wr_id, 1u);
}

// A signal every 10 ms, until the test ends.
volatile std::sig_atomic_t signals = 0;
class Alarms {
 public:
  explicit Alarms(int flags) {
    signals = 0;
    struct sigaction action {};
    action.sa_flags = flags;
    action.sa_handler = [](int) {
      signals = signals + 1;
      if (signals < 2000) return;
      constexpr char kText[] = "nothing ended the wait\n";
      (void)!write(STDERR_FILENO, kText, sizeof kText - 1);
      _exit(1);
    };
    sigaction(SIGALRM, &action, &before_);
    const itimerval every{{0, 10'000}, {0, 10'000}};
    setitimer(ITIMER_REAL, &every, nullptr);
  }
  ~Alarms() {
    const itimerval never{};
    setitimer(ITIMER_REAL, &never, nullptr);
    sigaction(SIGALRM, &before_, nullptr);
  }

 private:
  struct sigaction before_;
};

TEST_F(Verbs, SignalsEndTheWaitForAnEvent) {
  // A thread waits for an event, of which there is none, and a handler without SA_RESTART runs.
  // Expect: EINTR, as from the read(2) that it stands for.
  const Alarms alarms(0);
  ibv_cq* cq = nullptr;
  void* of = nullptr;
  EXPECT_EQ(ibv_get_cq_event(channel_, &cq, &of), -1);
  EXPECT_EQ(errno, EINTR);
}

TEST_F(Verbs, SignalsThatRestartDoNotEndIt) {
  // The same with SA_RESTART; after a few signals there is an event.
  // Expect: the event.
  Connect();
  ASSERT_EQ(Receive(1, 0, 8, 1), 0);
  ASSERT_EQ(ibv_req_notify_cq(cq_[1], 0), 0);
  const Alarms alarms(SA_RESTART);
  const auto sent = std::async(std::launch::async, [this] {
    while (signals < 5) std::this_thread::yield();
    return Send(0, 16, 8, 2);
  });
  ibv_cq* cq = nullptr;
  void* of = nullptr;
  ASSERT_EQ(ibv_get_cq_event(channel_, &cq, &of), 0);
  EXPECT_EQ(cq, cq_[1]);
  ibv_ack_cq_events(cq, 1);
}

TEST_F(Verbs, NobodyToNotify) {
  // A completion queue without a channel is armed.
  // Expect: no mistake, as with drivers.
  ibv_cq* const cq = ibv_create_cq(context_, 16, nullptr, nullptr, 0);
  ASSERT_NE(cq, nullptr);
  EXPECT_EQ(ibv_req_notify_cq(cq, 0), 0);
  EXPECT_EQ(ibv_destroy_cq(cq), 0);
}

}  // namespace
}  // namespace verbena::dropin
