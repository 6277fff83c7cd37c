// SPDX-License-Identifier: Apache-2.0
// A request by itself may take a short way to the driver; two of them never do but the usual ones.
// So each shape of a request is posted both ways, and what the driver gets is compared: on the
// driver that does nothing (tests/bench/stub_driver, which is linked in).
#include <cerrno>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

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

using testing::SizeIs;

constexpr uint32_t kLongest = 100;  // message
constexpr uint32_t kInline = 64;    // what the driver takes

struct Given {
  ibv_wr_opcode opcode;
  unsigned flags;
  std::vector<std::pair<uint64_t, std::pair<uint32_t, uint32_t>>> entries;
  uint64_t remote, second, third;
  uint32_t key;
  bool operator==(const Given&) const = default;
};

int refusals = 0;  // of the next posts
std::vector<Given> given;
std::deque<uint64_t> names;

bool HasImmediate(ibv_wr_opcode opcode) {
  return opcode == IBV_WR_SEND_WITH_IMM || opcode == IBV_WR_RDMA_WRITE_WITH_IMM ||
         opcode == IBV_WR_SEND_WITH_INV;
}

int DriverPost(ibv_qp* /*qp*/, ibv_send_wr* wr, ibv_send_wr** bad) {
  for (; wr != nullptr; wr = wr->next) {
    if (refusals > 0) {
      --refusals;
      *bad = wr;
      return ENOMEM;
    }
    const bool atomic =
        wr->opcode == IBV_WR_ATOMIC_CMP_AND_SWP || wr->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
    Given one{.opcode = wr->opcode,
              .flags = wr->send_flags,
              .entries = {},
              .remote = wr->wr.rdma.remote_addr,
              .second = atomic ? wr->wr.atomic.compare_add : 0,
              .third = atomic ? wr->wr.atomic.swap
                              : (HasImmediate(wr->opcode) ? uint64_t{wr->imm_data} : 0),
              .key = atomic ? wr->wr.atomic.rkey : wr->wr.rdma.rkey};
    for (int i = 0; i < wr->num_sge; ++i) {
      const ibv_sge& entry = wr->sg_list[i];
      one.entries.push_back({entry.addr, {entry.length, entry.lkey}});
    }
    given.push_back(std::move(one));
    names.push_back(wr->wr_id);
  }
  return 0;
}

int DriverPoll(ibv_cq* /*cq*/, int most, ibv_wc* wc) {
  int n = 0;
  for (; n < most && !names.empty(); names.pop_front()) {
    wc[n] = {};
    wc[n++].wr_id = names.front();
  }
  return n;
}

class Nobody final : public provider::Host {
 public:
  void Push(const void*, Event) override {}
  void Forget(const void*) override {}
};

class ShortPosts : public testing::TestWithParam<bool> {  // software
 protected:
  void SetUp() override {
    refusals = 0;
    given.clear();
    names.clear();
    service_ = *Service::Create();
    Found found = std::move(FindDevices([](const DeviceInfo&) { return true; })->front());
    found.port_attributes.max_msg_sz = kLongest;
    found.info.software = GetParam();
    found.context->ops.post_send = DriverPost;
    found.context->ops.poll_cq = DriverPoll;
    device_ = std::make_unique<Device>(nullptr, service_.get(), std::move(found));
    device_->SetHost(&nobody_);
    domain_ = *device_->AllocateProtectionDomain();
    cq_ = std::make_unique<verbena::CompletionQueue>(
        *device_->CreateCompletionQueue({.entries = 512}));
    Open(2);
  }
  void TearDown() override {
    EXPECT_TRUE(qp_->Close().ok());
    qp_.reset();
    EXPECT_TRUE(cq_->Close().ok());
    EXPECT_TRUE(domain_->Close().ok());
  }

  void Open(uint32_t max_send_sge) {
    if (qp_ != nullptr) {
      EXPECT_TRUE(qp_->Close().ok());
    }
    qp_ = *domain_->CreateQueuePair(
        {.send_cq = cq_.get(),
         .receive_cq = cq_.get(),
         .limits = {.max_send_wr = 32, .max_send_sge = max_send_sge, .max_inline = kInline},
         .signal = Signal::kAll});
  }
  void Connect() {
    Contact peer = *qp_->contact();
    peer.nonce = NewNonce();
    ASSERT_TRUE(qp_->Connect(peer, {}).ok());
    ASSERT_EQ(qp_->Query().state, QpState::kRts);
  }
  PostResult Post(const SendWr& wr) { return qp_->PostSend({&wr, 1}); }
  std::vector<WorkCompletion> Completions() {
    std::vector<WorkCompletion> all(64);
    all.resize(cq_->Poll(all));
    return all;
  }

