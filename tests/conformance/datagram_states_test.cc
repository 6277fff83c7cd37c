// SPDX-License-Identifier: Apache-2.0
// Unreliable datagrams: the states of a queue pair, and its errors (IBTA 10.3.1, ibv_modify_qp(3)).
#include "tests/conformance/datagrams.h"

namespace verbena::conformance {
namespace {

using testing::ElementsAre;

TEST_P(Datagrams, StatesNeedNoPeer) {
  // From INIT to RTS by hand.
  // Expect: sends from RTS on, receives from INIT on; INIT to RTS in one step is refused; what is
  // of connections is refused; SQD and back.
  EndOptions options;
  options.type = QpType::kUd;
  options.separate_receive_cq = true;  // it may arrive before it has left
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
