// SPDX-License-Identifier: Apache-2.0
// Queue pairs that find each other by exchanged addresses, without a listener:
// docs/decisions/0015-out-of-band.md.
#include "transport/out_of_band.h"

#include <string>
#include <vector>

#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;

#define SKIP_WITHOUT(bit) \
  if (!client().devices()[0]->capabilities().bit) GTEST_SKIP() << "capability: " #bit

// One end on each host, and the addresses that they have exchanged.
struct Couple {
  explicit Couple(ConformanceBase& test)
      : server(*test.server().devices()[0], {}),
        client(*test.client().devices()[0], {}),
        server_address(Check(server.qp.address())),
        client_address(Check(client.qp.address())) {}

  End server;
  End client;
  std::string server_address;
  std::string client_address;
};

// Both kEstablished events, and data both ways.
void ExpectConnected(ConformanceBase& test, End& server, End& client) {
  test.WaitForEvent(test.server(), EventType::kEstablished);
  test.WaitForEvent(test.client(), EventType::kEstablished);
  for (End* end : {&server, &client}) {
    EXPECT_EQ(end->qp.state(), QpState::kRts);
    Fill(end->bytes(0, 4096), end == &server ? 1 : 2);
    PostReceive(end->qp, {.local = end->slice(8192, 4096), .id = 7});
  }
  Post(client.qp, {.local = client.slice(0, 4096), .id = 1});
  Post(server.qp, {.local = server.slice(0, 4096), .id = 1});
  Post(client.qp, {.opcode = Opcode::kWrite,
                   .local = client.slice(0, 4096),
                   .remote = server.at(16384),
                   .id = 2});
  EXPECT_THAT(test.WaitFor(client.cq, 3),
              testing::UnorderedElementsAre(Succeeded(1), Succeeded(2), Succeeded(7)));
  EXPECT_THAT(test.WaitFor(server.cq, 2),
              testing::UnorderedElementsAre(Succeeded(1), Succeeded(7)));
  EXPECT_THAT(server.bytes(8192, 4096), HasPattern(2));
  EXPECT_THAT(client.bytes(8192, 4096), HasPattern(1));
  EXPECT_THAT(server.bytes(16384, 4096), HasPattern(2));
}

void Again(QueuePair& qp) {
  Check(qp.Modify({.state = QpState::kReset}));
  Check(qp.Modify({.state = QpState::kInit}));
}

CONFORMANCE_SUITE(OutOfBand);

TEST_P(OutOfBand, EitherEndFirst) {
  // One end connects, is left alone for a while, and then the other does; in both orders, so that
  // the end with the lower nonce is early in one and late in the other.
  // Expect: established at both ends, data both ways.
  SKIP_WITHOUT(out_of_band);
  for (const bool server_first : {true, false}) {
    Couple c(*this);
    QueuePair& first = server_first ? c.server.qp : c.client.qp;
    QueuePair& second = server_first ? c.client.qp : c.server.qp;
    Check(first.StartConnect(server_first ? c.client_address : c.server_address));
    RunFor(absl::Milliseconds(20));
    Check(second.StartConnect(server_first ? c.server_address : c.client_address));
    ExpectConnected(*this, c.server, c.client);
  }
}

TEST_P(OutOfBand, OneIsVeryLate) {
  // The second end connects when the first has tried for a second: both may have dialed by then.
  // Expect: established all the same.
  SKIP_WITHOUT(out_of_band_handshake);
  for (const bool server_first : {true, false}) {
    Couple c(*this);
    QueuePair& first = server_first ? c.server.qp : c.client.qp;
    QueuePair& second = server_first ? c.client.qp : c.server.qp;
    Check(first.StartConnect(server_first ? c.client_address : c.server_address));
    RunFor(absl::Milliseconds(1100));
    EXPECT_EQ(first.state(), QpState::kInit);
    Check(second.StartConnect(server_first ? c.server_address : c.client_address));
    ExpectConnected(*this, c.server, c.client);
  }
}

TEST_P(OutOfBand, ManyAtOnce) {
  // All pairs of both hosts start at once.
  // Expect: each meets its own peer; what is sent arrives there.
  SKIP_WITHOUT(out_of_band);
  std::vector<std::unique_ptr<Couple>> all;
  for (int i = 0; i < 8; ++i) all.push_back(std::make_unique<Couple>(*this));
  for (auto& c : all) {
    Check(c->server.qp.StartConnect(c->client_address));
    Check(c->client.qp.StartConnect(c->server_address));
  }
  for (size_t i = 0; i < all.size(); ++i) {
    WaitForEvent(server(), EventType::kEstablished);
    WaitForEvent(client(), EventType::kEstablished);
  }
  for (size_t i = 0; i < all.size(); ++i) {
    Couple& c = *all[i];
    Fill(c.client.bytes(0, 512), i);
    PostReceive(c.server.qp, {.local = c.server.slice(0, 512), .id = i});
    Post(c.client.qp, {.local = c.client.slice(0, 512), .id = i});
    EXPECT_THAT(WaitOne(c.client.cq), Succeeded(i));
    EXPECT_THAT(WaitOne(c.server.cq), Succeeded(i));
    EXPECT_THAT(c.server.bytes(0, 512), HasPattern(i));
  }
}

