// SPDX-License-Identifier: Apache-2.0
// Making and ending connections: rdma_cm(7), rdma_connect(3), rdma_accept(3), rdma_reject(3).
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/conformance/pair.h"
#include "tests/conformance/strangers.h"

namespace verbena::conformance {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::StartsWith;

CONFORMANCE_SUITE(Connections);

TEST_P(Connections, EstablishedAtBothEnds) {
  // Connect and accept.
  // Expect: kEstablished once at each end with that queue pair's context and number; both in RTS.
  Strangers s(*this);
  ConnectionRequest request = s.Ask();
  EXPECT_EQ(&request.device(), server().devices()[0].get());
  Check(request.Accept(s.server.qp));
  const Event at_client = WaitForEvent(client(), EventType::kEstablished);
  const Event at_server = WaitForEvent(server(), EventType::kEstablished);
  EXPECT_EQ(at_client.context, &s.client);
  EXPECT_EQ(at_client.qp_number, s.client.qp.number());
  EXPECT_EQ(at_server.context, &s.server);
  EXPECT_EQ(at_server.qp_number, s.server.qp.number());
  EXPECT_EQ(s.client.qp.state(), QpState::kRts);
  EXPECT_EQ(s.server.qp.state(), QpState::kRts);
  EXPECT_TRUE(NoEvent(client(), EventType::kEstablished));
  EXPECT_TRUE(NoEvent(server(), EventType::kEstablished));
}

TEST_P(Connections, BothEndsKnowTheAddresses) {
  // Expect: local and peer addresses mirror each other, at the queue pairs and at the request.
  Strangers s(*this);
  ConnectionRequest request = s.Ask();
  EXPECT_EQ(request.info().local, s.listener.address());
  Check(request.Accept(s.server.qp));
  WaitForEvent(client(), EventType::kEstablished);
  WaitForEvent(server(), EventType::kEstablished);
  const ConnectionInfo ours = s.client.qp.connection(), theirs = s.server.qp.connection();
  EXPECT_EQ(ours.local, theirs.peer);
  EXPECT_EQ(ours.peer, theirs.local);
  EXPECT_EQ(ours.peer, s.listener.address());
  const bool known = client().devices()[0]->capabilities().own_peer_known;
  EXPECT_EQ(ours.own_peer, known);
  EXPECT_EQ(theirs.own_peer, known);
}

TEST_P(Connections, PathAndRequestExplainTheChoice) {
  // Expect: exactly one candidate was chosen, the device of the path, and each has a reason.
  Strangers s(*this);
  int chosen = 0;
  for (const Candidate& candidate : s.path.info().candidates) {
    chosen += candidate.chosen;
    EXPECT_NE(candidate.reason, "");
    if (candidate.chosen) {
      EXPECT_EQ(candidate.device, s.path.device().name());
    }
  }
  EXPECT_EQ(chosen, 1);
}

TEST_P(Connections, ListenerTellsTheRealPort) {
  // Expect: port 0 became a port, in address() and port().
  Listener listener = Check(server().Listen(AnyPort()));
  EXPECT_GT(listener.port(), 0);
  EXPECT_EQ(listener.address(), absl::StrCat(ground().address(0), ":", listener.port()));
}

TEST_P(Connections, ListenerDescriptorIsReadableWhileARequestWaits) {
  // Expect: not readable before, readable when the request is there, not after it was taken.
  Strangers s(*this);
  EXPECT_FALSE(WaitReadable(s.listener.fd(), kAWhile));
  EXPECT_FALSE(s.listener.TryNext().is_open());
  Check(s.path.StartConnect(s.client.qp));
  ASSERT_TRUE(WaitReadable(s.listener.fd()));
  ConnectionRequest request = s.listener.TryNext();
  ASSERT_TRUE(request.is_open());
  EXPECT_FALSE(WaitReadable(s.listener.fd(), kAWhile));
  Check(request.Accept(s.server.qp));
}

TEST_P(Connections, EventDescriptorIsReadableWhileEventsWait) {
  // Expect: the context's event descriptor follows the queue.
  Strangers s(*this);
  EXPECT_FALSE(WaitReadable(client().events().fd(), kAWhile));
  ConnectionRequest request = s.Ask();
  Check(request.Accept(s.server.qp));
  ASSERT_TRUE(WaitReadable(client().events().fd()));
  WaitForEvent(client(), EventType::kEstablished);
  EXPECT_FALSE(WaitReadable(client().events().fd(), absl::ZeroDuration()));
}

TEST_P(Connections, AcceptedQueuePairMayBePostedToAtOnce) {
  // The server sends right after Accept, before anything else has happened (rdma_accept(3)).
  // Expect: the message arrives when the connection is there.
  if (!client().devices()[0]->capabilities().rnr) GTEST_SKIP() << "capability: rnr";
  Strangers s(*this);
  PostReceive(s.client.qp, {.local = s.client.slice(0, 100), .id = 1});
  ConnectionRequest request = s.Ask();
  Check(request.Accept(s.server.qp));
  Fill(s.server.bytes(0, 100), 1);
  Post(s.server.qp, {.opcode = Opcode::kSend, .local = s.server.slice(0, 100), .id = 2});
  EXPECT_THAT(WaitOne(s.client.cq), Succeeded(1));
  EXPECT_THAT(s.client.bytes(0, 100), HasPattern(1));
  EXPECT_THAT(WaitOne(s.server.cq), Succeeded(2));
}

TEST_P(Connections, Reject) {
  // The request is rejected without private data.
  // Expect: kRejected at the caller, whose queue pair never connected and may try again.
  Strangers s(*this);
  ConnectionRequest request = s.Ask();
  Check(request.Reject());
  const Event event = WaitForEvent(client(), EventType::kRejected);
  EXPECT_EQ(event.context, &s.client);
  EXPECT_THAT(event.status, StatusIs(absl::StatusCode::kAborted));
  EXPECT_EQ(server().devices()[0]->counters().rejects, 1u);
  Check(s.client.qp.Modify({.state = QpState::kReset}));
  Check(s.client.qp.Modify({.state = QpState::kInit}));
  Connect(*this, s.client.qp, s.server.qp);
}

TEST_P(Connections, RequestDestroyedUnansweredRejects) {
  // Expect: as if it had been rejected.
  Strangers s(*this);
  { ConnectionRequest request = s.Ask(); }
  WaitForEvent(client(), EventType::kRejected);
}

TEST_P(Connections, ListenerClosedWithARequestWaiting) {
  // A request waits in the listener, which is closed.
  // Expect: the caller learns that there will be no connection.
  Strangers s(*this);
  Check(s.path.StartConnect(s.client.qp));
  ASSERT_TRUE(WaitReadable(s.listener.fd()));
  Check(s.listener.Close());
  const Event event = Check(client().events().Next(kLong));
  EXPECT_THAT(event.type, AnyOf(EventType::kRejected, EventType::kUnreachable));
}

TEST_P(Connections, AnswerTwice) {
  // Expect: a request is answered once; then FailedPrecondition, and the connection stands.
  Strangers s(*this);
  QueuePair other = s.server.NewQueuePair();
  ConnectionRequest request = s.Ask();
  Check(request.Accept(s.server.qp));
  EXPECT_THAT(request.Accept(other), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(request.Reject(), StatusIs(absl::StatusCode::kFailedPrecondition));
  WaitForEvent(client(), EventType::kEstablished);
  EXPECT_EQ(s.client.qp.state(), QpState::kRts);
}

TEST_P(Connections, AcceptNeedsAQueuePairInInit) {
  // Accept with queue pairs in RESET and ERR, then with a good one.
  // Expect: FailedPrecondition that names the state; the request stays answerable.
  Strangers s(*this);
  ConnectionRequest request = s.Ask();
  Check(s.server.qp.Modify({.state = QpState::kErr}));
  EXPECT_THAT(request.Accept(s.server.qp),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("ERR")));
  Check(s.server.qp.Modify({.state = QpState::kReset}));
  EXPECT_THAT(request.Accept(s.server.qp),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("RESET")));
  Check(s.server.qp.Modify({.state = QpState::kInit}));
  Check(request.Accept(s.server.qp));
  WaitForEvent(client(), EventType::kEstablished);
}

