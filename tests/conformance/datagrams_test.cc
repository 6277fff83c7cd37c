// SPDX-License-Identifier: Apache-2.0
// Unreliable datagrams: IBTA 9.8.3 (UD), 9.6.1.3.1 (Q_Key), 10.3.1 (states); ibv_create_ah(3),
// ibv_post_send(3). Where the peer cannot know of a loss, nothing is said, so what must not happen
// is looked at for a while, behind a datagram that does arrive.
#include "tests/conformance/datagrams.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace verbena::conformance {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Field;

class Datagrams : public DatagramsBase {
 protected:
  struct Two {
    std::unique_ptr<End> server, client;
    AddressHandle to_server;  // of the client
  };
  Two MakeTwo(const EndOptions& options = {}) {
    Two two;
    two.server = NewEnd(server(), options);
    two.client = NewEnd(client(), options);
    two.to_server = HandleTo(*two.client, server_address());
    return two;
  }
  static Destination To(const AddressHandle& handle, const End& end, uint32_t qkey = kQkey) {
    return {.address = &handle, .qp_number = end.qp.number(), .qkey = qkey};
  }
  // Posts `request` some times: a network may lose one of them.
  static constexpr uint64_t kOften = 10;
  void PostOften(End& from, const SendWr& request) {
    for (uint64_t i = 0; i < kOften; ++i) {
      Post(from.qp, request);
      EXPECT_THAT(WaitOne(from.cq), Succeeded(request.id));
    }
  }
  // Until all have come that PostOften sent: the last ones may be on their way for a while.
  void WaitForDrops(End& to, uint64_t QpCounters::*count) {
    if (to.device.capabilities().peer_counters) {
      const uint64_t all = simulated() ? 1 : kOften;
      EXPECT_TRUE(RunUntil([&] { return to.qp.counters().*count >= all; }));
    }
    RunFor(kAWhile);
  }
};
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

TEST_P(Datagrams, SendsCompleteThoughNobodyIsThere) {
  // To a number that no queue pair has.
  // Expect: success; nobody says a word.
  Two two = MakeTwo();
  const uint32_t nobody = two.server->qp.number() ^ 1;
  Post(two.client->qp, {.opcode = Opcode::kSend,
                        .local = two.client->slice(0, 8),
                        .id = 2,
                        .to = {&two.to_server, nobody, kQkey}});
  EXPECT_THAT(WaitOne(two.client->cq), Succeeded(2));
  PostReceive(two.server->qp, {.local = two.server->slice(0, 200), .id = 1});
  EXPECT_TRUE(StaysEmpty(two.server->receives()));
}

TEST_P(Datagrams, WithoutAReceiveTheyAreDropped) {
  // Some before a receive is posted, one after.
  // Expect: the first are gone for good, and counted; the last arrives; no error anywhere.
  Two two = MakeTwo();
  PostOften(*two.client, {.opcode = Opcode::kSend,
                          .local = two.client->slice(0, 8),
                          .id = 2,
                          .to = To(two.to_server, *two.server)});
  WaitForDrops(*two.server, &QpCounters::dropped_no_receive);
  PostReceive(two.server->qp, {.local = two.server->slice(1000, 200), .id = 5});
  EXPECT_TRUE(StaysEmpty(two.server->receives()));
  const WorkCompletion got =
      Deliver(*two.client, *two.server,
              {.local = two.client->slice(0, 16), .id = 2, .to = To(two.to_server, *two.server)},
              {.local = two.server->slice(0, 200), .id = 1});
  EXPECT_THAT(got, AllOf(Succeeded(5), Field(&WorkCompletion::length, kGrhBytes + 16)));
  EXPECT_EQ(two.server->qp.state(), QpState::kRts);
  EXPECT_EQ(two.client->qp.state(), QpState::kRts);
}