TEST_P(OutOfBand, CapabilitiesAsWithAListener) {
  // The same requirements and parameters as through a listener.
  // Expect: the same capabilities, and the parameters at the end that gave them; depths are
  // bounded by what the peer serves.
  SKIP_WITHOUT(out_of_band);
  Pair pair = MakePair(*this);
  Couple c(*this);
  const Capabilities most = client().devices()[0]->capabilities();
  const Require all{.atomics = most.atomics,
                    .immediate = most.immediate,
                    .rnr = most.rnr,
                    .remote_completion = most.remote_completion};
  Check(c.server.qp.StartConnect(c.client_address, {.retry_count = 6, .require = all}));
  Check(c.client.qp.StartConnect(
      c.server_address,
      {.initiator_depth = 4, .rnr_retry = 3, .timeout = 19, .traffic_class = 0x68}));
  ExpectConnected(*this, c.server, c.client);
  EXPECT_EQ(ToString(c.client.qp.capabilities()), ToString(pair.client->qp.capabilities()));
  EXPECT_EQ(ToString(c.server.qp.capabilities()), ToString(pair.server->qp.capabilities()));
  const QpAttributes ours = c.client.qp.Query(), theirs = c.server.qp.Query();
  EXPECT_EQ(ours.initiator_depth, 4u);
  EXPECT_LE(ours.initiator_depth, theirs.responder_resources);
  EXPECT_LE(theirs.initiator_depth, ours.responder_resources);
  EXPECT_EQ(ours.rnr_retry, 3);
  EXPECT_EQ(ours.timeout, 19);
  EXPECT_EQ(theirs.retry_count, 6);
  EXPECT_EQ(ours.traffic_class, 0x68);
  EXPECT_EQ(theirs.traffic_class, 0);
  EXPECT_THAT(c.client.qp.connection().candidates, testing::SizeIs(1));
}

TEST_P(OutOfBand, OverIpv6) {
  // The addresses name IPv6 ways alone.
  // Expect: connected over it.
  SKIP_WITHOUT(out_of_band_handshake);
  if (ground().address6().empty()) GTEST_SKIP() << "this ground has no IPv6";
  Couple c(*this);
  for (std::string* each : {&c.server_address, &c.client_address}) {
    Contact contact = Check(DecodeContact(*each));
    contact.ways[0].addresses = {Ip{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};  // ::1
    *each = Encode(contact);
  }
  Check(c.server.qp.StartConnect(c.client_address));
  Check(c.client.qp.StartConnect(c.server_address));
  ExpectConnected(*this, c.server, c.client);
  EXPECT_THAT(c.client.qp.connection().peer, HasSubstr("[::1]"));
}

TEST_P(OutOfBand, AStrangersAddress) {
  // The server connects to a queue pair that has another peer in mind, which comes later.
  // Expect: the stranger is not taken for the peer and fails; the right one connects.
  SKIP_WITHOUT(out_of_band_handshake);
  Couple c(*this);
  QueuePair stranger = c.server.NewQueuePair();
  Check(stranger.address());
  Check(stranger.StartConnect(c.client_address));
  RunFor(absl::Milliseconds(500));
  Check(c.client.qp.StartConnect(c.server_address));
  RunFor(absl::Milliseconds(50));
  EXPECT_EQ(c.client.qp.state(), QpState::kInit);
  Check(c.server.qp.StartConnect(c.client_address));
  ExpectConnected(*this, c.server, c.client);
  const auto told = [&] { return !stranger.impl()->outcome().status.ok(); };
  EXPECT_TRUE(RunUntil(told));
  EXPECT_THAT(stranger.impl()->outcome().status,
              StatusIs(absl::StatusCode::kAborted, HasSubstr("connected to another")));
  EXPECT_EQ(stranger.state(), QpState::kInit);
}

TEST_P(OutOfBand, StrangersThatFillThePlace) {
  // More callers than may wait come with the server's address before it connects, none of them the
  // peer that it wants.
  // Expect: the right one connects all the same, since the server calls it as well.
  SKIP_WITHOUT(out_of_band_handshake);
  Couple c(*this);
  std::vector<QueuePair> strangers;
  for (int i = 0; i < 70; ++i) {
    strangers.push_back(c.client.NewQueuePair());
    Check(strangers.back().address());
    Check(strangers.back().StartConnect(c.server_address));
  }
  RunFor(absl::Milliseconds(500));
  Check(c.client.qp.StartConnect(c.server_address));
  Check(c.server.qp.StartConnect(c.client_address));
  ExpectConnected(*this, c.server, c.client);
}

TEST_P(OutOfBand, ManyWaitForTheirQueuePairs) {
  // A hundred queue pairs are called before the first of them connects.
  // Expect: there is room for the caller of each.
  SKIP_WITHOUT(out_of_band_handshake);
  Couple c(*this);
  std::vector<QueuePair> called, callers;
  for (int i = 0; i < 100; ++i) {
    called.push_back(c.server.NewQueuePair());
    callers.push_back(c.client.NewQueuePair());
    Check(callers.back().address());
    Check(callers.back().StartConnect(Check(called.back().address())));
  }
  RunFor(absl::Milliseconds(500));  // half of them leave the first call to the other end
  EXPECT_EQ(server().devices()[0]->counters().rejects, 0u);
}

TEST_P(OutOfBand, PortsAreApart) {
  // A caller of the usual kind comes to the hidden listener, and an out-of-band caller to a usual
  // one.
  // Expect: both are refused with the reason; nobody sees a request.
  SKIP_WITHOUT(out_of_band_handshake);
  Couple c(*this);
  Contact contact = Check(DecodeContact(c.server_address));
  const std::string hidden = ground().address(0) + ":" + std::to_string(contact.ways[0].port);
  Path path = Check(client().Resolve(hidden));
  EXPECT_THAT(path.Connect(c.client.qp),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("out-of-band connections only")));
  Listener listener = Check(server().Listen(AnyPort()));
  contact.ways[0].port = static_cast<uint16_t>(listener.port());
  contact.ways[0].addresses.resize(1);
  if (!simulated())
    contact.ways[0].addresses = {Ip{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1}};
  EXPECT_THAT(c.client.qp.Connect(Encode(contact), {.deadline = absl::Seconds(1)}),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("no out-of-band")));
  EXPECT_FALSE(listener.TryNext().is_open());
}