TEST_P(Connections, ConnectNeedsAQueuePairInInit) {
  // Expect: FailedPrecondition for a connected queue pair and for one in RESET.
  Strangers s(*this);
  ConnectionRequest request = s.Ask();
  Check(request.Accept(s.server.qp));
  WaitForEvent(client(), EventType::kEstablished);
  EXPECT_THAT(s.path.StartConnect(s.client.qp),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("RTS")));
  QueuePair other = s.client.NewQueuePair();
  Check(other.Modify({.state = QpState::kReset}));
  EXPECT_THAT(s.path.StartConnect(other),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("RESET")));
}

TEST_P(Connections, NobodyListens) {
  // Connect to a port that was just closed.
  // Expect: kUnreachable, and the blocking form says Unavailable and the address.
  Strangers s(*this);
  const std::string address = s.listener.address();
  Check(s.listener.Close());
  Check(s.path.StartConnect(s.client.qp));
  EXPECT_THAT(WaitForEvent(client(), EventType::kUnreachable).status,
              StatusIs(absl::StatusCode::kUnavailable));
  QueuePair other = s.client.NewQueuePair();
  EXPECT_THAT(s.path.Connect(other), StatusIs(absl::StatusCode::kUnavailable, HasSubstr(address)));
}

TEST_P(Connections, NobodyAnswers) {
  // The listener never takes the request; the caller allows 200 ms.
  // Expect: DeadlineExceeded; a late Accept is told that the peer has left.
  Strangers s(*this);
  EXPECT_THAT(s.path.Connect(s.client.qp, {.deadline = absl::Milliseconds(200)}),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_NE(s.client.qp.state(), QpState::kRts);
  RunFor(kAWhile);
  ConnectionRequest request = s.listener.TryNext();
  if (request.is_open()) {
    EXPECT_THAT(request.Accept(s.server.qp), StatusIs(absl::StatusCode::kUnavailable));
  }
}

TEST_P(Connections, AddressInUse) {
  // Expect: a second listener on the same port is Unavailable, and says the address; after the
  // first is closed the port is free again.
  Listener first = Check(server().Listen(AnyPort()));
  const std::string address = first.address();
  EXPECT_THAT(server().Listen(address),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(address)));
  Check(first.Close());
  EXPECT_EQ(Check(server().Listen(address)).address(), address);
}

