// SPDX-License-Identifier: Apache-2.0
// What an iWARP device is given for a request, and what is refused at this end.
#include <string>
#include <vector>

#include "verbs/iwarp_fixture.h"

namespace verbena::verbs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// Whose messages are shorter than its regions.
class IwarpShortMessages : public IwarpPosts {
 protected:
  void SetUp() override { Open(100); }
};

TEST_F(IwarpShortMessages, AreToldByTheirLengthNotByTheirRegions) {
  // Expect: what fits goes out with the right keys, again and again; what does not fails here.
  Connect(16);
  for (const Opcode opcode : {Opcode::kSend, Opcode::kWrite, Opcode::kRead}) {
    for (int i = 0; i < 3; ++i) {
      the_driver.given.clear();
      the_driver.completed = 0;
      SendWr wr = Request(opcode, SendFlags::kSignaled);
      ASSERT_TRUE(Post(wr).ok());
      wr.local = At(0, 101);
      ASSERT_TRUE(Post(wr).ok());
      ASSERT_EQ(the_driver.given.size(), 2u);
      const uint32_t key = the_driver.given[0].entries.at(0).lkey;
      EXPECT_NE(key, 0u);
      EXPECT_EQ(key == region_->local_key(), opcode != Opcode::kRead);
      EXPECT_EQ(the_driver.given[1].entries.at(0).lkey, 0u);
      (void)Completions();
    }
  }
}

TEST_F(IwarpPosts, TheShortWayGivesTheDriverTheSame) {
  // Each kind of request again and again: the first one is looked at, the next ones are not.
  // Expect: the driver gets the same each time, and each completes as what it was.
  Connect(16);
  for (const Opcode opcode : {Opcode::kSend, Opcode::kWrite, Opcode::kRead}) {
    for (int bits = 0; bits < 16; ++bits) {
      const auto flags = static_cast<SendFlags>(bits);
      if (opcode == Opcode::kRead && Has(flags, SendFlags::kInline)) continue;
      SCOPED_TRACE(testing::Message() << static_cast<int>(opcode) << " with " << bits);
      the_driver.given.clear();
      the_driver.completed = 0;
      SendWr wr = Request(opcode, flags | SendFlags::kSignaled);
      constexpr uint64_t kTimes = 100;
      for (wr.id = 1; wr.id <= kTimes; ++wr.id) {
        wr.remote.address = wr.id;
        ASSERT_TRUE(Post(wr).ok());
        const std::vector<WorkCompletion> done = Completions();
        ASSERT_THAT(done, SizeIs(1));
        EXPECT_EQ(done[0].id, wr.id);
        EXPECT_TRUE(done[0].ok());
        EXPECT_EQ(done[0].opcode, CompletionOf(opcode));
        if (opcode == Opcode::kRead) {
          EXPECT_EQ(done[0].length, 8u);
        }
      }
      ASSERT_THAT(the_driver.given, SizeIs(kTimes));
      const Given& first = the_driver.given[0];
      EXPECT_EQ(first.flags & IBV_SEND_FENCE, 0u);
      for (uint64_t i = 0; i < kTimes; ++i) {
        const Given& each = the_driver.given[i];
        EXPECT_EQ(each.opcode, first.opcode);
        EXPECT_EQ(each.flags, first.flags);
        EXPECT_EQ(each.remote, i + 1);
        EXPECT_EQ(each.key, 77u);
        ASSERT_THAT(each.entries, SizeIs(1));
        EXPECT_EQ(each.entries[0].addr, At(0, 8).address);
        EXPECT_EQ(each.entries[0].length, 8u);
        EXPECT_EQ(each.entries[0].lkey == region_->local_key(), opcode != Opcode::kRead);
        EXPECT_EQ(each.entries[0].lkey, first.entries[0].lkey);
      }
    }
  }
}

TEST_F(IwarpPosts, ReceivesTakeTheShortWayAndTheDriverGetsTheSame) {
  // By themselves again and again, and between them what does not take it: two entries, none, two
  // at once, one too many. Expect: the driver gets each as it is, in order; none has an entry of no
  // bytes, as siw wants one.
  Connect(16);
  const Sge two[2] = {At(0, 8), At(8, 8)};
  const Sge three[3] = {};
  const ReceiveWr one{.local = At(16, 4), .id = 1},
      both{.local = std::span<const Sge>(two), .id = 2}, none{.id = 3},
      many{.local = std::span<const Sge>(three), .id = 4};
  const auto post = [&](const ReceiveWr& wr) { return qp_->PostReceive({&wr, 1}); };
  for (int round = 0; round < 40; ++round) {
    SCOPED_TRACE(round);
    the_driver.received.clear();
    the_driver.receives_completed = 0;
    ASSERT_TRUE(post(one).ok());
    ASSERT_TRUE(post(one).ok());
    ASSERT_TRUE(post(both).ok());
    ASSERT_TRUE(post(one).ok());
    ASSERT_TRUE(post(none).ok());
    const ReceiveWr pair[2] = {one, both};
    ASSERT_TRUE(qp_->PostReceive(pair).ok());
    EXPECT_EQ(post(many).error, PostError::kTooManySges);
    ASSERT_TRUE(post(one).ok());
    std::vector<size_t> sizes;
    for (const Given& each : the_driver.received) {
      sizes.push_back(each.entries.size());
      if (each.entries.size() == 2) {
        EXPECT_EQ(each.entries[1].addr, two[1].address);
      }
    }
    EXPECT_THAT(sizes, ElementsAre(1, 1, 2, 1, 1, 1, 2, 1));
    EXPECT_EQ(the_driver.received[1].entries[0].addr, At(16, 4).address);
    EXPECT_EQ(the_driver.received[1].entries[0].length, 4u);
    EXPECT_EQ(the_driver.received[4].entries[0].length, 0u);
    std::vector<uint64_t> ids;
    for (const WorkCompletion& wc : Completions()) ids.push_back(wc.id);
    EXPECT_THAT(ids, ElementsAre(1, 1, 2, 1, 3, 1, 2, 1));
  }
}

