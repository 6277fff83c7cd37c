// SPDX-License-Identifier: Apache-2.0
// Posting and completing: ibv_post_send(3), ibv_poll_cq(3), ibv_resize_cq(3); IBTA 10.8, 11.4.2.
#include <algorithm>
#include <string>
#include <vector>

#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

using testing::ElementsAre;

CONFORMANCE_SUITE(Completions);

TEST_P(Completions, KindsOfRequestsCompleteInPostingOrder) {
  // A mix of all operations, 100 of them, posted as the queue takes them.
  // Expect: one completion each, in posting order (IBTA 10.8.3.3).
  const Capabilities can = client().devices()[0]->capabilities();
  Pair pair = MakePair(*this, Both({.limits = {.max_receive_wr = 200}}));
  for (uint64_t i = 0; i < 100; ++i) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(8192, 5000), .id = i});
  }
  for (uint64_t i = 0; i < 100; ++i) {
    Opcode opcode = kOneSided[i % 4];
    if (i % 5 == 0) opcode = Opcode::kSend;
    if (IsAtomic(opcode) && !can.atomics) opcode = Opcode::kRead;
    Post(pair.client->qp, OneSided(opcode, *pair.client, pair.server->at(0), i,
                                   IsAtomic(opcode) ? 8 : static_cast<uint32_t>(i * 50)));
  }
  const std::vector<WorkCompletion> done = WaitFor(pair.client->cq, 100);
  for (uint64_t i = 0; i < 100; ++i) EXPECT_THAT(done[i], Succeeded(i));
}

TEST_P(Completions, SelectiveSignallingMakesOnlyThoseAskedFor) {
  // Selective: nine writes without kSignaled, then one with it.
  // Expect: one completion; when it is there all ten have been applied.
  Pair pair = MakePair(*this, {.client = {.signal = Signal::kSelective}});
  for (uint64_t i = 0; i < 10; ++i) {
    pair.client->buffer.word(8 * i) = i + 1;
    Post(pair.client->qp, {.opcode = Opcode::kWrite,
                           .local = pair.client->slice(8 * i, 8),
                           .remote = pair.server->at(8 * i),
                           .id = i,
                           .flags = i == 9 ? SendFlags::kSignaled : SendFlags::kNone});
  }
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(9));
  for (uint64_t i = 0; i < 10; ++i) EXPECT_EQ(pair.server->buffer.word(8 * i), i + 1);
  EXPECT_TRUE(StaysEmpty(pair.client->cq));
  EXPECT_EQ(pair.client->qp.counters().send_completions, 10u);
}

TEST_P(Completions, UnsignalledRequestsFreeTheirPlaces) {
  // Selective, depth 16: 400 writes of which every eighth is signalled.
  // Expect: the queue takes them all as signalled ones complete.
  Pair pair =
      MakePair(*this, {.client = {.limits = {.max_send_wr = 16}, .signal = Signal::kSelective}});
  for (uint64_t i = 0; i < 400; ++i) {
    SendWr write = OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), i);
    if (i % 8 == 7) write.flags = SendFlags::kSignaled;
    Post(pair.client->qp, write);
    if (i % 8 == 7) {
      ASSERT_THAT(WaitOne(pair.client->cq), Succeeded(i));
    }
  }
}

TEST_P(Completions, UnsignalledErrorsComplete) {
  // Selective: an unsignalled write with a wrong key, another behind it.
  // Expect: both make completions: errors are never silent (IBTA 10.8).
  if (!client().devices()[0]->capabilities().refusal_reasons) {
    GTEST_SKIP() << "capability: refusal_reasons";
  }
  Pair pair = MakePair(*this, {.client = {.signal = Signal::kSelective}});
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), 1));
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, {.address = 8, .key = 1}, 2));
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), 3));
  EXPECT_THAT(WaitFor(pair.client->cq, 2),
              ElementsAre(Completed(2, Refusal(WcStatus::kRemoteAccessError)), Flushed(3)));
}

TEST_P(Completions, ACompletedSendIsAtThePeer) {
  // A send completes; nobody has polled the receiver.
  // Expect: the message is in the receiver's memory already and its completion in the queue.
  if (!client().devices()[0]->capabilities().remote_completion) {
    GTEST_SKIP() << "capability: remote_completion";
  }
  Pair pair = MakePair(*this);
  for (uint64_t i = 0; i < 20; ++i) {
    Fill(pair.client->bytes(0, 3000), i);
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 3000), .id = i});
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 3000), .id = i});
    ASSERT_THAT(WaitOne(pair.client->cq), Succeeded(i));
    ASSERT_THAT(pair.server->bytes(0, 3000), HasPattern(i));
    WorkCompletion received;
    ASSERT_EQ(pair.server->cq.Poll({&received, 1}), 1u);
    ASSERT_THAT(received, Succeeded(i));
  }
}