  // The same by itself and among others: what the driver is given, what is answered, and how it
  // completes.
  void ExpectBothWays(const SendWr& wr) {
    given.clear();
    const PostResult alone = Post(wr);
    const std::vector<Given> short_way = std::exchange(given, {});
    const std::vector<WorkCompletion> done = Completions();
    const SendWr twice[2] = {wr, wr};
    const PostResult together = qp_->PostSend(twice);
    EXPECT_EQ(alone.error, together.error);
    EXPECT_EQ(alone.accepted, together.accepted / 2);
    EXPECT_EQ(short_way.size(), given.size() / 2);
    if (!short_way.empty()) {
      EXPECT_EQ(short_way[0], given.at(0));
    }
    const std::vector<WorkCompletion> others = Completions();
    ASSERT_EQ(done.size(), others.size() / 2);
    for (const WorkCompletion& wc : done) {
      EXPECT_EQ(wc.id, wr.id);
      EXPECT_EQ(wc.opcode, others[0].opcode);
    }
  }

  Nobody nobody_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<provider::ProtectionDomain> domain_;
  std::unique_ptr<verbena::CompletionQueue> cq_;
  std::unique_ptr<provider::QueuePair> qp_;
};

Sge Entry(uint64_t address, uint32_t length) {
  return {.address = address, .length = length, .key = 5};
}

SendWr Request(Opcode opcode, const SgeList& local, uint64_t remote = 0x1000) {
  return {.opcode = opcode,
          .local = local,
          .remote = {.address = remote, .key = 77},
          .id = 7,
          .immediate = 0x01020304,
          .invalidate = 88,
          .atomic = {.compare_add = 3, .swap = 4}};
}

TEST_P(ShortPosts, EachShapeIsTheSameAsInABatch) {
  // Expect: so for each opcode and set of flags, at the edges of what may be: no bytes, the longest
  // message and one more, by one entry or as a sum, inline data, entries too many.
  const std::pair<uint32_t, uint32_t> kSums[] = {{0, 0},    {0, 8},
                                                 {8, 0},    {4, 4},
                                                 {8, 8},    {63, 1},
                                                 {64, 1},   {99, 1},
                                                 {100, 1},  {1, 100},
                                                 {101, 0},  {0, 101},
                                                 {50, 51},  {50, 50},
                                                 {1, ~0u},  {~0u, 1},
                                                 {~0u, 2},  {~0u, ~0u},
                                                 {5, ~0u},  {~0u, 9},
                                                 {~0u, 0u}, {1u << 31, 1u << 31}};
  Connect();
  for (int op = 0; op <= static_cast<int>(Opcode::kLocalInvalidate) + 2; ++op) {
    if (op == static_cast<int>(Opcode::kBindWindow)) continue;
    for (int bits = 0; bits < 16; ++bits) {
      const auto post = [&](const SgeList& local, uint64_t remote = 0x1000) {
        SendWr wr = Request(static_cast<Opcode>(op), local, remote);
        wr.flags = static_cast<SendFlags>(bits);
        SCOPED_TRACE(testing::Message() << "opcode " << op << ", flags " << bits << ", "
                                        << local.size() << " entries, to " << remote);
        // Inline data is read, and that is no memory: what the driver would not take is refused.
        ExpectBothWays(wr);
      };
      post({});
      for (const uint32_t length : {0u, 1u, 7u, 8u, 9u, 63u, 64u, 65u, 99u, 100u, 101u, ~0u}) {
        const Sge one = Entry(0x4000, length);
        post(one);
        post(std::span<const Sge>(&one, 1));
        post(one, 0x1001);
        post(one, 0x1004);
      }
      for (const auto& [first, second] : kSums) {
        const Sge three[3] = {Entry(0x4000, first), Entry(0x5000, second), Entry(0x6000, 0)};
        post(std::span<const Sge>(three, 2));
        post(std::span<const Sge>(three, 2), 0x1004);
        post(std::span<const Sge>(three, 3));
      }
    }
  }
}

