// SPDX-License-Identifier: Apache-2.0
// Sends and receives: ibv_post_send(3), ibv_post_recv(3), IBTA 9.4.1 (send), 9.7.4 (responder).
#include <vector>

#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Field;

CONFORMANCE_SUITE(SendReceive);

TEST_P(SendReceive, MessageOfNoEntries) {
  // A send and a receive with no entries at all.
  // Expect: both complete, length 0.
  Pair pair = MakePair(*this);
  PostReceive(pair.server->qp, {.id = 7});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .id = 8});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(8));
  EXPECT_THAT(WaitOne(pair.server->cq), AllOf(Succeeded(7), Field(&WorkCompletion::length, 0u)));
}

TEST_P(SendReceive, CompletionTellsOperationLengthAndQueuePair) {
  // One message of 100 bytes.
  // Expect: Send at the sender, Receive with length 100 at the receiver, each with its own number.
  Pair pair = MakePair(*this);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 4096), .id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 100), .id = 2});
  const WorkCompletion sent = WaitOne(pair.client->cq);
  EXPECT_THAT(sent, Succeeded(2));
  EXPECT_EQ(sent.opcode, WcOpcode::kSend);
  EXPECT_EQ(sent.qp_number, pair.client->qp.number());
  EXPECT_FALSE(sent.has_immediate);
  const WorkCompletion received = WaitOne(pair.server->cq);
  EXPECT_THAT(received, Succeeded(1));
  EXPECT_EQ(received.opcode, WcOpcode::kReceive);
  EXPECT_EQ(received.length, 100u);
  EXPECT_EQ(received.qp_number, pair.server->qp.number());
  EXPECT_FALSE(received.has_immediate);
  EXPECT_FALSE(received.has_invalidated);
}

TEST_P(SendReceive, ReceiveMayBeLargerThanTheMessage) {
  // 10 bytes into a receive of 4096.
  // Expect: the 10 bytes, and the rest of the memory untouched.
  Pair pair = MakePair(*this);
  Fill(pair.client->bytes(0, 10), 1);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 4096), .id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 10), .id = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(1));
  EXPECT_THAT(pair.server->bytes(0, 10), HasPattern(1));
  EXPECT_THAT(pair.server->bytes(10, 4086), IsZero());
}

TEST_P(SendReceive, ReceiveTooSmall) {
  // 65 bytes into a receive of 64, with more work queued behind on both sides.
  // Expect: LOC_LEN_ERR at the receiver, REM_INV_REQ_ERR at the sender (IBTA 9.9.3), the rest
  // flushed, both ends in ERR, nothing written past the receive.
  Pair pair = MakePair(*this);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 64), .id = 1});
  PostReceive(pair.server->qp, {.local = pair.server->slice(4096, 4096), .id = 2});
  Fill(pair.client->bytes(0, 65), 1);
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 65), .id = 3});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = 4});
  EXPECT_THAT(WaitFor(pair.server->cq, 2),
              ElementsAre(Completed(1, WcStatus::kLocalLengthError), Flushed(2)));
  EXPECT_THAT(WaitFor(pair.client->cq, 2),
              ElementsAre(Completed(3, Refusal(WcStatus::kRemoteInvalidRequest)), Flushed(4)));
  EXPECT_EQ(pair.server->qp.state(), QpState::kErr);
  EXPECT_EQ(pair.client->qp.state(), QpState::kErr);
  EXPECT_THAT(pair.server->bytes(64, 8192), IsZero());
}

TEST_P(SendReceive, LargeMessageIntoReceiveTooSmall) {
  // A message of many frames into a receive that is one byte short.
  // Expect: as for a small one.
  constexpr uint32_t kSize = 200000;
  Pair pair = MakePair(*this);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, kSize - 1), .id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, kSize), .id = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), Completed(1, WcStatus::kLocalLengthError));
  EXPECT_THAT(WaitOne(pair.client->cq), Completed(2, Refusal(WcStatus::kRemoteInvalidRequest)));
}