TEST_F(IwarpPosts, AReceiveThatTheDriverRefusesWasNeverPosted) {
  Connect(16);
  const ReceiveWr wr{.local = At(0, 8), .id = 1};
  for (int i = 0; i < 100; ++i) {
    the_driver.refusals = 1;
    EXPECT_EQ(qp_->PostReceive({&wr, 1}).error, PostError::kQueueFull);
    ASSERT_TRUE(qp_->PostReceive({&wr, 1}).ok());
    EXPECT_THAT(Completions(), SizeIs(1));
  }
  EXPECT_EQ(qp_->counters().receives_posted, 100u);
  // Expect: a full queue of ours as well, and all of it is free again; in ERR it is flushed here.
  for (int i = 0; i < 32; ++i) ASSERT_TRUE(qp_->PostReceive({&wr, 1}).ok());
  EXPECT_EQ(qp_->PostReceive({&wr, 1}).error, PostError::kQueueFull);
  EXPECT_THAT(Completions(), SizeIs(32));
  ASSERT_TRUE(qp_->PostReceive({&wr, 1}).ok());
  ASSERT_TRUE(qp_->Modify({.state = QpState::kErr}).ok());
  const size_t taken = the_driver.received.size();
  ASSERT_TRUE(qp_->PostReceive({&wr, 1}).ok());
  EXPECT_THAT(the_driver.received, SizeIs(taken));
  size_t told = 0;
  for (int i = 0; i < 10; ++i) told += Completions().size();
  EXPECT_EQ(told, 2u);
  ASSERT_TRUE(qp_->Modify({.state = QpState::kReset}).ok());
  EXPECT_EQ(qp_->PostReceive({&wr, 1}).error, PostError::kInvalidState);
}

TEST_F(IwarpPosts, WhatTheDriverRefusesWasNeverPosted) {
  Connect(16);
  const SendWr wr = Request(Opcode::kWrite, SendFlags::kSignaled);
  for (int i = 0; i < 100; ++i) {
    the_driver.refusals = 1;
    EXPECT_EQ(Post(wr).error, PostError::kQueueFull);
    ASSERT_TRUE(Post(wr).ok());
    EXPECT_THAT(Completions(), SizeIs(1));
  }
  EXPECT_EQ(qp_->counters().sends_posted, 100u);
  // Expect: a full queue of ours as well, and all of it is free again.
  for (int i = 0; i < 32; ++i) ASSERT_TRUE(Post(wr).ok());
  EXPECT_EQ(Post(wr).error, PostError::kQueueFull);
  EXPECT_THAT(Completions(), SizeIs(32));
  EXPECT_TRUE(Post(wr).ok());
}

TEST_F(IwarpPosts, AWrongKeyIsFoundHoweverOftenARightOneWasSeen) {
  // Expect: what leaves the region, has no region, or reads into what may not be written is made a
  // request that fails at this end; what has no bytes gives the driver no entry.
  Connect(16);
  auto readable = *domain_->Register(memory_, Access::kLocalRead, {});
  for (const Opcode opcode : {Opcode::kSend, Opcode::kWrite, Opcode::kRead}) {
    const SendWr good = Request(opcode, SendFlags::kSignaled);
    Sge none = At(0, 8), outside = At(4090, 8), before = At(0, 8), foreign = At(0, 8);
    none.length = 0;
    before.address -= 1;
    foreign.key += 1000;
    Sge read_only = At(0, 8);
    read_only.key = readable->local_key();
    for (const Sge& entry : {outside, before, foreign, none, read_only}) {
      for (int i = 0; i < 3; ++i) {
        ASSERT_TRUE(Post(good).ok());
        (void)Completions();
      }
      the_driver.given.clear();
      the_driver.completed = 0;
      SendWr wr = good;
      wr.local = entry;
      ASSERT_TRUE(Post(wr).ok());
      ASSERT_THAT(the_driver.given, SizeIs(1));
      const Given& given = the_driver.given[0];
      const bool fine =

          (entry.length == 0 || (entry.key == readable->local_key() && opcode != Opcode::kRead));
      if (!fine) {
        EXPECT_EQ(given.opcode, IBV_WR_RDMA_WRITE);
        ASSERT_THAT(given.entries, SizeIs(1));
        EXPECT_EQ(given.entries[0].lkey, 0u);
      } else if (entry.length == 0 && opcode != Opcode::kRead) {
        EXPECT_THAT(given.entries, IsEmpty());
      }
      (void)Completions();
    }
  }
  EXPECT_TRUE(readable->Close().ok());
  const SendWr late = Request(Opcode::kWrite, SendFlags::kSignaled);
  ASSERT_TRUE(Post(late).ok());
  ASSERT_TRUE(region_->Close().ok());
  region_.reset();
  the_driver.given.clear();
  the_driver.completed = 0;
  ASSERT_TRUE(Post(late).ok());
  ASSERT_THAT(the_driver.given, SizeIs(1));
  EXPECT_EQ(the_driver.given[0].entries.at(0).lkey, 0u);
}

}  // namespace
}  // namespace verbena::verbs