TEST_P(Completions, FullSendQueueRefuses) {
  // Sends that wait for receives fill the queue; one more; then a batch that is too long.
  // Expect: exactly as many as the limit are accepted, then kQueueFull; nothing of the rest runs.
  if (!client().devices()[0]->capabilities().rnr) GTEST_SKIP() << "capability: rnr";
  Pair pair =
      MakePair(*this, {.client = {.limits = {.max_send_wr = 16}}, .server_min_rnr_timer = 1});
  const uint32_t depth = pair.client->qp.Query().limits.max_send_wr;
  std::vector<SendWr> batch(depth + 5);
  for (uint32_t i = 0; i < batch.size(); ++i) {
    batch[i] = {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = i};
  }
  EXPECT_THAT(pair.client->qp.PostSend(batch), Posted(depth, PostError::kQueueFull));
  EXPECT_THAT(pair.client->qp.PostSend(batch[0]), Refused(PostError::kQueueFull));
  for (uint32_t i = 0; i < depth; ++i) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = i});
  }
  WaitFor(pair.client->cq, depth);
  EXPECT_TRUE(StaysEmpty(pair.client->cq));
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = 99});
  Post(pair.client->qp, batch[0]);
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(0));
}

TEST_P(Completions, UnpolledCompletionsKeepTheirPlaces) {
  // A completion queue with room for one full send queue; the program posts until it is refused,
  // lets everything complete, and posts again without polling.
  // Expect: refused as long as nothing was retrieved: a request is outstanding until its completion
  // has been polled (IBTA 10.8), so queues of matching sizes never overflow.
  Pair pair = MakePair(*this, {.client = {.limits = {.max_send_wr = 16}, .cq_entries = 16}});
  const uint32_t depth = pair.client->qp.Query().limits.max_send_wr;
  Check(pair.client->cq.Resize(depth));
  const SendWr write = OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), 1);
  for (uint32_t i = 0; i < depth; ++i) Post(pair.client->qp, write);
  ASSERT_TRUE(RunUntil([&] { return pair.client->qp.counters().send_completions == depth; }));
  EXPECT_THAT(pair.client->qp.PostSend(write), Refused(PostError::kQueueFull));
  WaitFor(pair.client->cq, 1);
  EXPECT_THAT(pair.client->qp.PostSend(write), Posted(1, PostError::kNone));
  EXPECT_THAT(pair.client->qp.PostSend(write), Refused(PostError::kQueueFull));
  WaitFor(pair.client->cq, depth);
  EXPECT_TRUE(NoEvent(client(), EventType::kCqError));
}

TEST_P(Completions, FullReceiveQueueRefuses) {
  // Expect: as many receives as the limit, then kQueueFull; a place is free after one was used.
  Pair pair = MakePair(*this, {.server = {.limits = {.max_receive_wr = 16}}});
  const uint32_t depth = pair.server->qp.Query().limits.max_receive_wr;
  std::vector<ReceiveWr> batch(depth + 1, {.local = pair.server->slice(0, 8)});
  EXPECT_THAT(pair.server->qp.PostReceive(batch), Posted(depth, PostError::kQueueFull));
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = 1});
  WaitOne(pair.server->cq);
  EXPECT_THAT(pair.server->qp.PostReceive(batch), Posted(1, PostError::kQueueFull));
}

struct BadPostRow {
  std::string name;
  PostError error;
  void (*spoil)(SendWr* request, std::vector<Sge>* entries);
};

const BadPostRow kBadPosts[] = {
    {"TooManyEntries", PostError::kTooManySges,
     [](SendWr* request, std::vector<Sge>* entries) {
       entries->resize(5, entries->front());
       request->local = SgeList(*entries);
     }},
    {"InlineTooLong", PostError::kInlineTooLong,
     [](SendWr* request, std::vector<Sge>* entries) {
       entries->front().length = 4096;
       request->local = SgeList(*entries);
       request->flags = SendFlags::kInline;
     }},
    {"NoSuchOpcode", PostError::kInvalidOpcode,
     [](SendWr* request, std::vector<Sge>*) { request->opcode = static_cast<Opcode>(77); }},
    {"InlineRead", PostError::kInvalidOpcode,
     [](SendWr* request, std::vector<Sge>*) {
       request->opcode = Opcode::kRead;
       request->flags = SendFlags::kInline;
     }},
    {"InlineAtomic", PostError::kInvalidOpcode,
     [](SendWr* request, std::vector<Sge>*) {
       request->opcode = Opcode::kFetchAdd;
       request->flags = SendFlags::kInline;
     }},
    {"BindOfNothing", PostError::kInvalidOpcode,
     [](SendWr* request, std::vector<Sge>*) { request->opcode = Opcode::kBindWindow; }},
};