TEST_P(OutOfBand, AnAddressServesOnce) {
  // A third queue pair uses the address of one that is connected.
  // Expect: it is told so; the connection goes on.
  SKIP_WITHOUT(out_of_band_handshake);
  Couple c(*this);
  Check(c.server.qp.StartConnect(c.client_address));
  Check(c.client.qp.StartConnect(c.server_address));
  ExpectConnected(*this, c.server, c.client);
  QueuePair third = c.server.NewQueuePair();
  Check(third.address());
  EXPECT_THAT(third.Connect(c.client_address, {.deadline = kLong}),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("connected to another")));
  EXPECT_EQ(c.client.qp.state(), QpState::kRts);
}

TEST_P(OutOfBand, MistakesAreNamed) {
  // The own address; a context's; one that was cut short, changed, of a later version, or is
  // something else; the own address never taken; private data; a queue pair that is connected.
  // Expect: refused at the call, and the queue pair is as it was.
  SKIP_WITHOUT(out_of_band);
  Couple c(*this);
  EXPECT_LE(c.client_address.size(), kMaxContact);
  EXPECT_EQ(Check(c.client.qp.address()), c.client_address);
  const auto refused = [&](const std::string& address) { return c.client.qp.Connect(address); };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(refused(c.client_address), StatusIs(invalid, HasSubstr("own address")));
  EXPECT_THAT(refused(server().address()), StatusIs(invalid, HasSubstr("context's")));
  EXPECT_THAT(refused(""), StatusIs(invalid, HasSubstr("cut short")));
  EXPECT_THAT(refused(c.server_address.substr(0, 40)), StatusIs(invalid, HasSubstr("bytes of")));
  EXPECT_THAT(refused("http://example.org:7471/a/longer/name"), StatusIs(invalid));
  std::string changed = c.server_address;
  changed[20] ^= 1;
  EXPECT_THAT(refused(changed), StatusIs(invalid, HasSubstr("changed")));
  std::string later = c.server_address;
  later[4] = 2;
  EXPECT_THAT(refused(later), StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("version 2")));
  EXPECT_THAT(c.client.qp.Connect(c.server_address, {.private_data = "hi"}), StatusIs(invalid));
  QueuePair fresh = c.client.NewQueuePair();
  EXPECT_THAT(fresh.Connect(c.server_address),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("address()")));
  EXPECT_EQ(c.client.qp.state(), QpState::kInit);
  Check(c.server.qp.StartConnect(c.client_address));
  Check(c.client.qp.StartConnect(c.server_address));
  ExpectConnected(*this, c.server, c.client);
  EXPECT_THAT(refused(c.server_address), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_P(OutOfBand, NobodyComes) {
  // The peer takes its address and never connects.
  // Expect: DeadlineExceeded that says what to look at; the queue pair can be connected again.
  SKIP_WITHOUT(out_of_band_handshake);
  Couple c(*this);
  EXPECT_THAT(c.client.qp.Connect(c.server_address, {.deadline = absl::Milliseconds(700)}),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("did not come")));
  EXPECT_EQ(c.client.qp.state(), QpState::kInit);
  Check(c.server.qp.StartConnect(c.client_address));
  Check(c.client.qp.StartConnect(c.server_address));
  WaitForEvent(client(), EventType::kUnreachable);
  ExpectConnected(*this, c.server, c.client);
}