TEST_P(SendReceive, ImmediateArrives) {
  // A send with immediate data.
  // Expect: the receive has it in host order, and the payload; it takes one receive.
  if (!client().devices()[0]->capabilities().immediate) GTEST_SKIP() << "capability: immediate";
  Pair pair = MakePair(*this);
  Fill(pair.client->bytes(0, 100), 1);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 4096), .id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kSendWithImm,
                         .local = pair.client->slice(0, 100),
                         .id = 2,
                         .immediate = 0xfedcba98});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(2));
  const WorkCompletion received = WaitOne(pair.server->cq);
  EXPECT_THAT(received, Succeeded(1));
  EXPECT_EQ(received.opcode, WcOpcode::kReceive);
  EXPECT_TRUE(received.has_immediate);
  EXPECT_EQ(received.immediate_or_key, 0xfedcba98u);
  EXPECT_EQ(received.length, 100u);
  EXPECT_THAT(pair.server->bytes(0, 100), HasPattern(1));
}

TEST_P(SendReceive, ImmediateWithoutPayload) {
  // Expect: the immediate alone, into a receive without memory.
  if (!client().devices()[0]->capabilities().immediate) GTEST_SKIP() << "capability: immediate";
  Pair pair = MakePair(*this);
  PostReceive(pair.server->qp, {.id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kSendWithImm, .id = 2, .immediate = 5});
  const WorkCompletion received = WaitOne(pair.server->cq);
  EXPECT_THAT(received, Succeeded(1));
  EXPECT_TRUE(received.has_immediate);
  EXPECT_EQ(received.immediate_or_key, 5u);
  EXPECT_EQ(received.length, 0u);
}

TEST_P(SendReceive, PlainMessagesAmongThoseWithImmediate) {
  // Sends with and without immediate data in turns.
  // Expect: each receive tells which it was.
  if (!client().devices()[0]->capabilities().immediate) GTEST_SKIP() << "capability: immediate";
  Pair pair = MakePair(*this);
  for (uint32_t i = 0; i < 20; ++i) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(64 * i, 64), .id = i});
  }
  for (uint32_t i = 0; i < 20; ++i) {
    Post(pair.client->qp, {.opcode = i % 2 == 0 ? Opcode::kSend : Opcode::kSendWithImm,
                           .local = pair.client->slice(0, i),
                           .id = i,
                           .immediate = i});
  }
  const std::vector<WorkCompletion> received = WaitFor(pair.server->cq, 20);
  for (uint32_t i = 0; i < 20; ++i) {
    EXPECT_THAT(received[i], Succeeded(i));
    EXPECT_EQ(received[i].has_immediate, i % 2 == 1);
    EXPECT_EQ(received[i].length, i);
  }
}

TEST_P(SendReceive, SolicitedIsAnOrdinaryMessageToPollers) {
  // Expect: payload and completion as without the flag.
  Pair pair = MakePair(*this);
  Fill(pair.client->bytes(0, 100), 1);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 100), .id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kSend,
                         .local = pair.client->slice(0, 100),
                         .id = 2,
                         .flags = SendFlags::kSolicited});
  EXPECT_THAT(WaitOne(pair.server->cq), Succeeded(1));
  EXPECT_THAT(pair.server->bytes(0, 100), HasPattern(1));
}

TEST_P(SendReceive, ThousandMessagesArriveInOrder) {
  // 1000 messages of many sizes through queues of 64; receives are posted anew as they complete.
  // Expect: order, lengths and content of every one; sends complete in order too.
  constexpr uint32_t kCount = 1000, kDepth = 64, kSlot = 2048;
  Pair pair = MakePair(*this);
  End& server = *pair.server;
  End& client = *pair.client;
  const auto size_of = [](uint32_t i) { return (i * 193) % kSlot; };
  const auto receive = [&](uint32_t i) {
    PostReceive(server.qp, {.local = server.slice(i % kDepth * kSlot, kSlot), .id = i});
  };
  const auto send = [&](uint32_t i) {
    const uint64_t slot = i % kDepth * kSlot;
    Fill(client.bytes(slot, size_of(i)), i);
    Post(client.qp, {.opcode = Opcode::kSend, .local = client.slice(slot, size_of(i)), .id = i});
  };
  for (uint32_t i = 0; i < kDepth; ++i) receive(i);
  for (uint32_t i = 0; i < kDepth; ++i) send(i);
  for (uint32_t i = 0; i < kCount; ++i) {
    const WorkCompletion received = WaitOne(server.cq);
    ASSERT_THAT(received, Succeeded(i));
    ASSERT_EQ(received.length, size_of(i));
    ASSERT_THAT(server.bytes(i % kDepth * kSlot, size_of(i)), HasPattern(i));
    if (i + kDepth < kCount) receive(i + kDepth);
    ASSERT_THAT(WaitOne(client.cq), Succeeded(i));
    if (i + kDepth < kCount) send(i + kDepth);
  }
}

