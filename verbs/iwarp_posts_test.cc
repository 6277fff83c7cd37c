// SPDX-License-Identifier: Apache-2.0
// What an iWARP device is given, and when: on the driver that does nothing
// (tests/bench/stub_driver, which is linked in), whose posts and polls are this test's.
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "transport/completion_queue.h"
#include "transport/events.h"
#include "verbs/device.h"
#include "verbs/linked_library.h"
#include "verbs/protection_domain.h"
#include "verbs/queue_pair.h"
#include "verbs/service.h"

namespace verbena::verbs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// A request as the driver was given it.
struct Given {
  uint64_t name;
  ibv_wr_opcode opcode;
  unsigned flags;
  std::vector<ibv_sge> entries;
  uint64_t remote;
  uint32_t key;
};

// Whoever posts has it to itself: two at once, or one while it is `closed`, are counted.
struct Driver {
  std::atomic<int> inside{0};
  std::atomic<int> together{0}, intruders{0};
  std::atomic<bool> closed{false};
  std::atomic<int> refusals{0};  // the next posts
  std::mutex mutex;
  std::vector<Given> given;
  std::deque<std::pair<uint64_t, ibv_wc_opcode>> complete;
  size_t completed = 0;              // of `given`, that polls have seen
  std::function<void()> after_poll;  // once, when a poll has something and has not returned it
  std::vector<Given> received;
  size_t receives_completed = 0;
};
Driver the_driver;

int DriverPost(ibv_qp* /*qp*/, ibv_send_wr* wr, ibv_send_wr** bad) {
  if (the_driver.inside.fetch_add(1) != 0) ++the_driver.together;
  if (the_driver.closed) ++the_driver.intruders;
  int error = 0;
  for (; wr != nullptr; wr = wr->next) {
    if (the_driver.refusals > 0) {
      --the_driver.refusals;
      *bad = wr;
      error = ENOMEM;
      break;
    }
    const std::lock_guard lock(the_driver.mutex);
    the_driver.given.push_back({wr->wr_id, wr->opcode, wr->send_flags,
                                std::vector<ibv_sge>(wr->sg_list, wr->sg_list + wr->num_sge),
                                wr->wr.rdma.remote_addr, wr->wr.rdma.rkey});
  }
  sched_yield();  // where another might come in
  the_driver.inside.fetch_sub(1);
  return error;
}

int DriverReceive(ibv_qp* /*qp*/, ibv_recv_wr* wr, ibv_recv_wr** bad) {
  for (; wr != nullptr; wr = wr->next) {
    if (the_driver.refusals > 0) {
      --the_driver.refusals;
      *bad = wr;
      return ENOMEM;
    }
    const std::lock_guard lock(the_driver.mutex);
    the_driver.received.push_back(
        {.name = wr->wr_id,
         .opcode = IBV_WR_SEND,
         .flags = 0,
         .entries = std::vector<ibv_sge>(wr->sg_list, wr->sg_list + wr->num_sge),
         .remote = 0,
         .key = 0});
  }
  return 0;
}

int DriverPoll(ibv_cq* /*cq*/, int most, ibv_wc* wc) {
  std::unique_lock lock(the_driver.mutex);
  int n = 0;
  std::vector<Given>& received = the_driver.received;
  for (; n < most && the_driver.receives_completed < received.size(); ++n) {
    wc[n] = {};
    wc[n].wr_id = received[the_driver.receives_completed++].name;
    wc[n].opcode = IBV_WC_RECV;
    wc[n].byte_len = 5;
  }
  for (; n < most && the_driver.completed < the_driver.given.size(); ++the_driver.completed) {
    const Given& done = the_driver.given[the_driver.completed];
    if ((done.flags & IBV_SEND_SIGNALED) == 0) continue;
    wc[n] = {};
    wc[n].wr_id = done.name;
    wc[n].opcode = done.opcode == IBV_WR_RDMA_READ ? IBV_WC_RDMA_READ : IBV_WC_RDMA_WRITE;
    ++n;
  }
  if (n > 0 && the_driver.after_poll != nullptr) {
    const std::function<void()> meanwhile = std::exchange(the_driver.after_poll, nullptr);
    lock.unlock();
    meanwhile();
  }
  return n;
}

class Nobody final : public provider::Host {
 public:
  void Push(const void*, Event) override {}
  void Forget(const void*) override {}
};

class IwarpPosts : public testing::Test {
 protected:
  void SetUp() override { Open(1u << 31); }

