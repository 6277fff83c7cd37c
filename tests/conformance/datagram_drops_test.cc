// SPDX-License-Identifier: Apache-2.0
// Unreliable datagrams that are lost: IBTA 9.8.3 (UD), 9.6.1.3.1 (Q_Key), 9.9.3. Where the peer
// cannot know of a loss, nothing is said, so what must not happen is looked at for a while, behind
// a datagram that does arrive.
#include "tests/conformance/datagrams.h"

namespace verbena::conformance {
namespace {

using testing::AllOf;
using testing::Field;

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

}  // namespace
}  // namespace verbena::conformance
