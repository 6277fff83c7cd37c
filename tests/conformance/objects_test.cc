// SPDX-License-Identifier: Apache-2.0
// Making and closing objects, their limits and counters: ibv_alloc_pd(3), ibv_create_cq(3),
// ibv_create_qp(3), ibv_reg_mr(3), ibv_create_srq(3) and their opposites.

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr auto kBusy = absl::StatusCode::kFailedPrecondition;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class Objects : public Conformance {
 protected:
  Device& device() { return *client().devices()[0]; }
  ProtectionDomain Domain() { return Check(device().AllocateProtectionDomain()); }
  CompletionQueue Queue(const CqOptions& options = {}) {
    return Check(device().CreateCompletionQueue(options));
  }
};
CONFORMANCE_RUN(Objects);

TEST_P(Objects, DeviceSaysWhatItIs) {
  // Expect: a name, a provider, limits that a program can live with, private data sizes.
  const DeviceInfo& info = device().info();
  EXPECT_NE(info.name, "");
  EXPECT_NE(info.provider, "");
  EXPECT_NE(info.transport, "");
  EXPECT_TRUE(info.usable);
  const DeviceAttributes most = device().attributes();
  EXPECT_GE(most.max_queue_pairs, 1024u);
  EXPECT_GE(most.max_completion_queues, 1024u);
  EXPECT_GE(most.max_memory_regions, 1024u);
  EXPECT_GE(most.max_work_requests, 1024u);
  EXPECT_GE(most.max_sge, 4u);
  EXPECT_GE(most.max_completions, 4096u);
  EXPECT_GE(most.max_message, 1u << 20);
  EXPECT_GE(most.max_initiator_depth, 1u);
}

TEST_P(Objects, TcpPromisesMore) {
  // Expect: on TCP what docs and programs may rely on; devices have their own limits.
  if (device().info().provider != "tcp") GTEST_SKIP() << "limit: of the device's own choice";
  const DeviceAttributes most = device().attributes();
  EXPECT_GE(most.max_sge, 16u);
  EXPECT_GE(most.max_inline, 256u);
  EXPECT_GE(most.max_work_requests, 16384u);
  EXPECT_GE(most.max_message, 1ull << 31);
  EXPECT_GE(most.max_initiator_depth, 128u);
  EXPECT_GE(most.max_responder_resources, 128u);
}

TEST_P(Objects, ContextWithChildren) {
  // Close of a context that has a protection domain.
  // Expect: EBUSY (FailedPrecondition), and the context goes on working.
  ProtectionDomain pd = Domain();
  EXPECT_THAT(client().Close(), StatusIs(kBusy));
  EXPECT_THAT(device().AllocateProtectionDomain(), IsOk());
}

TEST_P(Objects, DomainWithARegion) {
  // Expect: EBUSY until the region is closed (ibv_dealloc_pd(3)).
  ProtectionDomain pd = Domain();
  Buffer memory(4096);
  MemoryRegion region = Check(pd.Register(memory.bytes(), kEverything));
  EXPECT_THAT(pd.Close(), StatusIs(kBusy));
  EXPECT_TRUE(pd.is_open());
  Check(region.Close());
  Check(pd.Close());
}

TEST_P(Objects, DomainWithAWindow) {
  // Expect: EBUSY until the window is closed.
  if (!device().capabilities().memory_windows) GTEST_SKIP() << "capability: memory_windows";
  ProtectionDomain pd = Domain();
  MemoryWindow window = Check(pd.AllocateWindow());
  EXPECT_THAT(pd.Close(), StatusIs(kBusy));
  Check(window.Close());
  Check(pd.Close());
}

TEST_P(Objects, DomainWithASharedReceiveQueue) {
  // Expect: EBUSY until the queue is closed.
  ProtectionDomain pd = Domain();
  SharedReceiveQueue srq = Check(pd.CreateSharedReceiveQueue());
  EXPECT_THAT(pd.Close(), StatusIs(kBusy));
  Check(srq.Close());
  Check(pd.Close());
}