CONFORMANCE_TABLE(BadPost, BadPostRow, kBadPosts);

TEST_P(BadPost, StopsTheArrayThere) {
  // Two good writes, one that cannot be posted, one more good one, in one call.
  // Expect: two accepted and run, the error named, the rest untouched (verbs' bad_wr); the queue
  // pair goes on working.
  Pair pair = MakePair(
      *this, {.client = {.limits = {.max_send_wr = 64, .max_send_sge = 4, .max_inline = 64}}});
  ASSERT_EQ(pair.client->qp.Query().limits.max_send_sge, 4u);
  std::vector<SendWr> batch;
  for (uint64_t i = 0; i < 4; ++i) {
    batch.push_back(OneSided(Opcode::kWrite, *pair.client, pair.server->at(64 * i), i));
  }
  std::vector<Sge> entries = {pair.client->slice(0, 8)};
  row().spoil(&batch[2], &entries);
  Fill(pair.client->bytes(0, 8), 1);
  EXPECT_THAT(pair.client->qp.PostSend(batch), Posted(2, row().error));
  EXPECT_THAT(WaitFor(pair.client->cq, 2), ElementsAre(Succeeded(0), Succeeded(1)));
  EXPECT_TRUE(StaysEmpty(pair.client->cq));
  EXPECT_THAT(pair.server->bytes(128, 1024), IsZero());
  Post(pair.client->qp, batch[3]);
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(3));
}

TEST_P(Completions, ReceiveOfTooManyEntriesIsRefused) {
  // Expect: kTooManySges; those before it are accepted.
  Pair pair = MakePair(*this, {.server = {.limits = {.max_receive_sge = 2}}});
  ASSERT_EQ(pair.server->qp.Query().limits.max_receive_sge, 2u);
  const Sge three[] = {pair.server->slice(0, 8), pair.server->slice(8, 8),
                       pair.server->slice(16, 8)};
  const ReceiveWr batch[] = {{.local = SgeList(std::span(three).first(2)), .id = 1},
                             {.local = SgeList(three), .id = 2}};
  EXPECT_THAT(pair.server->qp.PostReceive(batch), Posted(1, PostError::kTooManySges));
}

TEST_P(Completions, OverflowIsAnError) {
  // More receives complete than the queue holds, and nobody polls (IBTA 11.6.3).
  // Expect: kCqError with the queue's context; its queue pair fails; those that fit are there.
  Pair pair = MakePair(*this, {.server = {.cq_entries = 4, .separate_receive_cq = true}});
  CompletionQueue& cq = pair.server->receive_cq;
  const uint32_t room = cq.entries();
  ASSERT_LT(room, 128u);
  for (uint64_t i = 0; i <= room; ++i) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = i});
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = i});
  }
  EXPECT_EQ(WaitForEvent(server(), EventType::kCqError).context, &cq);
  ASSERT_TRUE(RunUntil([&] { return pair.server->qp.state() == QpState::kErr; }));
  EXPECT_EQ(cq.counters().overflows, 1u);
  std::vector<WorkCompletion> kept(room);
  ASSERT_EQ(cq.Poll(kept), room);
  for (uint64_t i = 0; i < room; ++i) EXPECT_THAT(kept[i], Succeeded(i));
  ASSERT_TRUE(RunUntil([&] { return pair.client->qp.state() == QpState::kErr; }));
}

TEST_P(Completions, ResizeKeepsWhatIsThere) {
  // Ten completions wait; the queue grows, shrinks to fit, and is asked to shrink below.
  // Expect: sizes at least as asked; InvalidArgument for too few; no completion lost or moved.
  Pair pair = MakePair(*this, {.client = {.cq_entries = 16}});
  for (uint64_t i = 0; i < 10; ++i) {
    Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), i));
  }
  ASSERT_TRUE(RunUntil([&] { return pair.client->qp.counters().send_completions == 10; }));
  Check(pair.client->cq.Resize(1000));
  EXPECT_GE(pair.client->cq.entries(), 1000u);
  Check(pair.client->cq.Resize(10));
  EXPECT_GE(pair.client->cq.entries(), 10u);
  EXPECT_THAT(pair.client->cq.Resize(9), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(pair.client->cq.Resize(0), StatusIs(absl::StatusCode::kInvalidArgument));
  const uint32_t most = client().devices()[0]->attributes().max_completions;
  EXPECT_THAT(pair.client->cq.Resize(most + 1), StatusIs(absl::StatusCode::kInvalidArgument));
  const std::vector<WorkCompletion> done = WaitFor(pair.client->cq, 10);
  for (uint64_t i = 0; i < 10; ++i) EXPECT_THAT(done[i], Succeeded(i));
}