TEST_P(ShortPosts, WhatCannotBeIsSaid) {
  // The same edges by what they have to be, not by another way. A request that fails by itself is
  // given to the driver as a write from memory that no key names.
  Connect();
  const auto failed = [&](const SendWr& wr) {
    given.clear();
    EXPECT_TRUE(Post(wr).ok());
    EXPECT_THAT(Completions(), SizeIs(1));
    return given.size() == 1 && given[0].opcode == IBV_WR_RDMA_WRITE &&
           given[0].entries.size() == 1 && given[0].entries[0].second.second == 0;
  };
  const Sge fits[2] = {Entry(0x4000, 99), Entry(0x5000, 1)};
  const Sge longer[2] = {Entry(0x4000, 99), Entry(0x5000, 2)};
  const Sge wraps[2] = {Entry(0x4000, ~0u), Entry(0x5000, 2)};
  const Sge three[3] = {};
  for (const Opcode opcode : {Opcode::kSend, Opcode::kSendWithImm, Opcode::kWrite, Opcode::kRead}) {
    EXPECT_FALSE(failed(Request(opcode, std::span<const Sge>(fits))));
    ASSERT_THAT(given[0].entries, SizeIs(2));
    EXPECT_TRUE(failed(Request(opcode, std::span<const Sge>(longer))));
    EXPECT_TRUE(failed(Request(opcode, std::span<const Sge>(wraps))));
    EXPECT_EQ(Post(Request(opcode, std::span<const Sge>(three))).error, PostError::kTooManySges);
  }
  for (const Opcode opcode : {Opcode::kCompareSwap, Opcode::kFetchAdd}) {
    const Sge halves[2] = {Entry(0x4000, 4), Entry(0x5000, 4)};
    EXPECT_FALSE(failed(Request(opcode, Entry(0x4000, 8))));
    EXPECT_FALSE(failed(Request(opcode, std::span<const Sge>(halves))));
    for (const uint32_t length : {0u, 7u, 9u}) {
      EXPECT_TRUE(failed(Request(opcode, Entry(0x4000, length))));
    }
    for (uint64_t off = 1; off < 8; ++off) {  // hardware leaves that to the peer
      EXPECT_EQ(failed(Request(opcode, Entry(0x4000, 8), 0x1000 + off)), GetParam());
    }
    SendWr inlined = Request(opcode, Entry(0x4000, 8));
    inlined.flags = SendFlags::kInline;
    EXPECT_EQ(Post(inlined).error, PostError::kInvalidOpcode);
  }
  SendWr inlined = Request(Opcode::kWrite, std::span<const Sge>(fits));
  inlined.flags = SendFlags::kInline;
  EXPECT_EQ(Post(inlined).error, PostError::kInlineTooLong);
  Open(1);
  Connect();
  EXPECT_EQ(Post(Request(Opcode::kWrite, std::span<const Sge>(fits))).error,
            PostError::kTooManySges);
}

// What takes each of the short ways.
std::vector<SendWr> OfEachWay() {
  static const Sge kTwo[2] = {Entry(0x4000, 8), Entry(0x5000, 8)};
  return {Request(Opcode::kWrite, Entry(0x4000, 8)),
          Request(Opcode::kWrite, std::span<const Sge>(kTwo)),
          Request(Opcode::kSendWithImm, std::span<const Sge>(kTwo)),
          Request(Opcode::kFetchAdd, Entry(0x4000, 8)),
          Request(Opcode::kFetchAdd, Entry(0x4000, 0))};
}

TEST_P(ShortPosts, OnlyInRts) {
  for (const SendWr& wr : OfEachWay()) EXPECT_EQ(Post(wr).error, PostError::kInvalidState);
  EXPECT_THAT(given, SizeIs(0));
  Connect();
  for (const SendWr& wr : OfEachWay()) EXPECT_TRUE(Post(wr).ok());
  EXPECT_THAT(Completions(), SizeIs(OfEachWay().size()));
  ASSERT_TRUE(qp_->Modify({.state = QpState::kReset}).ok());
  for (const SendWr& wr : OfEachWay()) EXPECT_EQ(Post(wr).error, PostError::kInvalidState);
}

TEST_P(ShortPosts, WhatTheDriverRefusesWasNeverPosted) {
  Connect();
  uint64_t posted = 0;
  for (const SendWr& wr : OfEachWay()) {
    for (int i = 0; i < 100; ++i, ++posted) {
      refusals = 1;
      const PostResult result = Post(wr);
      EXPECT_EQ(result.accepted, 0u);
      EXPECT_EQ(result.error, PostError::kQueueFull);
      ASSERT_TRUE(Post(wr).ok());
      ASSERT_THAT(Completions(), SizeIs(1));
    }
    // Expect: the whole queue is still there, and no more than that.
    for (int i = 0; i < 32; ++i, ++posted) ASSERT_TRUE(Post(wr).ok());
    EXPECT_EQ(Post(wr).error, PostError::kQueueFull);
    EXPECT_THAT(Completions(), SizeIs(32));
  }
  EXPECT_EQ(qp_->counters().sends_posted, posted);
}

INSTANTIATE_TEST_SUITE_P(Devices, ShortPosts, testing::Bool(),
                         [](const auto& i) { return i.param ? "Software" : "Hardware"; });

}  // namespace
}  // namespace verbena::verbs