TEST_P(SendReceive, BothDirectionsAtOnce) {
  // Both ends post 100 sends of 64 KiB before either looks for completions.
  // Expect: all arrive; two peers that both send cannot deadlock.
  constexpr uint32_t kCount = 100, kSize = 64 << 10;
  Pair pair = MakePair(*this, Both({.memory = 4 * kSize}));
  End* ends[] = {pair.server.get(), pair.client.get()};
  for (End* end : ends) {
    Fill(end->bytes(0, kSize), end == pair.server.get() ? 1 : 2);
    for (uint32_t i = 0; i < kCount; ++i) {
      PostReceive(end->qp, {.local = end->slice(kSize, kSize), .id = 1000 + i});
    }
  }
  for (uint32_t i = 0; i < kCount; ++i) {
    for (End* end : ends) {
      Post(end->qp, {.opcode = Opcode::kSend, .local = end->slice(0, kSize), .id = i});
    }
  }
  for (End* end : ends) {
    uint64_t sent = 0, received = 1000;
    for (const WorkCompletion& wc : WaitFor(end->cq, 2 * kCount)) {
      ASSERT_THAT(wc, Succeeded(wc.id < 1000 ? sent++ : received++));
    }
    EXPECT_THAT(end->bytes(kSize, kSize), HasPattern(end == pair.server.get() ? 2 : 1));
  }
}

TEST_P(SendReceive, OnePostOfManyRequests) {
  // 32 receives and 32 sends, one call each.
  // Expect: all accepted; completions in the order of the arrays.
  Pair pair = MakePair(*this);
  std::vector<ReceiveWr> receives(32);
  std::vector<SendWr> sends(32);
  for (uint32_t i = 0; i < 32; ++i) {
    receives[i] = {.local = pair.server->slice(100 * i, 100), .id = i};
    sends[i] = {.opcode = Opcode::kSend, .local = pair.client->slice(0, i), .id = 100 + i};
  }
  EXPECT_THAT(pair.server->qp.PostReceive(receives), Posted(32, PostError::kNone));
  EXPECT_THAT(pair.client->qp.PostSend(sends), Posted(32, PostError::kNone));
  const std::vector<WorkCompletion> received = WaitFor(pair.server->cq, 32);
  const std::vector<WorkCompletion> sent = WaitFor(pair.client->cq, 32);
  for (uint32_t i = 0; i < 32; ++i) {
    EXPECT_THAT(received[i], AllOf(Succeeded(i), Field(&WorkCompletion::length, i)));
    EXPECT_THAT(sent[i], Succeeded(100 + i));
  }
}

TEST_P(SendReceive, PostOfNothing) {
  // Expect: an empty array is accepted and does nothing.
  Pair pair = MakePair(*this);
  EXPECT_THAT(pair.client->qp.PostSend(std::span<const SendWr>()), Posted(0, PostError::kNone));
  EXPECT_THAT(pair.client->qp.PostReceive(std::span<const ReceiveWr>()),
              Posted(0, PostError::kNone));
  EXPECT_TRUE(StaysEmpty(pair.client->cq));
}

TEST_P(SendReceive, EntriesOfNoLengthAreAllowedAmongOthers) {
  // Gather {3, 0, 5} and scatter {0, 4, 0, 100} with keys that are checked only where bytes move
  // (IBTA 11.4.1.1: a data segment of length 0 takes no part).
  Pair pair = MakePair(*this);
  Fill(pair.client->bytes(0, 8), 1);
  const Sge gather[] = {
      pair.client->slice(0, 3), {.address = 1, .length = 0, .key = 99}, pair.client->slice(3, 5)};
  const Sge scatter[] = {{.address = 1, .length = 0, .key = 99},
                         pair.server->slice(0, 4),
                         {.address = 1, .length = 0, .key = 99},
                         pair.server->slice(4, 100)};
  PostReceive(pair.server->qp, {.local = SgeList(scatter), .id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = SgeList(gather), .id = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), AllOf(Succeeded(1), Field(&WorkCompletion::length, 8u)));
  EXPECT_THAT(pair.server->bytes(0, 8), HasPattern(1));
}

