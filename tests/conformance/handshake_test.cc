// SPDX-License-Identifier: Apache-2.0
// What the two ends tell each other while they connect: private data, depths, requirements.
// rdma_connect(3), rdma_accept(3), rdma_reject(3), RFC 6581.
#include <algorithm>
#include <string>

#include "tests/conformance/pair.h"
#include "tests/conformance/strangers.h"

namespace verbena::conformance {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// Bytes with every value, zero included, and no two neighbours alike.
std::string PrivateData(size_t size) {
  std::string data(size, '\0');
  for (size_t i = 0; i < size; ++i) data[i] = static_cast<char>(i * 7);
  return data;
}

struct PrivateDataRow {
  std::string name;
  size_t size;
  bool fits;
  std::string tail = "";  // is in it 20 bytes before the end: begins what iWARP devices add there
};

const PrivateDataRow kConnectData[] = {{"0", 0, true},
                                       {"1", 1, true},
                                       {"56", 56, true},
                                       {"57", 57, false},
                                       {"LikeOurOwnTail", 56, true, "VerbConf"}};
CONFORMANCE_TABLE(ConnectPrivateData, PrivateDataRow, kConnectData);

TEST_P(ConnectPrivateData, ArrivesOrIsRefused) {
  // Private data of the caller, 56 bytes at most (rdma_connect(3)).
  // Expect: the acceptor gets it, perhaps with padding; more is InvalidArgument and nothing
  // happens.
  std::string data = PrivateData(row().size);
  if (!row().tail.empty()) data.replace(data.size() - 20, row().tail.size(), row().tail);
  EXPECT_EQ(client().devices()[0]->attributes().private_data_connect, 56u);
  Strangers s(*this);
  if (!row().fits) {
    EXPECT_THAT(s.path.StartConnect(s.client.qp, {.private_data = data}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("56")));
    EXPECT_EQ(s.client.qp.state(), QpState::kInit);
    return;
  }
  EXPECT_THAT(s.Ask({.private_data = data}).private_data(), StartsWith(data));
}

const PrivateDataRow kAcceptData[] = {
    {"0", 0, true}, {"1", 1, true}, {"196", 196, true}, {"197", 197, false}};
CONFORMANCE_TABLE(AcceptPrivateData, PrivateDataRow, kAcceptData);

TEST_P(AcceptPrivateData, ArrivesOrIsRefused) {
  // Private data of the acceptor, 196 bytes at most (rdma_accept(3)).
  // Expect: it comes with the caller's kEstablished; more is InvalidArgument, and the request can
  // still be accepted without.
  const std::string data = PrivateData(row().size);
  EXPECT_EQ(client().devices()[0]->attributes().private_data_accept, 196u);
  Strangers s(*this);
  ConnectionRequest request = s.Ask();
  const absl::Status status = request.Accept(s.server.qp, {.private_data = data});
  if (!row().fits) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("196")));
    Check(request.Accept(s.server.qp));
  }
  const Event event = WaitForEvent(client(), EventType::kEstablished);
  EXPECT_THAT(event.private_data, StartsWith(row().fits ? data : ""));
}

const PrivateDataRow kRejectData[] = {
    {"0", 0, true}, {"1", 1, true}, {"148", 148, true}, {"149", 149, false}};
CONFORMANCE_TABLE(RejectPrivateData, PrivateDataRow, kRejectData);

TEST_P(RejectPrivateData, ArrivesOrIsRefused) {
  // Private data of a rejection, 148 bytes at most (rdma_reject(3)).
  // Expect: it comes with kRejected; more is InvalidArgument, and the request still waits.
  const std::string data = PrivateData(row().size);
  EXPECT_EQ(client().devices()[0]->attributes().private_data_reject, 148u);
  Strangers s(*this);
  ConnectionRequest request = s.Ask();
  const absl::Status status = request.Reject(data);
  if (!row().fits) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("148")));
    Check(request.Reject());
  }
  const Event event = WaitForEvent(client(), EventType::kRejected);
  EXPECT_THAT(event.private_data, StartsWith(row().fits ? data : ""));
}

struct DepthRow {
  std::string name;
  uint32_t client_ord, client_ird, server_ord, server_ird;
};

const DepthRow kDepths[] = {
    {"Equal", 16, 16, 16, 16}, {"ServerTakesLess", 64, 8, 8, 4}, {"ClientOffersLess", 2, 3, 64, 64},
    {"OneEach", 1, 1, 1, 1},   {"Deep", 128, 128, 128, 128},
};
CONFORMANCE_TABLE(Depths, DepthRow, kDepths);

TEST_P(Depths, BothEndsGetTheSmaller) {
  // Initiator depth and responder resources of both ends (rdma_connect(3), RFC 6581 9).
  // Expect: what one end may have in flight is at most what the other takes.
  const DepthRow& depth = row();
  Pair pair = MakePair(
      *this,
      {.connect = {.initiator_depth = depth.client_ord, .responder_resources = depth.client_ird},
       .accept = {.initiator_depth = depth.server_ord, .responder_resources = depth.server_ird}});
  const QpAttributes ours = pair.client->qp.Query(), theirs = pair.server->qp.Query();
  EXPECT_EQ(ours.initiator_depth, std::min(depth.client_ord, depth.server_ird));
  EXPECT_EQ(theirs.initiator_depth, std::min(depth.server_ord, depth.client_ird));
  EXPECT_LE(ours.initiator_depth, theirs.responder_resources);
  EXPECT_LE(theirs.initiator_depth, ours.responder_resources);
}

CONFORMANCE_SUITE(Negotiation);