TEST_P(Objects, ParentsOfAQueuePair) {
  // Domain, both completion queues and the shared receive queue of an open queue pair.
  // Expect: EBUSY for each (ibv_destroy_cq(3), ibv_destroy_srq(3)); fine after it is closed.
  ProtectionDomain pd = Domain();
  CompletionQueue sends = Queue(), receives = Queue();
  SharedReceiveQueue srq = Check(pd.CreateSharedReceiveQueue());
  QueuePair qp = Check(pd.CreateQueuePair(
      {.send_cq = &sends, .receive_cq = &receives, .shared_receive_queue = &srq}));
  EXPECT_THAT(pd.Close(), StatusIs(kBusy));
  EXPECT_THAT(sends.Close(), StatusIs(kBusy));
  EXPECT_THAT(receives.Close(), StatusIs(kBusy));
  EXPECT_THAT(srq.Close(), StatusIs(kBusy));
  Check(qp.Close());
  Check(srq.Close());
  Check(sends.Close());
  Check(receives.Close());
  Check(pd.Close());
}

TEST_P(Objects, ChannelWithAQueue) {
  // Expect: EBUSY until the completion queue is closed (ibv_destroy_comp_channel(3)).
  CompletionChannel channel = Check(device().CreateCompletionChannel());
  CompletionQueue cq = Queue({.channel = &channel});
  EXPECT_THAT(channel.Close(), StatusIs(kBusy));
  Check(cq.Close());
  Check(channel.Close());
}

TEST_P(Objects, CloseTwice) {
  // Expect: closing again is fine, and is_open() tells.
  ProtectionDomain pd = Domain();
  CompletionQueue cq = Queue();
  Check(pd.Close());
  EXPECT_FALSE(pd.is_open());
  Check(pd.Close());
  Check(cq.Close());
  Check(cq.Close());
}

TEST_P(Objects, HandlesMove) {
  // A region and a queue pair are moved from variable to variable while in use.
  // Expect: nothing changes for anybody.
  Pair pair = MakePair(*this);
  MemoryRegion region = std::move(pair.client->region);
  EXPECT_FALSE(pair.client->region.is_open());
  QueuePair qp = std::move(pair.client->qp);
  Post(qp, {.opcode = Opcode::kWrite,
            .local = region.slice(0, 8),
            .remote = pair.server->at(0),
            .id = 1});
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  pair.client->region = std::move(region);
  pair.client->qp = std::move(qp);
}

TEST_P(Objects, ManyOfEach) {
  // 200 domains, queues, regions and queue pairs, closed in the order of their making.
  // Expect: no limit is hit and the device's counts come back to zero.
  Buffer memory(4096);
  std::vector<ProtectionDomain> pds;
  std::vector<CompletionQueue> cqs;
  std::vector<MemoryRegion> regions;
  std::vector<QueuePair> qps;
  for (int i = 0; i < 200; ++i) {
    pds.push_back(Domain());
    cqs.push_back(Queue({.entries = 16}));
    regions.push_back(Check(pds.back().Register(memory.bytes(), kEverything)));
    qps.push_back(
        Check(pds.back().CreateQueuePair({.send_cq = &cqs.back(), .receive_cq = &cqs.back()})));
  }
  const DeviceCounters counters = device().counters();
  EXPECT_EQ(counters.queue_pairs, 200u);
  EXPECT_EQ(counters.regions, 200u);
  EXPECT_EQ(counters.registered_bytes, 200u * 4096);
  for (int i = 0; i < 200; ++i) {
    Check(qps[i].Close());
    Check(regions[i].Close());
    Check(cqs[i].Close());
    Check(pds[i].Close());
  }
  EXPECT_EQ(device().counters().queue_pairs, 0u);
  EXPECT_EQ(device().counters().regions, 0u);
  EXPECT_EQ(device().counters().registered_bytes, 0u);
}

struct LimitRow {
  std::string name;
  uint32_t DeviceAttributes::*limit;
  uint32_t QpLimits::*asked;
};

const LimitRow kLimits[] = {
    {"SendRequests", &DeviceAttributes::max_work_requests, &QpLimits::max_send_wr},
    {"ReceiveRequests", &DeviceAttributes::max_work_requests, &QpLimits::max_receive_wr},
    {"SendEntries", &DeviceAttributes::max_sge, &QpLimits::max_send_sge},
    {"ReceiveEntries", &DeviceAttributes::max_sge, &QpLimits::max_receive_sge},
    {"Inline", &DeviceAttributes::max_inline, &QpLimits::max_inline},
};

CONFORMANCE_TABLE(QueuePairLimits, LimitRow, kLimits);

