// SPDX-License-Identifier: Apache-2.0
// Completion events: ibv_req_notify_cq(3), ibv_get_cq_event(3); IBTA 11.4.2.2.
#include <sys/epoll.h>
#include <unistd.h>

#include <vector>

#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

class Channels : public Conformance {
 protected:
  // A pair whose server reports completions of sends and receives to one channel.
  Pair MakeNotified() {
    return MakePair(*this, {.server = {.separate_receive_cq = true, .channel = true}});
  }
  void Send(Pair& pair, SendFlags flags = SendFlags::kNone) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 64), .id = 1});
    Post(pair.client->qp,
         {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = 2, .flags = flags});
  }
  // The event's context; null if none comes.
  void* NextEvent(End& end, absl::Duration limit = kLong) {
    absl::StatusOr<CqEvent> event = end.channel.Next(limit);
    return event.ok() ? event->context : nullptr;
  }
};
CONFORMANCE_RUN(Channels);

TEST_P(Channels, ArmedQueueMakesAnEvent) {
  // Arm, then a message.
  // Expect: an event with the queue's context, and then the completion.
  Pair pair = MakeNotified();
  Check(pair.server->receive_cq.RequestNotify());
  Send(pair);
  EXPECT_EQ(NextEvent(*pair.server), &pair.server->receive_cq);
  EXPECT_THAT(WaitOne(pair.server->receive_cq), Succeeded(1));
  EXPECT_EQ(pair.server->receive_cq.counters().notifications, 1u);
}

TEST_P(Channels, UnarmedQueueMakesNone) {
  // Expect: no event without RequestNotify.
  Pair pair = MakeNotified();
  Send(pair);
  EXPECT_THAT(WaitOne(pair.server->receive_cq), Succeeded(1));
  EXPECT_EQ(NextEvent(*pair.server, kAWhile), nullptr);
}

TEST_P(Channels, OneEventPerArming) {
  // Arm once, three messages; arm again, one message.
  // Expect: one event each time.
  Pair pair = MakeNotified();
  Check(pair.server->receive_cq.RequestNotify());
  for (int i = 0; i < 3; ++i) Send(pair);
  WaitFor(pair.server->receive_cq, 3);
  EXPECT_NE(NextEvent(*pair.server), nullptr);
  EXPECT_EQ(NextEvent(*pair.server, kAWhile), nullptr);
  Check(pair.server->receive_cq.RequestNotify());
  Send(pair);
  EXPECT_NE(NextEvent(*pair.server), nullptr);
}

TEST_P(Channels, ArmingTwiceIsArmingOnce) {
  // Expect: one event though RequestNotify was called twice before it.
  Pair pair = MakeNotified();
  Check(pair.server->receive_cq.RequestNotify());
  Check(pair.server->receive_cq.RequestNotify());
  Send(pair);
  EXPECT_NE(NextEvent(*pair.server), nullptr);
  EXPECT_EQ(NextEvent(*pair.server, kAWhile), nullptr);
}

TEST_P(Channels, EntriesThatAreThereMakeNoEvent) {
  // A completion waits; arm; then another comes.
  // Expect: no event for the first, one for the second: poll once more after arming.
  Pair pair = MakeNotified();
  Send(pair);
  WaitFor(pair.client->cq, 1);  // applied at the server
  RunFor(kAWhile);
  Check(pair.server->receive_cq.RequestNotify());
  EXPECT_EQ(NextEvent(*pair.server, kAWhile), nullptr);
  Send(pair);
  EXPECT_NE(NextEvent(*pair.server), nullptr);
  WaitFor(pair.server->receive_cq, 2);
}

TEST_P(Channels, SolicitedArmingIgnoresOthers) {
  // Arm for solicited; a plain message, then a solicited one.
  // Expect: no event for the first, one for the second (ibv_post_send(3), IBV_SEND_SOLICITED).
  Pair pair = MakeNotified();
  Check(pair.server->receive_cq.RequestNotify(Notify::kSolicited));
  Send(pair);
  WaitFor(pair.server->receive_cq, 1);
  EXPECT_EQ(NextEvent(*pair.server, kAWhile), nullptr);
  Send(pair, SendFlags::kSolicited);
  EXPECT_NE(NextEvent(*pair.server), nullptr);
}

TEST_P(Channels, SolicitedWriteWithImm) {
  // Expect: a solicited WriteWithImm counts, as a solicited send does.
  if (!client().devices()[0]->capabilities().immediate) GTEST_SKIP() << "capability: immediate";
  Pair pair = MakeNotified();
  Check(pair.server->receive_cq.RequestNotify(Notify::kSolicited));
  PostReceive(pair.server->qp, {.id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kWriteWithImm,
                         .local = pair.client->slice(0, 100),
                         .remote = pair.server->at(0),
                         .id = 2,
                         .flags = SendFlags::kSolicited,
                         .immediate = 1});
  EXPECT_NE(NextEvent(*pair.server), nullptr);
}

TEST_P(Channels, ErrorsCountAsSolicited) {
  // Armed for solicited; the connection ends and flushes a receive (IBTA 11.4.2.2).
  // Expect: an event.
  Pair pair = MakeNotified();
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 64), .id = 1});
  Check(pair.server->receive_cq.RequestNotify(Notify::kSolicited));
  Check(pair.client->qp.Disconnect());
  EXPECT_NE(NextEvent(*pair.server), nullptr);
  EXPECT_THAT(WaitOne(pair.server->receive_cq), Flushed(1));
}