TEST_P(Negotiation, ConfirmedByAPeerThatTakesNoReads) {
  // The caller takes no reads; the acceptor requires that its requests are complete at the peer.
  // Expect: an iWARP device, where reads confirm that, refuses, and both ends learn why. Elsewhere
  // they connect.
  Strangers s(*this);
  ConnectionRequest request = s.Ask({.responder_resources = 0});
  const absl::Status status = request.Accept(s.server.qp, {.require = {.remote_completion = true}});
  if (server().devices()[0]->info().link == Link::kIwarp) {
    EXPECT_THAT(status,
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("takes no reads")));
    EXPECT_THAT(WaitForEvent(client(), EventType::kRejected).private_data,
                HasSubstr("remote_completion"));
  } else {
    EXPECT_THAT(status, IsOk());
    WaitForEvent(client(), EventType::kEstablished);
    EXPECT_TRUE(s.server.qp.capabilities().remote_completion);
  }
}

TEST_P(Negotiation, RequirementsThatAreMet) {
  // Both ends insist on what the device has.
  // Expect: established, and the queue pairs' capabilities say so.
  const Capabilities most = client().devices()[0]->capabilities();
  const Require all{.atomics = most.atomics,
                    .immediate = most.immediate,
                    .rnr = most.rnr,
                    .remote_completion = most.remote_completion};
  Pair pair = MakePair(*this, {.connect = {.require = all}, .accept = {.require = all}});
  for (End* end : {pair.client.get(), pair.server.get()}) {
    const Capabilities actual = end->qp.capabilities();
    EXPECT_EQ(actual.atomics, most.atomics);
    EXPECT_EQ(actual.immediate, most.immediate);
    EXPECT_EQ(actual.rnr, most.rnr);
    EXPECT_EQ(actual.remote_completion, most.remote_completion);
  }
}

TEST_P(Negotiation, TrafficClassOfEachEnd) {
  // Both ends ask for a traffic class (RDMA_OPTION_ID_TOS of rdma_set_option(3), IP_TOS of ip(7)).
  // Expect: the queue pair has it, and the socket, where there is one. Packets of both ends for
  // those who look at them (tests/soft_rdma/inside/on_the_wire).
  if (!client().devices()[0]->capabilities().traffic_class) {
    GTEST_SKIP() << "capability: traffic_class";
  }
  Pair pair =
      MakePair(*this, {.connect = {.traffic_class = 0x68}, .accept = {.traffic_class = 0x20}});
  for (const auto& [from, to] : {std::pair(pair.client.get(), pair.server.get()),
                                 std::pair(pair.server.get(), pair.client.get())}) {
    PostReceive(to->qp, {.local = to->slice(0, 8), .id = 1});
    Post(from->qp, {.opcode = Opcode::kSend, .local = from->slice(64, 8), .id = 2});
    EXPECT_THAT(WaitOne(to->cq), Succeeded(1));
    EXPECT_THAT(WaitOne(from->cq), Succeeded(2));
  }
  EXPECT_EQ(pair.client->qp.Query().traffic_class, 0x68);
  EXPECT_EQ(pair.server->qp.Query().traffic_class, 0x20);
  EXPECT_THAT(ground().TrafficClass(pair.client->qp), testing::AnyOf(-1, 0x68));
  EXPECT_THAT(ground().TrafficClass(pair.server->qp), testing::AnyOf(-1, 0x20));
  if (client().devices()[0]->info().provider == "tcp" && !simulated()) {
    EXPECT_EQ(ground().TrafficClass(pair.client->qp), 0x68);
  }
}

TEST_P(Negotiation, ParametersReachTheQueuePair) {
  // rnr_retry, retry_count and timeout of Connect and Accept.
  // Expect: Query tells them at the end that gave them.
  Pair pair = MakePair(*this, {.connect = {.rnr_retry = 3, .retry_count = 4, .timeout = 19},
                               .accept = {.rnr_retry = 5, .retry_count = 6, .timeout = 20}});
  const QpAttributes ours = pair.client->qp.Query(), theirs = pair.server->qp.Query();
  EXPECT_EQ(ours.rnr_retry, 3);
  EXPECT_EQ(ours.retry_count, 4);
  EXPECT_EQ(ours.timeout, 19);
  EXPECT_EQ(theirs.rnr_retry, 5);
  EXPECT_EQ(theirs.retry_count, 6);
  EXPECT_EQ(theirs.timeout, 20);
}

TEST_P(Negotiation, TimersAreThePathsUnlessAskedFor) {
  // Neither end says a timeout; the caller says a retry count, the accepting end none.
  // Expect: what the path needs. On RoCE that is twice the life time that Linux takes for a packet
  // (6.1: 1.07 s, later 0.27 s; cma.c CMA_IBOE_PACKET_LIFETIME), and the request carries the
  // caller's count (IBTA 12.7.38). Elsewhere the defaults.
  Pair pair = MakePair(*this, {.connect = {.retry_count = 4}});
  const QpAttributes ours = pair.client->qp.Query(), theirs = pair.server->qp.Query();
  const Link link = client().devices()[0]->info().link;
  EXPECT_EQ(ours.retry_count, 4);
  EXPECT_EQ(theirs.timeout, ours.timeout);
  if (link == Link::kRoce) {
    EXPECT_THAT(ours.timeout, testing::AnyOf(17, 19));
  } else if (link != Link::kInfiniband) {
    EXPECT_EQ(ours.timeout, kDefaultTimeout);
  }
  const bool carried = link == Link::kRoce || link == Link::kInfiniband;
  EXPECT_EQ(theirs.retry_count, carried ? 4 : kDefaultRetryCount);
}

}  // namespace
}  // namespace verbena::conformance