TEST_P(SendReceive, MessageOverTheMaximumIsRefused) {
  // A gather list of more than DeviceAttributes::max_message bytes of reserved, untouched memory.
  // Expect: the post is refused, or it completes with LOC_LEN_ERR; no byte leaves.
  if (!client().devices()[0]->capabilities().lazy_registration) {
    GTEST_SKIP() << "capability: lazy_registration";
  }
  const DeviceAttributes limits = client().devices()[0]->attributes();
  ASSERT_GE(limits.max_message, 1u << 30) << "one message holds at least 1 GiB";
  Buffer huge(5ull << 30);
  ASSERT_LT(limits.max_message, 4 * ((1ull << 31) - 1));
  Pair pair = MakePair(*this);
  {
    MemoryRegion region = Check(pair.client->pd.Register(huge.bytes(), Access::kLocalWrite));
    const uint32_t part = static_cast<uint32_t>(limits.max_message / 4 + 1);
    const Sge gather[] = {region.slice(0, part), region.slice(0, part), region.slice(0, part),
                          region.slice(0, part)};
    const uint64_t sent_before = pair.client->qp.counters().bytes_sent;
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 4096), .id = 1});
    const PostResult result =
        pair.client->qp.PostSend({.opcode = Opcode::kSend, .local = SgeList(gather), .id = 2});
    if (result.ok()) {
      EXPECT_THAT(WaitOne(pair.client->cq), Completed(2, WcStatus::kLocalLengthError));
    }
    EXPECT_LT(pair.client->qp.counters().bytes_sent - sent_before, 4096u);
    Check(pair.client->qp.Close());
  }
}

TEST_P(SendReceive, SixteenThousandOutstanding) {
  // 16384 sends are posted before the receiver posts anything.
  // Expect: all wait, then all arrive in order.
  constexpr uint32_t kCount = 16384;
  if (client().devices()[0]->attributes().max_work_requests < kCount) {
    GTEST_SKIP() << "limit: max_work_requests";
  }
  if (!client().devices()[0]->capabilities().rnr) GTEST_SKIP() << "capability: rnr";
  const EndOptions deep{.limits = {.max_send_wr = kCount, .max_receive_wr = kCount},
                        .cq_entries = 2 * kCount};
  Pair pair = MakePair(*this, {.server = deep, .client = deep, .server_min_rnr_timer = 1});
  for (uint32_t i = 0; i < kCount; ++i) {
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = i});
  }
  EXPECT_EQ(pair.client->qp.Query().send_outstanding, kCount);
  for (uint32_t i = 0; i < kCount; ++i) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = i});
  }
  const std::vector<WorkCompletion> received = WaitFor(pair.server->cq, kCount);
  const std::vector<WorkCompletion> sent = WaitFor(pair.client->cq, kCount);
  for (uint32_t i = 0; i < kCount; ++i) {
    ASSERT_THAT(received[i], Succeeded(i));
    ASSERT_THAT(sent[i], Succeeded(i));
  }
}

TEST_P(SendReceive, BetweenQueuePairsOfOneContext) {
  // Both ends live in one context.
  // Expect: nothing is special about it.
  Device& device = *client().devices()[0];
  End a(device, {}), b(device, {});
  Listener listener = Check(client().Listen(ground().address(1) + ":0"));
  Path path = Check(client().Resolve(listener.address()));
  Check(path.StartConnect(a.qp));
  ConnectionRequest request = Check(listener.Next(kLong));
  EXPECT_EQ(&request.device(), &device);
  Check(request.Accept(b.qp));
  WaitForEvent(client(), EventType::kEstablished);
  WaitForEvent(client(), EventType::kEstablished);
  Fill(a.bytes(0, 5000), 1);
  PostReceive(b.qp, {.local = b.slice(0, 5000), .id = 1});
  Post(a.qp, {.opcode = Opcode::kSend, .local = a.slice(0, 5000), .id = 2});
  EXPECT_THAT(WaitOne(b.cq), Succeeded(1));
  EXPECT_THAT(WaitOne(a.cq), Succeeded(2));
  EXPECT_THAT(b.bytes(0, 5000), HasPattern(1));
}

}  // namespace
}  // namespace verbena::conformance