TEST_P(Connections, TwoListenersEachGetTheirOwn) {
  // Two listeners, one caller each.
  // Expect: each takes its own caller's request.
  Listener first = Check(server().Listen(AnyPort())), second = Check(server().Listen(AnyPort()));
  Path to_first = Check(client().Resolve(first.address()));
  Path to_second = Check(client().Resolve(second.address()));
  End server_end(*server().devices()[0], {}), client_end(*client().devices()[0], {});
  QueuePair other = client_end.NewQueuePair();
  Check(to_first.StartConnect(client_end.qp, {.private_data = "first"}));
  Check(to_second.StartConnect(other, {.private_data = "second"}));
  ConnectionRequest at_second = Check(second.Next(kLong)), at_first = Check(first.Next(kLong));
  EXPECT_THAT(at_first.private_data(), StartsWith("first"));
  EXPECT_THAT(at_second.private_data(), StartsWith("second"));
  EXPECT_EQ(first.counters().requests, 1u);
  EXPECT_EQ(second.counters().requests, 1u);
}

TEST_P(Connections, BadAddresses) {
  // Expect: NotFound for a host that is none, InvalidArgument for text that is no address.
  EXPECT_THAT(server().Listen("no port here"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(client().Resolve("127.0.0.1:99999"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(client().Resolve("127.0.0.1"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(client().Resolve("no.such.host.invalid:1"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(Connections, OverIpv6) {
  // Listen on an IPv6 address and connect to it.
  // Expect: a connection like any other.
  if (ground().address6().empty()) GTEST_SKIP() << "network: it has IPv4 addresses only";
  const std::string host = absl::StrCat("[", ground().address6(), "]:");
  absl::StatusOr<Listener> listener = server().Listen(host + "0");
  if (!listener.ok()) GTEST_SKIP() << "network: no IPv6 here: " << listener.status();
  EXPECT_THAT(listener->address(), StartsWith(host));
  End server_end(*server().devices()[0], {}), client_end(*client().devices()[0], {});
  Path path = Check(client().Resolve(listener->address()));
  Check(path.StartConnect(client_end.qp));
  ConnectionRequest request = Check(listener->Next(kLong));
  Check(request.Accept(server_end.qp));
  PostReceive(server_end.qp, {.local = server_end.slice(0, 8), .id = 1});
  WaitForEvent(client(), EventType::kEstablished);
  Post(client_end.qp, {.opcode = Opcode::kSend, .local = client_end.slice(0, 8), .id = 2});
  EXPECT_THAT(WaitOne(server_end.cq), Succeeded(1));
}

TEST_P(Connections, AnyAddressListensOnAll) {
  // ":0" listens on every address of the host.
  // Expect: a caller that uses one of them gets through.
  End server_end(*server().devices()[0], {}), client_end(*client().devices()[0], {});
  Listener listener = Check(server().Listen(":0"));
  Path path = Check(client().Resolve(absl::StrCat(ground().address(0), ":", listener.port())));
  Check(path.StartConnect(client_end.qp));
  ConnectionRequest request = Check(listener.Next(kLong));
  Check(request.Accept(server_end.qp));
  WaitForEvent(client(), EventType::kEstablished);
}

TEST_P(Connections, OnePathServesManyConnections) {
  // Sixty-four queue pairs connect over one path to one listener; each sends its own message.
  // Expect: all are established and each message arrives at the right peer.
  constexpr uint32_t kCount = 64;
  Strangers s(*this);
  std::vector<QueuePair> theirs, ours;
  for (uint32_t i = 0; i < kCount; ++i) {
    theirs.push_back(s.server.NewQueuePair());
    ours.push_back(s.client.NewQueuePair());
    Check(s.path.StartConnect(ours[i], {.private_data = absl::StrCat(i, "|")}));
  }
  std::vector<uint32_t> caller(kCount);  // whose request the i-th was
  for (uint32_t i = 0; i < kCount; ++i) {
    ConnectionRequest request = Check(s.listener.Next(kLong));
    caller[i] = static_cast<uint32_t>(std::stoul(request.private_data()));
    PostReceive(theirs[i], {.local = s.server.slice(8 * i, 8), .id = i});
    Check(request.Accept(theirs[i]));
  }
  for (uint32_t i = 0; i < kCount; ++i) WaitForEvent(client(), EventType::kEstablished);
  for (uint32_t i = 0; i < kCount; ++i) {
    s.client.buffer.word(8 * i) = i;
    Post(ours[i], {.opcode = Opcode::kSend, .local = s.client.slice(8 * i, 8), .id = i});
  }
  WaitFor(s.client.cq, kCount);
  for (const WorkCompletion& wc : WaitFor(s.server.cq, kCount)) {
    ASSERT_TRUE(wc.ok());
    EXPECT_EQ(s.server.buffer.word(8 * wc.id), caller[wc.id]);
  }
  EXPECT_EQ(client().devices()[0]->counters().connects, kCount);
  EXPECT_EQ(server().devices()[0]->counters().accepts, kCount);
}

TEST_P(Connections, DisconnectCrossesDisconnect) {
  // Both ends disconnect at once.
  // Expect: both see kDisconnected once and end in ERR.
  Pair pair = MakePair(*this);
  Check(pair.client->qp.Disconnect());
  Check(pair.server->qp.Disconnect());
  WaitForEvent(client(), EventType::kDisconnected);
  WaitForEvent(server(), EventType::kDisconnected);
  EXPECT_TRUE(NoEvent(client(), EventType::kDisconnected));
  EXPECT_TRUE(NoEvent(server(), EventType::kDisconnected));
}

TEST_P(Connections, CloseOfAConnectedQueuePairDisconnects) {
  // The client closes its queue pair without disconnecting.
  // Expect: the server sees kDisconnected; the client hears nothing more about the closed one.
  Pair pair = MakePair(*this);
  Check(pair.client->qp.Close());
  EXPECT_EQ(WaitForEvent(server(), EventType::kDisconnected).context, pair.server.get());
  EXPECT_TRUE(NoEvent(client(), EventType::kDisconnected));
}

TEST_P(Connections, NoEventOfAClosedObject) {
  // An event is queued for a queue pair, which is then closed.
  // Expect: the event is never delivered: its context may be gone.
  Pair pair = MakePair(*this);
  Check(pair.client->qp.Disconnect());
  ASSERT_TRUE(WaitReadable(client().events().fd()));
  Check(pair.client->qp.Close());
  EXPECT_EQ(client().events().TryNext(), std::nullopt);
}

}  // namespace
}  // namespace verbena::conformance