TEST_P(OutOfBand, AddressOfAClosedQueuePair) {
  // The peer's queue pair is gone.
  // Expect: DeadlineExceeded, with what the peer's host said.
  SKIP_WITHOUT(out_of_band_handshake);
  Couple c(*this);
  Check(c.server.qp.Close());
  EXPECT_THAT(c.client.qp.Connect(c.server_address, {.deadline = absl::Seconds(1)}),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("has that address")));
}

TEST_P(OutOfBand, DisconnectIsSeenAtBothEnds) {
  // One end disconnects.
  // Expect: ERR at both, nobody's failure.
  SKIP_WITHOUT(out_of_band_handshake);
  Couple c(*this);
  Check(c.server.qp.StartConnect(c.client_address));
  Check(c.client.qp.StartConnect(c.server_address));
  ExpectConnected(*this, c.server, c.client);
  Check(c.client.qp.Disconnect());
  WaitForEvent(server(), EventType::kDisconnected);
  EXPECT_EQ(c.server.qp.state(), QpState::kErr);
  EXPECT_THAT(c.server.qp.cause(), IsOk());
}

TEST_P(OutOfBand, AgainAfterReset) {
  // Both ends disconnect, pass RESET and INIT, and exchange anew.
  // Expect: other addresses than before, connected; the former ones lead nowhere.
  SKIP_WITHOUT(out_of_band);
  Couple c(*this);
  Check(c.server.qp.StartConnect(c.client_address));
  Check(c.client.qp.StartConnect(c.server_address));
  ExpectConnected(*this, c.server, c.client);
  (void)c.client.qp.Disconnect();
  (void)c.server.qp.Disconnect();
  WaitForEvent(client(), EventType::kDisconnected);
  WaitForEvent(server(), EventType::kDisconnected);
  EXPECT_THAT(Check(c.client.qp.address()), c.client_address);
  Again(c.server.qp);
  Again(c.client.qp);
  const std::string server_address = Check(c.server.qp.address());
  const std::string client_address = Check(c.client.qp.address());
  EXPECT_NE(server_address, c.server_address);
  EXPECT_NE(client_address, c.client_address);
  Check(c.server.qp.StartConnect(client_address));
  Check(c.client.qp.StartConnect(server_address));
  ExpectConnected(*this, c.server, c.client);
}

TEST_P(OutOfBand, DisconnectWhileConnecting) {
  // The application gives up before the peer has come.
  // Expect: kUnreachable, cancelled; the queue pair can be connected again.
  SKIP_WITHOUT(out_of_band_handshake);
  Couple c(*this);
  Check(c.client.qp.StartConnect(c.server_address));
  Check(c.client.qp.Disconnect());
  EXPECT_THAT(WaitForEvent(client(), EventType::kUnreachable).status,
              StatusIs(absl::StatusCode::kCancelled));
  Check(c.server.qp.StartConnect(c.client_address));
  Check(c.client.qp.StartConnect(c.server_address));
  ExpectConnected(*this, c.server, c.client);
}

TEST_P(OutOfBand, BothEndsChooseTheSame) {
  // The contexts exchange addresses before there are objects.
  // Expect: the device that reaches the peer's, at both ends, and queue pairs on them connect.
  std::vector<Candidate> why;
  absl::StatusOr<Device*> ours = client().Choose(server().address(), &why);
  absl::StatusOr<Device*> theirs = server().Choose(client().address());
  if (!client().devices()[0]->capabilities().out_of_band) {
    EXPECT_THAT(ours, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("iWARP")));
    return;
  }
  Check(ours);
  Check(theirs);
  EXPECT_EQ(client().address(), client().address());
  EXPECT_THAT(client().Choose(client().address()), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(why, Not(testing::IsEmpty()));
  End server_end(**theirs, {});
  End client_end(**ours, {});
  const std::string server_address = Check(server_end.qp.address());
  Check(server_end.qp.StartConnect(Check(client_end.qp.address())));
  Check(client_end.qp.StartConnect(server_address));
  ExpectConnected(*this, server_end, client_end);
}

}  // namespace
}  // namespace verbena::conformance