TEST_P(Datagrams, WithAWrongQkeyTheyAreDropped) {
  // Q_Keys that differ in the first and in the last bit that a sender may choose, then the right
  // one. Expect: only that arrives; the receive is still there for it.
  Two two = MakeTwo();
  PostReceive(two.server->qp, {.local = two.server->slice(1000, 200), .id = 5});
  for (const uint32_t wrong : {kQkey ^ 1, kQkey ^ 0x40000000}) {
    PostOften(*two.client, {.opcode = Opcode::kSend,
                            .local = two.client->slice(0, 8),
                            .id = 2,
                            .to = To(two.to_server, *two.server, wrong)});
  }
  WaitForDrops(*two.server, &QpCounters::dropped_qkey);
  EXPECT_TRUE(StaysEmpty(two.server->receives()));
  EXPECT_THAT(
      Deliver(*two.client, *two.server,
              {.local = two.client->slice(0, 16), .id = 2, .to = To(two.to_server, *two.server)},
              {.local = two.server->slice(0, 200), .id = 1}),
      Succeeded(5));
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

TEST_P(Datagrams, TheQkeyMayBeChanged) {
  // In RTS, at the receiver.
  // Expect: the attribute says so, the old key is refused, the new one taken.
  Two two = MakeTwo();
  Check(two.server->qp.Modify({.qkey = 7}));
  EXPECT_EQ(two.server->qp.Query().qkey, 7u);
  PostReceive(two.server->qp, {.local = two.server->slice(1000, 200), .id = 5});
  PostOften(*two.client, {.opcode = Opcode::kSend,
                          .local = two.client->slice(0, 8),
                          .id = 2,
                          .to = To(two.to_server, *two.server)});
  EXPECT_TRUE(StaysEmpty(two.server->receives()));
  EXPECT_THAT(
      Deliver(*two.client, *two.server,
              {.local = two.client->slice(0, 8), .id = 2, .to = To(two.to_server, *two.server, 7)},
              {.local = two.server->slice(0, 200), .id = 1}),
      Succeeded(5));
}

TEST_P(Datagrams, AReceiveThatIsTooSmallStays) {
  // 100 bytes into a receive of 139, which lacks one; then 99.
  // Expect: the first is dropped, with nothing written; the second takes that very receive.
  Two two = MakeTwo();
  PostReceive(two.server->qp, {.local = two.server->slice(0, kGrhBytes + 99), .id = 5});
  PostOften(*two.client, {.opcode = Opcode::kSend,
                          .local = two.client->slice(0, 100),
                          .id = 2,
                          .to = To(two.to_server, *two.server)});
  EXPECT_TRUE(StaysEmpty(two.server->receives()));
  EXPECT_THAT(two.server->bytes(0, 1000), IsZero());
  EXPECT_THAT(
      Deliver(*two.client, *two.server,
              {.local = two.client->slice(0, 99), .id = 2, .to = To(two.to_server, *two.server)},
              {.local = two.server->slice(1000, 200), .id = 1}),
      Succeeded(5));
  EXPECT_EQ(two.server->qp.state(), QpState::kRts);
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

TEST_P(Datagrams, StatesNeedNoPeer) {
  // From INIT to RTS by hand.
  // Expect: sends from RTS on, receives from INIT on; INIT to RTS in one step is refused; what is
  // of connections is refused; SQD and back.
  EndOptions options;
  options.type = QpType::kUd;
  End end(*server().devices()[0], options);
  AddressHandle here = HandleTo(end, server_address());
  const SendWr send{
      .opcode = Opcode::kSend, .local = end.slice(0, 8), .id = 2, .to = To(here, end)};
  EXPECT_EQ(end.qp.state(), QpState::kInit);
  EXPECT_EQ(end.qp.Query().type, QpType::kUd);
  PostReceive(end.qp, {.local = end.slice(0, 200), .id = 1});
  EXPECT_THAT(end.qp.PostSend(send), Refused(PostError::kInvalidState));
  EXPECT_THAT(end.qp.Modify({.state = QpState::kRts}),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  Check(end.qp.Modify({.state = QpState::kRtr, .qkey = kQkey}));
  EXPECT_THAT(end.qp.PostSend(send), Refused(PostError::kInvalidState));
  EXPECT_THAT(end.qp.Modify({.rnr_retry = 3}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(end.qp.Disconnect(), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(end.qp.address(), StatusIs(absl::StatusCode::kInvalidArgument));
  Check(end.qp.Modify({.state = QpState::kRts}));
  Check(end.qp.Modify({.state = QpState::kSqd}));
  WaitForEvent(server(), EventType::kSendQueueDrained);
  Check(end.qp.PostSend(send));
  EXPECT_TRUE(StaysEmpty(end.cq));
  Check(end.qp.Modify({.state = QpState::kRts}));
  EXPECT_THAT(WaitOne(end.cq), Succeeded(2));
}

TEST_P(Datagrams, CannotBeConnected) {
  // Path::Connect and ConnectionRequest::Accept with a queue pair of datagrams.
  // Expect: InvalidArgument, and it is as before.
  auto end = NewEnd(client());
  auto other = NewEnd(server());
  Listener listener = Check(server().Listen(AnyPort()));
  Path path = Check(client().Resolve(listener.address()));
  EXPECT_THAT(path.StartConnect(end->qp), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(end->qp.state(), QpState::kRts);
  EndOptions options;
  End caller(*client().devices()[0], options);
  Check(path.StartConnect(caller.qp));
  ConnectionRequest request = Check(listener.Next(kLong));
  EXPECT_THAT(request.Accept(other->qp), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(other->qp.state(), QpState::kRts);
}

TEST_P(Datagrams, ErrFlushesBothQueues) {
  // Receives posted, to ERR, and a send and a receive after it.
  // Expect: all flushed, in order; RESET forgets, and the queue pair works anew under its number.
  Two two = MakeTwo();
  for (const uint64_t id : {1, 2}) {
    PostReceive(two.server->qp, {.local = two.server->slice(0, 200), .id = id});
  }
  const uint32_t number = two.server->qp.number();
  Check(two.server->qp.Modify({.state = QpState::kErr}));
  AddressHandle anywhere = HandleTo(*two.server, client_address());
  Post(two.server->qp, {.opcode = Opcode::kSend,
                        .local = two.server->slice(0, 8),
                        .id = 3,
                        .to = To(anywhere, *two.client)});
  PostReceive(two.server->qp, {.local = two.server->slice(0, 200), .id = 4});
  EXPECT_THAT(WaitFor(two.server->receives(), 3), ElementsAre(Flushed(1), Flushed(2), Flushed(4)));
  EXPECT_THAT(WaitOne(two.server->cq), Flushed(3));
  Check(two.server->qp.Modify({.state = QpState::kReset}));
  Check(two.server->qp.Modify({.state = QpState::kInit}));
  MoveToRts(two.server->qp);
  EXPECT_EQ(two.server->qp.number(), number);
  EXPECT_THAT(
      Deliver(*two.client, *two.server,
              {.local = two.client->slice(0, 8), .id = 2, .to = To(two.to_server, *two.server)},
              {.local = two.server->slice(0, 200), .id = 1}),
      Succeeded(1));
}

TEST_P(Datagrams, AWrongLocalKeyStopsTheSendQueue) {
  // A good send, one with a wrong key, another good one.
  // Expect: success, LOC_PROT_ERR, flush; the state is SQE (or ERR, as some devices have it). From
  // SQE receives go on, and RTS lets sends go on.
  Two two = MakeTwo();
  const auto send = [&](uint64_t id, uint32_t key) {
    Sge sge = two.client->slice(0, 8);
    sge.key ^= key;
    return SendWr{
        .opcode = Opcode::kSend, .local = sge, .id = id, .to = To(two.to_server, *two.server)};
  };
  const SendWr good = send(1, 0), bad = send(2, 0x10000), behind = send(3, 0);
  const SendWr all[] = {good, bad, behind};
  Check(two.client->qp.PostSend(all));
  EXPECT_THAT(WaitFor(two.client->cq, 3),
              ElementsAre(Succeeded(1), Completed(2, WcStatus::kLocalProtectionError), Flushed(3)));
  const QpState now = two.client->qp.state();
  if (now == QpState::kErr) return;
  ASSERT_EQ(now, QpState::kSqe);
  EXPECT_FALSE(two.client->qp.cause().ok());
  AddressHandle back = HandleTo(*two.server, client_address());
  EXPECT_THAT(Deliver(*two.server, *two.client,
                      {.local = two.server->slice(0, 8), .id = 4, .to = To(back, *two.client)},
                      {.local = two.client->slice(0, 200), .id = 5}),
              Succeeded(5));
  Check(two.client->qp.Modify({.state = QpState::kRts}));
  EXPECT_THAT(
      Deliver(*two.client, *two.server,
              {.local = two.client->slice(0, 8), .id = 6, .to = To(two.to_server, *two.server)},
              {.local = two.server->slice(0, 200), .id = 7}),
      Succeeded(7));
}

TEST_P(Datagrams, AReceiveThatMayNotBeFilledFails) {
  // A receive with a wrong key.
  // Expect: LOC_PROT_ERR, and the queue pair is in ERR; the sender hears nothing.
  Two two = MakeTwo();
  Sge wrong = two.server->slice(0, 200);
  wrong.key ^= 0x10000;
  EXPECT_THAT(
      Deliver(*two.client, *two.server,
              {.local = two.client->slice(0, 8), .id = 2, .to = To(two.to_server, *two.server)},
              {.local = wrong, .id = 1}),
      Completed(1, WcStatus::kLocalProtectionError));
  EXPECT_EQ(two.server->qp.state(), QpState::kErr);
  EXPECT_EQ(two.client->qp.state(), QpState::kRts);
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

TEST_P(Datagrams, MistakesInAddressesAreNamed) {
  // Text that is no address; a name; no destination; a group that is none.
  // Expect: InvalidArgument each.
  auto end = NewEnd(server());
  for (const char* wrong : {"", "10.0.0", "localhost", "10.0.0.1:7471", "0.0.0.0", "::"}) {
    EXPECT_THAT(end->pd.CreateAddressHandle({.address = wrong}),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << wrong;
  }
  for (const char* wrong : {"10.0.0.1", "::1", "all"}) {
    EXPECT_THAT(end->qp.AttachMulticast(wrong), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  EXPECT_THAT(end->qp.DetachMulticast("239.1.2.3"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(Datagrams, AnAddressHandleKeepsItsDomainOpen) {
  // A protection domain with an address handle.
  // Expect: it cannot be closed before that is.
  ProtectionDomain pd = Check(server().devices()[0]->AllocateProtectionDomain());
  AddressHandle handle = Check(pd.CreateAddressHandle({.address = server_address()}));
  EXPECT_EQ(handle.options().address, server_address());
  EXPECT_THAT(pd.Close(), StatusIs(absl::StatusCode::kFailedPrecondition));
  Check(handle.Close());
  Check(pd.Close());
}

TEST_P(Datagrams, EveryMemberOfAGroupGetsACopy) {
  // Two queue pairs attached to a group, one that is not, one that has left.
  // Expect: the two get it, with the group as destination; nobody else does.
  constexpr const char* kGroup = "239.255.71.22";
  auto sender = NewEnd(client());
  std::vector<std::unique_ptr<End>> members;
  for (int i = 0; i < 2; ++i) members.push_back(NewEnd(server()));
  auto stranger = NewEnd(server());
  auto left = NewEnd(server());
  for (const auto& member : members) {
    const absl::Status attached = member->qp.AttachMulticast(kGroup);
    if (attached.code() == absl::StatusCode::kUnavailable && !simulated()) {
      GTEST_SKIP() << "no route for groups here: " << attached;
    }
    Check(attached);
    Check(member->qp.AttachMulticast(kGroup));  // twice is once
  }
  Check(left->qp.AttachMulticast(kGroup));
  Check(left->qp.DetachMulticast(kGroup));
  AddressHandle all = HandleTo(*sender, kGroup);
  for (End* end : {members[0].get(), members[1].get(), stranger.get(), left.get()}) {
    PostReceive(end->qp, {.local = end->slice(0, 200), .id = 1});
  }
  Fill(sender->bytes(0, 64), 5);
  std::vector<WorkCompletion> got(2);
  std::vector<bool> has(2);
  const auto come = [&] {
    for (size_t i = 0; i < 2; ++i) {
      has[i] = has[i] || members[i]->receives().Poll({&got[i], 1}) == 1;
    }
    return has[0] && has[1];
  };
  for (int i = 0; i < 200 && !come(); ++i) {
    Post(sender->qp, {.opcode = Opcode::kSend,
                      .local = sender->slice(0, 64),
                      .id = 2,
                      .to = {&all, kMulticastQpNumber, kQkey}});
    EXPECT_THAT(WaitOne(sender->cq), Succeeded(2));
    RunUntil(come, absl::Milliseconds(20));
  }
  for (size_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(has[i]);
    EXPECT_THAT(got[i], AllOf(Succeeded(1), Field(&WorkCompletion::length, kGrhBytes + 64)));
    EXPECT_EQ(got[i].source_qp, sender->qp.number());
    EXPECT_EQ(Check(ReadGrh(members[i]->bytes(0, kGrhBytes))).destination, kGroup);
    EXPECT_THAT(members[i]->bytes(kGrhBytes, 64), HasPattern(5));
  }
  EXPECT_TRUE(StaysEmpty(stranger->receives()));
  EXPECT_TRUE(StaysEmpty(left->receives()));
}

TEST_P(Datagrams, MemoryIsTheApplicationsAgainAfterClose) {
  // The region of posted receives is closed, then datagrams come.
  // Expect: LOC_PROT_ERR, and not a byte in the memory.
  Two two = MakeTwo();
  const Sge sge = two.server->slice(0, 200);
  Check(two.server->region.Close());
  EXPECT_THAT(
      Deliver(*two.client, *two.server,
              {.local = two.client->slice(0, 8), .id = 2, .to = To(two.to_server, *two.server)},
              {.local = sge, .id = 1}),
      Completed(1, WcStatus::kLocalProtectionError));
  EXPECT_THAT(two.server->bytes(0, 200), IsZero());
}

}  // namespace
}  // namespace verbena::conformance