TEST_P(Completions, ResizeUnderTraffic) {
  // The queue is resized again and again while writes complete.
  // Expect: each of 500 completions once, in order.
  Pair pair = MakePair(*this);
  uint64_t posted = 0, seen = 0;
  while (seen < 500) {
    while (posted < 500 && posted - seen < 64) {
      Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), posted++));
    }
    Check(pair.client->cq.Resize(posted % 2 == 0 ? 128 : 512));
    for (const WorkCompletion& wc : WaitFor(pair.client->cq, std::min<uint64_t>(7, 500 - seen))) {
      ASSERT_THAT(wc, Succeeded(seen++));
    }
  }
}

TEST_P(Completions, PollTakesAtMostWhatItIsGivenRoomFor) {
  // Ten completions polled as 0, 1, 3 and the rest.
  // Expect: oldest first, none twice, none lost.
  Pair pair = MakePair(*this);
  for (uint64_t i = 0; i < 10; ++i) {
    Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), i));
  }
  ASSERT_TRUE(RunUntil([&] { return pair.client->qp.counters().send_completions == 10; }));
  WorkCompletion room[64];
  EXPECT_EQ(pair.client->cq.Poll({}), 0u);
  ASSERT_EQ(pair.client->cq.Poll({room, 1}), 1u);
  EXPECT_THAT(room[0], Succeeded(0));
  ASSERT_EQ(pair.client->cq.Poll({room, 3}), 3u);
  EXPECT_THAT(room[2], Succeeded(3));
  ASSERT_EQ(pair.client->cq.Poll(room), 6u);
  EXPECT_THAT(room[5], Succeeded(9));
  EXPECT_EQ(pair.client->cq.Poll(room), 0u);
}

TEST_P(Completions, OneQueueForManyQueuePairs) {
  // Three connections of one end share its queue.
  // Expect: each completion names its queue pair; the order holds for each of them.
  Pair pair = MakePair(*this);
  std::vector<QueuePair> ours, theirs;
  std::vector<uint64_t> next(2);
  for (int i = 0; i < 2; ++i) {
    ours.push_back(pair.client->NewQueuePair());
    theirs.push_back(pair.server->NewQueuePair());
    Connect(*this, ours[i], theirs[i]);
  }
  for (uint64_t i = 0; i < 50; ++i) {
    for (QueuePair& qp : ours)
      Post(qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), i));
  }
  for (const WorkCompletion& wc : WaitFor(pair.client->cq, 100)) {
    const size_t which = wc.qp_number == ours[1].number() ? 1 : 0;
    EXPECT_EQ(wc.qp_number, ours[which].number());
    EXPECT_THAT(wc, Succeeded(next[which]++));
  }
}

TEST_P(Completions, SeparateQueuesForSendsAndReceives) {
  // Expect: sends complete on one, receives on the other.
  Pair pair = MakePair(*this, Both({.separate_receive_cq = true}));
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = 1});
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = 2});
  EXPECT_THAT(WaitOne(pair.server->receive_cq), Succeeded(1));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(2));
  EXPECT_TRUE(StaysEmpty(pair.server->cq));
  EXPECT_TRUE(StaysEmpty(pair.client->receive_cq));
}

TEST_P(Completions, WaitSaysWhatCameInTime) {
  // Wait for two completions of which one comes.
  // Expect: DeadlineExceeded after the time, with the one in its text.
  Pair pair = MakePair(*this);
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), 4711));
  EXPECT_THAT(pair.client->cq.Wait(2, kAWhile),
              StatusIs(absl::StatusCode::kDeadlineExceeded, testing::HasSubstr("4711")));
}

TEST_P(Completions, ErrorsExplainThemselves) {
  // A failed write.
  // Expect: WorkCompletion::ToStatus has status, request and queue pair; cause() has the key, in
  // sentences.
  Pair pair = MakePair(*this);
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, {.address = 8, .key = 0xabc}, 4711));
  const WorkCompletion failed = WaitOne(pair.client->cq);
  EXPECT_THAT(failed, Completed(4711, Refusal(WcStatus::kRemoteAccessError)));
  EXPECT_EQ(failed.qp_number, pair.client->qp.number());
  EXPECT_THAT(
      failed.ToStatus().ToString(),
      testing::AllOf(testing::HasSubstr(WcStatusName(failed.status)), testing::HasSubstr("4711")));
  EXPECT_THAT(pair.client->qp.cause().ToString(),
              testing::AllOf(testing::HasSubstr("abc"), testing::Not(testing::HasSubstr("..")),
                             testing::Not(testing::HasSubstr(". ("))));
  if (!server().devices()[0]->capabilities().responder_events) return;
  EXPECT_THAT(pair.server->qp.cause().ToString(), testing::HasSubstr("abc"));
}

}  // namespace
}  // namespace verbena::conformance