TEST_P(QueuePairLimits, AtAndOverTheLimit) {
  // A queue pair that asks for exactly the device's limit, and for one more.
  // Expect: the first gets it; the second is InvalidArgument with the limit and what was asked.
  Device& device = *client().devices()[0];
  const uint32_t limit = device.attributes().*row().limit;
  ProtectionDomain pd = Check(device.AllocateProtectionDomain());
  CompletionQueue cq = Check(device.CreateCompletionQueue());
  QueuePairOptions options{.send_cq = &cq, .receive_cq = &cq};
  options.limits.*row().asked = limit;
  {
    QueuePair qp = Check(pd.CreateQueuePair(options));
    EXPECT_GE(qp.Query().limits.*row().asked, limit);
  }
  options.limits.*row().asked = limit + 1;
  EXPECT_THAT(pd.CreateQueuePair(options),
              StatusIs(kInvalid,
                       AllOf(HasSubstr(absl::StrCat(limit)), HasSubstr(absl::StrCat(limit + 1)))));
}

TEST_P(Objects, CompletionQueueLimits) {
  // Expect: at least what was asked for; InvalidArgument with both numbers above the limit, and
  // for none.
  EXPECT_GE(Queue({.entries = 1}).entries(), 1u);
  EXPECT_GE(Queue({.entries = 1000}).entries(), 1000u);
  const uint32_t most = device().attributes().max_completions;
  EXPECT_GE(Queue({.entries = most}).entries(), most);
  EXPECT_THAT(
      device().CreateCompletionQueue({.entries = most + 1}),
      StatusIs(kInvalid, AllOf(HasSubstr(absl::StrCat(most)), HasSubstr(absl::StrCat(most + 1)))));
  EXPECT_THAT(device().CreateCompletionQueue({.entries = 0}), StatusIs(kInvalid));
}

TEST_P(Objects, SharedReceiveQueueLimits) {
  // Expect: InvalidArgument with both numbers above the limits of requests and entries.
  ProtectionDomain pd = Domain();
  const DeviceAttributes most = device().attributes();
  EXPECT_THAT(pd.CreateSharedReceiveQueue({.limits = {.max_wr = most.max_work_requests + 1}}),
              StatusIs(kInvalid, HasSubstr(absl::StrCat(most.max_work_requests))));
  EXPECT_THAT(pd.CreateSharedReceiveQueue({.limits = {.max_sge = most.max_sge + 1}}),
              StatusIs(kInvalid, HasSubstr(absl::StrCat(most.max_sge))));
}

TEST_P(Objects, QueuePairNeedsItsQueues) {
  // Without a send or receive completion queue, and with one of another device.
  // Expect: InvalidArgument.
  ProtectionDomain pd = Domain();
  CompletionQueue cq = Queue();
  EXPECT_THAT(pd.CreateQueuePair({.receive_cq = &cq}), StatusIs(kInvalid));
  EXPECT_THAT(pd.CreateQueuePair({.send_cq = &cq}), StatusIs(kInvalid));
  CompletionQueue foreign = Check(server().devices()[0]->CreateCompletionQueue());
  EXPECT_THAT(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &foreign}), StatusIs(kInvalid));
}

TEST_P(Objects, SharedReceiveQueueOfAnotherDomain) {
  // A queue pair of one domain, a shared receive queue of another with a receive in its own memory.
  // Expect: InvalidArgument, or a queue that works: its receives are judged by the queue's domain
  // (IBTA 10.2.9).
  ProtectionDomain pd = Domain();
  End client_end(device(), {}), server_end(*server().devices()[0], {});
  SharedReceiveQueue srq = Check(client_end.pd.CreateSharedReceiveQueue());
  absl::StatusOr<QueuePair> qp = pd.CreateQueuePair(
      {.send_cq = &client_end.cq, .receive_cq = &client_end.cq, .shared_receive_queue = &srq});
  if (!qp.ok()) {
    EXPECT_THAT(qp, StatusIs(kInvalid));
    return;
  }
  Connect(*this, *qp, server_end.qp);
  Check(srq.PostReceive({.local = client_end.slice(0, 8), .id = 1}));
  Post(server_end.qp, {.opcode = Opcode::kSend, .local = server_end.slice(0, 8), .id = 2});
  EXPECT_THAT(WaitOne(client_end.cq), Succeeded(1));
}

}  // namespace
}  // namespace verbena::conformance
