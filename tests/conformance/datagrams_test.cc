// SPDX-License-Identifier: Apache-2.0
// Unreliable datagrams that arrive: IBTA 9.8.3 (UD), ibv_post_send(3). What does not:
// datagram_drops_test.cc.
#include "tests/conformance/datagrams.h"

#include <cstring>
#include <vector>

namespace verbena::conformance {
namespace {

CONFORMANCE_RUN(Datagrams);

TEST_P(Datagrams, ArriveBehindTheirGrh) {
  // 100 bytes into a receive of 200.
  // Expect: length 140, the sender's number and address, the message from byte 40 on, and the rest
  // untouched.
  Two two = MakeTwo();
  Fill(two.client->bytes(0, 100), 1);
  const WorkCompletion got =
      Deliver(*two.client, *two.server,
              {.local = two.client->slice(0, 100), .id = 2, .to = To(two.to_server, *two.server)},
              {.local = two.server->slice(0, 200), .id = 1});
  ASSERT_THAT(got, Succeeded(1));
  EXPECT_EQ(got.opcode, WcOpcode::kReceive);
  EXPECT_EQ(got.length, kGrhBytes + 100);
  EXPECT_EQ(got.qp_number, two.server->qp.number());
  EXPECT_EQ(got.source_qp, two.client->qp.number());
  EXPECT_TRUE(got.has_immediate);
  EXPECT_TRUE(got.has_grh);
  const Grh grh = Check(ReadGrh(two.server->bytes(0, kGrhBytes)));
  EXPECT_EQ(grh.source, client_address());
  EXPECT_EQ(grh.destination, server_address());
  EXPECT_GT(grh.hop_limit, 0);
  EXPECT_THAT(two.server->bytes(kGrhBytes, 100), HasPattern(1));
  EXPECT_THAT(two.server->bytes(kGrhBytes + 100, 60), IsZero());
}

TEST_P(Datagrams, OfEverySizeUpToTheLimit) {
  // No byte, one, and as many as there may be, from memory and inline; one more.
  // Expect: they arrive whole; the last is refused at the post, and takes no place.
  Two two = MakeTwo({.limits = {.max_inline = 64}});
  const uint32_t most = two.server->device.attributes().max_datagram;
  ASSERT_GE(most, 1024u);
  Fill(two.client->bytes(0, most), 2);
  for (const uint32_t size : {0u, 1u, 64u, most - 1, most}) {
    std::memset(two.server->buffer.data(), 0, kGrhBytes + most);
    const WorkCompletion got = Deliver(*two.client, *two.server,
                                       {.local = two.client->slice(0, size),
                                        .id = 2,
                                        .flags = size == 64 ? SendFlags::kInline : SendFlags::kNone,
                                        .to = To(two.to_server, *two.server)},
                                       {.local = two.server->slice(0, kGrhBytes + most), .id = 1});
    ASSERT_THAT(got, Succeeded(1));
    EXPECT_EQ(got.length, kGrhBytes + size);
    EXPECT_THAT(two.server->bytes(kGrhBytes, size - size % 8), HasPattern(2)) << size;
    EXPECT_THAT(two.server->bytes(kGrhBytes + size, most - size), IsZero()) << size;
  }
  const Sge over = two.client->slice(0, most + 1);
  EXPECT_THAT(two.client->qp.PostSend({.local = over, .to = To(two.to_server, *two.server)}),
              Refused(PostError::kMessageTooLong));
  EXPECT_EQ(two.client->qp.Query().send_outstanding, 0u);
}

TEST_P(Datagrams, GatheredAndScattered) {
  // Three entries out; four in, of which the GRH takes one and a half.
  // Expect: one message, wherever it was cut.
  Two two = MakeTwo();
  Fill(two.client->bytes(0, 96), 3);
  const Sge from[] = {two.client->slice(0, 8), two.client->slice(8, 80), two.client->slice(88, 8)};
  const Sge to[] = {two.server->slice(0, 30), two.server->slice(100, 20),
                    two.server->slice(200, 80), two.server->slice(300, 6)};
  const WorkCompletion got =
      Deliver(*two.client, *two.server,
              {.local = std::span<const Sge>(from), .id = 2, .to = To(two.to_server, *two.server)},
              {.local = std::span<const Sge>(to), .id = 1});
  ASSERT_THAT(got, Succeeded(1));
  std::vector<std::byte> whole;
  for (const auto& part : {two.server->bytes(0, 30), two.server->bytes(100, 20),
                           two.server->bytes(200, 80), two.server->bytes(300, 6)}) {
    whole.insert(whole.end(), part.begin(), part.end());
  }
  EXPECT_THAT(std::span(whole).subspan(kGrhBytes), HasPattern(3));
  EXPECT_EQ(Check(ReadGrh(whole)).source, client_address());
}

TEST_P(Datagrams, OneQueuePairHearsManyAndAnswersEach) {
  // Two senders; the receiver makes address handles of what it receives, and answers.
  // Expect: each gets its own answer.
  Two two = MakeTwo();
  auto third = NewEnd(client());
  AddressHandle to_server = HandleTo(*third, server_address());
  for (End* sender : {two.client.get(), third.get()}) {
    AddressHandle& there = sender == third.get() ? to_server : two.to_server;
    const WorkCompletion got = Deliver(
        *sender, *two.server, {.local = sender->slice(0, 8), .id = 2, .to = To(there, *two.server)},
        {.local = two.server->slice(0, 200), .id = 1});
    ASSERT_THAT(got, Succeeded(1));
    EXPECT_EQ(got.source_qp, sender->qp.number());
    AddressHandle back =
        HandleTo(*two.server, Check(ReadGrh(two.server->bytes(0, kGrhBytes))).source);
    const WorkCompletion answer =
        Deliver(*two.server, *sender,
                {.local = two.server->slice(0, 8), .id = 3, .to = {&back, got.source_qp, kQkey}},
                {.local = sender->slice(0, 200), .id = 4});
    ASSERT_THAT(answer, Succeeded(4));
    EXPECT_EQ(answer.source_qp, two.server->qp.number());
  }
}

TEST_P(Datagrams, ToItself) {
  // A queue pair sends to its own address and number.
  // Expect: it arrives.
  auto end = NewEnd(server());
  AddressHandle here = HandleTo(*end, server_address());
  Fill(end->bytes(0, 64), 4);
  const WorkCompletion got =
      Deliver(*end, *end, {.local = end->slice(0, 64), .id = 2, .to = To(here, *end)},
              {.local = end->slice(1000, 200), .id = 1});
  ASSERT_THAT(got, Succeeded(1));
  EXPECT_EQ(got.source_qp, end->qp.number());
  EXPECT_THAT(end->bytes(1000 + kGrhBytes, 64), HasPattern(4));
}

TEST_P(Datagrams, TheHighestBitSendsTheOwnQkey) {
  // A send whose Q_Key has the highest bit set, from a queue pair whose own Q_Key is the peer's.
  // Expect: the own one goes, and it arrives.
  Two two = MakeTwo();
  EXPECT_THAT(Deliver(*two.client, *two.server,
                      {.local = two.client->slice(0, 8),
                       .id = 2,
                       .to = To(two.to_server, *two.server, kOwnQkey | 0x123)},
                      {.local = two.server->slice(0, 200), .id = 1}),
              Succeeded(1));
}

TEST_P(Datagrams, OnlySendsAreTaken) {
  // Every other operation.
  // Expect: refused at the post, and a send without an address handle too.
  Two two = MakeTwo();
  for (const Opcode op :
       {Opcode::kSendWithInvalidate, Opcode::kWrite, Opcode::kWriteWithImm, Opcode::kRead,
        Opcode::kCompareSwap, Opcode::kFetchAdd, Opcode::kLocalInvalidate, Opcode::kBindWindow}) {
    EXPECT_THAT(
        two.client->qp.PostSend(
            {.opcode = op, .local = two.client->slice(0, 8), .to = To(two.to_server, *two.server)}),
        Refused(PostError::kInvalidOpcode));
  }
  EXPECT_THAT(two.client->qp.PostSend({.opcode = Opcode::kSend, .local = two.client->slice(0, 8)}),
              Refused(PostError::kNoDestination));
  two.to_server = {};
  AddressHandle closed;
  EXPECT_THAT(two.client->qp.PostSend({.opcode = Opcode::kSend,
                                       .local = two.client->slice(0, 8),
                                       .to = To(closed, *two.server)}),
              Refused(PostError::kNoDestination));
}

TEST_P(Datagrams, ASharedReceiveQueueServesThem) {
  // Two queue pairs on one shared receive queue.
  // Expect: each datagram takes one receive, and its completion has the right queue pair.
  auto sender = NewEnd(client());
  AddressHandle there = HandleTo(*sender, server_address());
  EndOptions options;
  options.shared_receive_queue = SrqLimits{.max_wr = 64};
  auto one = NewEnd(server(), options);
  QueuePair other = one->NewQueuePair();
  MoveToRts(other);
  for (uint64_t id = 0; id < 32; ++id) {
    Check(one->srq.PostReceive({.local = one->slice(id * 200, 200), .id = id}));
  }
  EXPECT_THAT(one->qp.PostReceive({.id = 1}), Refused(PostError::kUsesSharedQueue));
  for (const QueuePair* to : {&one->qp, &other}) {
    bool came = false;
    for (int i = 0; i < 10 && !came; ++i) {
      Post(sender->qp, {.opcode = Opcode::kSend,
                        .local = sender->slice(0, 8),
                        .id = 2,
                        .to = {&there, to->number(), kQkey}});
      EXPECT_THAT(WaitOne(sender->cq), Succeeded(2));
      WorkCompletion got;
      while (!came && RunUntil(
                          [&] {
                            return one->receives().Poll({&got, 1}) == 1;
                          },
                          absl::Milliseconds(20))) {
        EXPECT_TRUE(got.ok());
        came = got.qp_number == to->number();
      }
    }
    EXPECT_TRUE(came);
  }
}

TEST_P(Datagrams, ABlockedChannelWakes) {
  // Arm, send, and wait on the channel; solicited or not.
  // Expect: an event, and then the completion.
  EndOptions options;
  options.channel = true;
  auto to = NewEnd(server(), options);
  auto from = NewEnd(client());
  AddressHandle there = HandleTo(*from, server_address());
  for (const bool solicited : {false, true}) {
    for (int i = 0; i < 32; ++i) {
      PostReceive(to->qp, {.local = to->slice(0, 200), .id = 1});
    }
    Check(to->receives().RequestNotify(solicited ? Notify::kSolicited : Notify::kAny));
    absl::StatusOr<CqEvent> event = absl::UnknownError("none");
    for (int i = 0; i < 10 && !event.ok(); ++i) {
      Post(from->qp, {.opcode = Opcode::kSend,
                      .local = from->slice(0, 8),
                      .id = 2,
                      .flags = solicited ? SendFlags::kSolicited : SendFlags::kNone,
                      .to = To(there, *to)});
      EXPECT_THAT(WaitOne(from->cq), Succeeded(2));
      event = to->channel.Next(absl::Milliseconds(200));
    }
    ASSERT_THAT(event, IsOk());
    EXPECT_EQ(event->context, &to->receive_cq);
    EXPECT_THAT(WaitOne(to->receives()), Succeeded(1));
  }
}

TEST_P(Datagrams, PollsBringThem) {
  // Both ends only poll, as a busy program does.
  // Expect: many round trips, none of which needs anybody else.
  Two two = MakeTwo();
  AddressHandle back = HandleTo(*two.server, client_address());
  constexpr int kRounds = 50;
  for (int i = 0; i < kRounds; ++i) {
    for (const bool there : {true, false}) {
      End& from = there ? *two.client : *two.server;
      End& to = there ? *two.server : *two.client;
      PostReceive(to.qp, {.local = to.slice(0, 200), .id = 1});
      WorkCompletion got;
      bool arrived = false;
      ASSERT_TRUE(Spin([&] {
        Post(from.qp, {.opcode = Opcode::kSend,
                       .local = from.slice(0, 8),
                       .id = 2,
                       .to = To(there ? two.to_server : back, to)});
        for (int polls = 0; polls < 200 && !arrived; ++polls) {
          arrived = to.receives().Poll({&got, 1}) == 1;
        }
        while (from.cq.Poll({&got, 1}) == 0) {
        }
        return arrived;
      }));
    }
  }
}

}  // namespace
}  // namespace verbena::conformance
