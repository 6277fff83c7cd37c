// SPDX-License-Identifier: Apache-2.0
// The network breaks connections at random places, on every ground that can be cut. Whatever the
// moment, queue pairs fail cleanly and the program goes on.

#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

CONFORMANCE_SUITE(Resets);

TEST_P(Resets, AtAnyMoment) {
  // 20 connections, each cut after another number of completions of a mixed load in both
  // directions.
  // Expect: on each queue successes in order, then one error, then flushes; every request completes
  // once; the next connection works.
  const bool atomics = client().devices()[0]->capabilities().atomics;
  End server_end(*server().devices()[0], {}), client_end(*client().devices()[0], {});
  for (uint64_t round = 0; round < 20; ++round) {
    QueuePair ours = client_end.NewQueuePair(), theirs = server_end.NewQueuePair();
    Connect(*this, ours, theirs);
    constexpr uint64_t kCount = 60;
    struct Side {
      End* end;
      End* peer;
      QueuePair* qp;
    } sides[] = {{&client_end, &server_end, &ours}, {&server_end, &client_end, &theirs}};
    for (const Side& side : sides) {
      for (uint64_t id = 0; id < kCount; ++id) {
        PostReceive(*side.qp, {.local = side.end->slice(0, 4096), .id = 1000 + id});
        Opcode opcode = id % 5 == 4 ? Opcode::kSend : kOneSided[id % 4];
        if (IsAtomic(opcode) && !atomics) opcode = Opcode::kRead;
        Post(*side.qp, OneSided(opcode, *side.end, side.peer->at(8192), id,
                                IsAtomic(opcode) ? 8 : 1 + id * 61 % 4096));
      }
    }
    WaitFor(client_end.cq, round);
    if (!ground().Cut(ours)) GTEST_SKIP() << "network: cannot be cut";
    ASSERT_TRUE(
        RunUntil([&] { return ours.state() == QpState::kErr && theirs.state() == QpState::kErr; }));
    WaitFor(client_end.cq, 2 * kCount - round);
    WaitFor(server_end.cq, 2 * kCount);
    EXPECT_TRUE(StaysEmpty(client_end.cq, absl::Milliseconds(1)));
    EXPECT_TRUE(StaysEmpty(server_end.cq, absl::Milliseconds(1)));
  }
}

TEST_P(Resets, WhileConnecting) {
  // The connection is cut between request and accept.
  // Expect: the caller learns that the peer cannot be reached; Accept says Unavailable, or the
  // accepted queue pair fails; neither end hangs.
  End server_end(*server().devices()[0], {}), client_end(*client().devices()[0], {});
  Listener listener = Check(server().Listen(AnyPort()));
  Path path = Check(client().Resolve(listener.address()));
  Check(path.StartConnect(client_end.qp));
  ConnectionRequest request = Check(listener.Next(kLong));
  if (!simulated() || !ground().Cut(client_end.qp)) {
    GTEST_SKIP() << "network: cannot be cut before it is connected";
  }
  const Event event = Check(client().events().Next(kLong));
  EXPECT_EQ(event.type, EventType::kUnreachable);
  const absl::Status accepted = request.Accept(server_end.qp);
  if (accepted.ok()) {
    EXPECT_TRUE(RunUntil([&] { return server_end.qp.state() == QpState::kErr; }));
  } else {
    EXPECT_THAT(accepted, StatusIs(absl::StatusCode::kUnavailable));
  }
}

}  // namespace
}  // namespace verbena::conformance