  void Open(uint32_t longest_message) {
    the_driver.given.clear();
    the_driver.completed = 0;
    the_driver.received.clear();
    the_driver.receives_completed = 0;
    the_driver.closed = false;
    the_driver.together = the_driver.intruders = the_driver.refusals = 0;
    service_ = *Service::Create();
    Found found = std::move((*FindDevices([](const DeviceInfo&) { return true; }))[1]);
    ASSERT_TRUE(found.iwarp);
    found.port_attributes.max_msg_sz = longest_message;
    found.context->ops.post_send = DriverPost;
    found.context->ops.post_recv = DriverReceive;
    found.context->ops.poll_cq = DriverPoll;
    device_ = std::make_unique<Device>(nullptr, service_.get(), std::move(found));
    device_->SetHost(&nobody_);
    service_->Start();
    domain_ = *device_->AllocateProtectionDomain();
    cq_ = std::make_unique<verbena::CompletionQueue>(
        *device_->CreateCompletionQueue({.entries = 512}));
    region_ = *domain_->Register(memory_, Access::kLocalWrite, {});
    qp_ = *domain_->CreateQueuePair(
        {.send_cq = cq_.get(),
         .receive_cq = cq_.get(),
         .limits = {.max_send_wr = 32, .max_receive_wr = 32, .max_receive_sge = 2},
         .signal = Signal::kSelective});
  }

  // `reads`: that may be in flight.
  void Connect(uint32_t reads, bool confirmed = false) {
    auto* const qp = static_cast<QueuePair*>(qp_.get());
    ASSERT_TRUE(qp->StartConnect(
                      *Address::FromIp("192.0.2.1", 7471),  // RFC 5737
                      {.initiator_depth = reads, .require = {.remote_completion = confirmed}}, {})
                    .ok());
    while (qp_->outcome().kind == ConnectOutcome::Kind::kPending) sched_yield();
    ASSERT_EQ(qp_->Query().state, QpState::kRts) << qp_->outcome().status;
  }

  void TearDown() override {
    EXPECT_TRUE(qp_->Close().ok());
    qp_.reset();
    if (region_ != nullptr) {
      EXPECT_TRUE(region_->Close().ok());
      region_.reset();
    }
    EXPECT_TRUE(cq_->Close().ok());
    EXPECT_TRUE(domain_->Close().ok());
    domain_.reset();
    service_->Stop();
  }

  Sge At(uint64_t offset, uint32_t length) const {
    return {.address = reinterpret_cast<uint64_t>(memory_.data()) + offset,
            .length = length,
            .key = region_->local_key()};
  }
  SendWr Request(Opcode opcode, SendFlags flags, uint64_t id = 1) const {
    return {.opcode = opcode,
            .local = At(0, 8),
            .remote = {.address = id, .key = 77},
            .id = id,
            .flags = flags};
  }
  PostResult Post(const SendWr& wr) { return qp_->PostSend({&wr, 1}); }
  std::vector<WorkCompletion> Completions() {
    std::vector<WorkCompletion> all(room_);
    all.resize(cq_->Poll(all));
    return all;
  }

  size_t room_ = 64;  // of a poll
  Nobody nobody_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<provider::ProtectionDomain> domain_;
  std::unique_ptr<verbena::CompletionQueue> cq_;
  std::vector<std::byte> memory_ = std::vector<std::byte>(4096);
  std::unique_ptr<provider::MemoryRegion> region_;
  std::unique_ptr<provider::QueuePair> qp_;
};

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

TEST_F(IwarpPosts, TheOneThatAPollHoldsWhileOthersFlushIsToldOnce) {
  // The same as below with polls for one, each of which may be disturbed.
  // Expect: each request completes once, whichever it was, and as what it was.
  room_ = 1;
  for (int disturbed = 1; disturbed <= 3; ++disturbed) {
    Connect(16);
    the_driver.given.clear();
    the_driver.completed = 0;
    for (uint64_t id = 1; id <= 3; ++id) {
      ASSERT_TRUE(
          Post(Request(id == 2 ? Opcode::kRead : Opcode::kSend, SendFlags::kSignaled, id)).ok());
    }
    std::vector<WorkCompletion> all;
    for (int i = 1; i <= 10; ++i) {
      if (i == disturbed) {
        the_driver.after_poll = [&] {
          EXPECT_TRUE(qp_->Modify({.state = QpState::kErr}).ok());
          for (const WorkCompletion& wc : Completions()) all.push_back(wc);
        };
      }
      for (const WorkCompletion& wc : Completions()) all.push_back(wc);
    }
    std::vector<uint64_t> ids;
    for (const WorkCompletion& wc : all) {
      ids.push_back(wc.id);
      EXPECT_EQ(wc.opcode, wc.id == 2 ? WcOpcode::kRead : WcOpcode::kSend);
      EXPECT_TRUE(wc.ok() || wc.status == WcStatus::kFlushed ||
                  wc.status == WcStatus::kRemoteOperationError);
    }
    EXPECT_THAT(ids, testing::UnorderedElementsAre(1, 2, 3));
    ASSERT_TRUE(qp_->Modify({.state = QpState::kReset}).ok());
    ASSERT_TRUE(qp_->Modify({.state = QpState::kInit}).ok());
  }
}