TEST_P(Channels, AnyOverridesSolicited) {
  // Armed for solicited, then for any; a plain message.
  // Expect: an event: the wider request stands (IBTA 11.4.2.2).
  Pair pair = MakeNotified();
  Check(pair.server->receive_cq.RequestNotify(Notify::kSolicited));
  Check(pair.server->receive_cq.RequestNotify(Notify::kAny));
  Send(pair);
  EXPECT_NE(NextEvent(*pair.server), nullptr);
}

TEST_P(Channels, SolicitedDoesNotNarrowAny) {
  // Armed for any, then for solicited; a plain message.
  // Expect: an event all the same (IBTA 11.4.2.2).
  Pair pair = MakeNotified();
  Check(pair.server->receive_cq.RequestNotify(Notify::kAny));
  Check(pair.server->receive_cq.RequestNotify(Notify::kSolicited));
  Send(pair);
  EXPECT_NE(NextEvent(*pair.server), nullptr);
}

TEST_P(Channels, SendCompletionsAreNotSolicited) {
  // The server's own sends complete while it is armed for solicited only, then for any.
  // Expect: no event, then one.
  Pair pair = MakeNotified();
  Check(pair.server->cq.RequestNotify(Notify::kSolicited));
  Post(pair.server->qp, OneSided(Opcode::kWrite, *pair.server, pair.client->at(0), 1));
  WaitFor(pair.server->cq, 1);
  EXPECT_EQ(NextEvent(*pair.server, kAWhile), nullptr);
  Check(pair.server->cq.RequestNotify(Notify::kAny));
  Post(pair.server->qp, OneSided(Opcode::kWrite, *pair.server, pair.client->at(0), 1));
  EXPECT_EQ(NextEvent(*pair.server), &pair.server->cq);
}

TEST_P(Channels, TwoQueuesOnOneChannel) {
  // Both queues are armed; both get completions.
  // Expect: one event of each.
  Pair pair = MakeNotified();
  Check(pair.server->cq.RequestNotify());
  Check(pair.server->receive_cq.RequestNotify());
  Send(pair);
  Post(pair.server->qp, OneSided(Opcode::kWrite, *pair.server, pair.client->at(0), 3));
  void* const first = NextEvent(*pair.server);
  void* const second = NextEvent(*pair.server);
  EXPECT_THAT((std::vector{first, second}),
              testing::UnorderedElementsAre(static_cast<void*>(&pair.server->cq),
                                            static_cast<void*>(&pair.server->receive_cq)));
}

TEST_P(Channels, DescriptorWakesEpoll) {
  // The server waits in epoll on the channel's descriptor; nobody polls its queue.
  // Expect: the descriptor becomes readable and TryNext has the event.
  Pair pair = MakeNotified();
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event want{.events = EPOLLIN, .data = {}};
  ASSERT_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, pair.server->channel.fd(), &want), 0);
  Check(pair.server->receive_cq.RequestNotify());
  Send(pair);
  CqEvent event;
  const bool came = RunUntil([&] {
    epoll_event ready;
    // Readiness may be spurious: the answer is TryNext's.
    return epoll_wait(epoll, &ready, 1, 0) == 1 && pair.server->channel.TryNext(&event);
  });
  close(epoll);
  ASSERT_TRUE(came);
  EXPECT_EQ(event.context, &pair.server->receive_cq);
}

TEST_P(Channels, EventLoopOfAThousandMessages) {
  // The usual loop: arm, poll until empty, wait for the event; the sender sends one by one.
  // Expect: no message is missed and none needs a timeout.
  Pair pair = MakeNotified();
  for (uint64_t i = 0; i < 1000; ++i) {
    Check(pair.server->receive_cq.RequestNotify());
    WorkCompletion wc;
    ASSERT_EQ(pair.server->receive_cq.Poll({&wc, 1}), 0u);
    Send(pair);
    ASSERT_NE(NextEvent(*pair.server), nullptr) << "message " << i;
    ASSERT_EQ(pair.server->receive_cq.Poll({&wc, 1}), 1u);
    ASSERT_THAT(WaitOne(pair.client->cq), Succeeded(2));
  }
}

TEST_P(Channels, NotifyNeedsAChannel) {
  // Expect: FailedPrecondition for a queue without one.
  Pair pair = MakePair(*this);
  EXPECT_THAT(pair.server->cq.RequestNotify(), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_P(Channels, NextHasADeadline) {
  // Expect: DeadlineExceeded when no event comes.
  Pair pair = MakeNotified();
  EXPECT_THAT(pair.server->channel.Next(kAWhile), StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_P(Channels, NoEventOfAClosedQueue) {
  // An event is queued; its queue is closed.
  // Expect: the event is gone with it: its context may be.
  Pair pair = MakeNotified();
  Check(pair.server->cq.RequestNotify());
  Post(pair.server->qp, OneSided(Opcode::kWrite, *pair.server, pair.client->at(0), 1));
  ASSERT_TRUE(RunUntil([&] { return pair.server->cq.counters().notifications > 0; }));
  Check(pair.server->qp.Close());
  Check(pair.server->cq.Close());
  CqEvent event;
  EXPECT_FALSE(pair.server->channel.TryNext(&event));
}

}  // namespace
}  // namespace verbena::conformance