TEST_F(IwarpPosts, APollForOneTellsWhatItIs) {
  // A receive, a read and a write, whose lengths come from different places; and one that completes
  // silently in SQD, whose end the device tells by a read of its own.
  // Expect: three completions, and none of that read.
  room_ = 1;
  Connect(16);
  for (int round = 0; round < 100; ++round) {
    const ReceiveWr receive{.local = At(0, 8), .id = 4};
    ASSERT_TRUE(qp_->PostReceive({&receive, 1}).ok());
    std::vector<WorkCompletion> done = Completions();
    ASSERT_THAT(done, SizeIs(1));
    EXPECT_EQ(done[0].opcode, WcOpcode::kReceive);
    EXPECT_EQ(done[0].length, 5u);
    EXPECT_EQ(done[0].id, 4u);
    for (const Opcode opcode : {Opcode::kRead, Opcode::kWrite}) {
      ASSERT_TRUE(Post(Request(opcode, SendFlags::kSignaled, 9)).ok());
      done = Completions();
      ASSERT_THAT(done, SizeIs(1));
      EXPECT_TRUE(done[0].ok());
      EXPECT_EQ(done[0].opcode, CompletionOf(opcode));
      EXPECT_EQ(done[0].length, opcode == Opcode::kRead ? 8u : 0u);
      EXPECT_FALSE(done[0].has_immediate || done[0].has_invalidated);
      EXPECT_EQ(done[0].immediate_or_key, 0u);
      EXPECT_EQ(done[0].vendor_error, 0u);
    }
  }
  service_->Stop();  // which looks as well while the queue drains
  ASSERT_TRUE(Post(Request(Opcode::kWrite, SendFlags::kNone)).ok());
  ASSERT_TRUE(qp_->Modify({.state = QpState::kSqd}).ok());
  EXPECT_EQ(the_driver.given.back().opcode, IBV_WR_RDMA_READ);
  EXPECT_THAT(Completions(), IsEmpty());
  EXPECT_THAT(Completions(), IsEmpty());
  ASSERT_TRUE(qp_->Modify({.state = QpState::kRts}).ok());
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

TEST_F(IwarpPosts, WhatAPollHoldsWhileOthersFlushIsToldOnce) {
  // One thread has taken completions from the device; the queue pair goes to ERR, and another
  // thread polls, before the first one delivers. Expect: each request completes once.
  Connect(16);
  for (uint64_t id = 1; id <= 3; ++id) {
    ASSERT_TRUE(
        Post(Request(id == 2 ? Opcode::kRead : Opcode::kSend, SendFlags::kSignaled, id)).ok());
  }
  std::vector<WorkCompletion> all, others;
  the_driver.after_poll = [&] {
    EXPECT_TRUE(qp_->Modify({.state = QpState::kErr}).ok());
    others = Completions();
  };
  all = Completions();
  all.insert(all.end(), others.begin(), others.end());
  for (const WorkCompletion& late : Completions()) all.push_back(late);
  std::vector<uint64_t> ids;
  for (const WorkCompletion& wc : all) ids.push_back(wc.id);
  EXPECT_THAT(ids, testing::UnorderedElementsAre(1, 2, 3));
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

TEST_F(IwarpPosts, ConfirmedRequestsHaveAReadBehindThem) {
  Connect(16, true);
  for (int i = 0; i < 3; ++i) {
    the_driver.given.clear();
    the_driver.completed = 0;
    ASSERT_TRUE(Post(Request(Opcode::kWrite, SendFlags::kSignaled)).ok());
    ASSERT_THAT(the_driver.given, SizeIs(2));
    EXPECT_EQ(the_driver.given[0].opcode, IBV_WR_RDMA_WRITE);
    EXPECT_EQ(the_driver.given[1].opcode, IBV_WR_RDMA_READ);
    EXPECT_THAT(Completions(), SizeIs(1));
  }
}

TEST_F(IwarpPosts, AnotherConnectionMayBeConfirmed) {
  // One that is not, and behind RESET one that is; a read, which needs no confirmation, comes
  // first. Expect: the write is confirmed, though the same one was not before.
  const SendWr write = Request(Opcode::kWrite, SendFlags::kSignaled);
  const SendWr read = Request(Opcode::kRead, SendFlags::kSignaled);
  for (const bool confirmed : {false, true}) {
    Connect(16, confirmed);
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(Post(read).ok());
      the_driver.given.clear();
      the_driver.completed = 0;
      ASSERT_TRUE(Post(write).ok());
      EXPECT_THAT(the_driver.given, SizeIs(confirmed ? 2 : 1));
      (void)Completions();
    }
    ASSERT_TRUE(qp_->Modify({.state = QpState::kReset}).ok());
    ASSERT_TRUE(qp_->Modify({.state = QpState::kInit}).ok());
  }
}

TEST_F(IwarpPosts, ReadsTooManyWaitAndNothingOvertakesThem) {
  // Three reads may be in flight, and the driver completes nothing for a while.
  // Expect: it gets two of them, then nothing; when it completes them, the rest in order.
  Connect(3);
  for (int round = 0; round < 3; ++round) {
    the_driver.given.clear();
    the_driver.completed = 0;
    for (uint64_t id = 1; id <= 6; ++id) {
      const Opcode opcode = id <= 4 ? Opcode::kRead : Opcode::kWrite;
      ASSERT_TRUE(Post(Request(opcode, SendFlags::kSignaled, id)).ok());
    }
    EXPECT_THAT(the_driver.given, SizeIs(2));
    std::vector<uint64_t> ids;
    for (int i = 0; i < 1000 && ids.size() < 6; ++i) {
      for (const WorkCompletion& wc : Completions()) ids.push_back(wc.id);
    }
    EXPECT_THAT(ids, ElementsAre(1, 2, 3, 4, 5, 6));
    const std::lock_guard lock(the_driver.mutex);
    ASSERT_THAT(the_driver.given, SizeIs(6));
    for (uint64_t i = 0; i < 6; ++i) EXPECT_EQ(the_driver.given[i].remote, i + 1);
  }
}

TEST_F(IwarpPosts, ThreadsPostInTheOrderOfTheirPlacesAndNotInSqd) {
  // Threads post writes, and reads that have to wait, while the send queue is stopped and goes on.
  // Expect: the driver gets all of them, one at a time, in the order of their places and so of each
  // thread's posts; none while it is stopped.
  Connect(2);
  constexpr uint64_t kThreads = 3, kPosts = 600;
  const absl::Time end = absl::Now() + absl::Seconds(30);
  std::atomic<uint64_t> running = kThreads, failed = 0;
  const auto post = [&](uint64_t thread) {
    for (uint64_t i = 1; i <= kPosts; ++i) {
      SendWr wr = Request(i % 7 == 0 ? Opcode::kRead : Opcode::kWrite, SendFlags::kSignaled);
      if (i % 11 == 0) wr.flags = wr.flags | SendFlags::kFence;
      wr.remote.address = thread << 32 | i;
      PostResult result;
      do {
        result = Post(wr);
        if (!result.ok()) sched_yield();
      } while (result.error == PostError::kQueueFull && absl::Now() < end);
      if (!result.ok()) ++failed;
    }
    --running;
  };
  std::atomic<uint64_t> seen = 0;
  const auto poll = [&] {
    while (seen < kThreads * kPosts && absl::Now() < end) seen += Completions().size();
  };
  const auto stop = [&] {
    while (running > 0) {
      // What was in the driver when it stops completes, and asks for that by a read of its own.
      if (!qp_->Modify({.state = QpState::kSqd}).ok()) ++failed;
      the_driver.closed = true;
      for (int i = 0; i < 20; ++i) sched_yield();
      the_driver.closed = false;
      if (!qp_->Modify({.state = QpState::kRts}).ok()) ++failed;
      for (int i = 0; i < 20; ++i) sched_yield();
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < kThreads; ++i) threads.emplace_back(post, i);
  threads.emplace_back(poll);
  threads.emplace_back(stop);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed, 0u);
  EXPECT_EQ(seen, kThreads * kPosts);
  EXPECT_EQ(the_driver.together, 0);
  EXPECT_EQ(the_driver.intruders, 0);
  const std::lock_guard lock(the_driver.mutex);
  ASSERT_THAT(the_driver.given, SizeIs(kThreads * kPosts));
  std::vector<uint64_t> last(kThreads, 0);
  for (size_t i = 0; i < the_driver.given.size(); ++i) {
    const Given& each = the_driver.given[i];
    if (i > 0) {
      ASSERT_LT(static_cast<int64_t>(the_driver.given[i - 1].name - each.name), 0);
    }
    ASSERT_EQ(each.remote & 0xffffffff, ++last.at(each.remote >> 32));
  }
}

}  // namespace
}  // namespace verbena::verbs
