// SPDX-License-Identifier: Apache-2.0
// Closing a region under traffic, and memory that goes away: ibv_dereg_mr(3); IBTA 10.6.6.
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

struct TrafficRow {
  std::string name;
  Opcode opcode;
  uint32_t size;
};

const TrafficRow kTraffic[] = {
    {"SmallWrites", Opcode::kWrite, 64},      {"Writes", Opcode::kWrite, 20000},
    {"LargeWrites", Opcode::kWrite, 1 << 20}, {"SmallReads", Opcode::kRead, 64},
    {"LargeReads", Opcode::kRead, 1 << 20},
};

CONFORMANCE_TABLE(Deregistration, TrafficRow, kTraffic);

TEST_P(Deregistration, NothingLandsAfterClose) {
  // A peer streams writes into a region (or reads from it); in the midst of it the region is closed
  // and its memory made inaccessible, so that one byte more would crash or fail the provider.
  // Expect: Close returns at once; successes, then REM_ACCESS_ERR, then flushes, in order.
  constexpr uint64_t kCount = 64;
  Pair pair = MakePair(*this, {.client = {.memory = 2 << 20}});
  Buffer target(1 << 20);
  MemoryRegion region = Check(pair.server->pd.Register(target.bytes(), kEverything));
  const RemoteBuffer remote = region.remote();
  for (uint64_t id = 0; id < kCount; ++id) {
    Post(pair.client->qp, OneSided(row().opcode, *pair.client, remote.at(0), id, row().size));
  }
  std::vector<WorkCompletion> done = WaitFor(pair.client->cq, 3);
  Check(region.Close());
  target.Protect(PROT_NONE);
  // The rest, and one that certainly comes after the close.
  for (const WorkCompletion& wc : WaitFor(pair.client->cq, kCount - 3)) done.push_back(wc);
  if (done.back().ok()) {
    Post(pair.client->qp, OneSided(row().opcode, *pair.client, remote.at(0), kCount, row().size));
    done.push_back(WaitOne(pair.client->cq));
  }
  size_t i = 0;
  for (; i < done.size() && done[i].ok(); ++i) EXPECT_EQ(done[i].id, i);
  ASSERT_LT(i, done.size());
  EXPECT_THAT(done[i], Completed(i, WcStatus::kRemoteAccessError));
  for (++i; i < done.size(); ++i) EXPECT_THAT(done[i], Flushed(i));
  const EventType told = server().devices()[0]->capabilities().responder_events
                             ? EventType::kQpAccessError
                             : EventType::kDisconnected;
  EXPECT_EQ(WaitForEvent(server(), told).context, pair.server.get());
}

CONFORMANCE_SUITE(MemoryLife);

TEST_P(MemoryLife, MemoryIsTheApplicationsAgainAfterClose) {
  // Like the stream above, and the memory is filled by its owner after Close.
  // Expect: not one byte of the owner's changes.
  Pair pair = MakePair(*this, {.client = {.memory = 1 << 20}});
  Buffer target(1 << 20);
  for (int round = 0; round < 5; ++round) {
    QueuePair ours = pair.client->NewQueuePair(), theirs = pair.server->NewQueuePair();
    Connect(*this, ours, theirs);
    MemoryRegion region = Check(pair.server->pd.Register(target.bytes(), kEverything));
    for (uint64_t id = 0; id < 20; ++id) {
      Post(ours, OneSided(Opcode::kWrite, *pair.client, region.remote().at(0), id, 1 << 20));
    }
    WaitOne(pair.client->cq);
    Check(region.Close());
    Fill(target.bytes(), 5);
    WaitFor(pair.client->cq, 19);
    RunFor(kAWhile);
    ASSERT_THAT(target.bytes(), HasPattern(5));
  }
}

TEST_P(MemoryLife, ClosingARegionThatReceivesUse) {
  // A receive is posted in a region that is then closed; a message comes for it.
  // Expect: the receive fails with LOC_PROT_ERR; nothing lands in the memory.
  Pair pair = MakePair(*this);
  Buffer target(4096);
  MemoryRegion region = Check(pair.server->pd.Register(target.bytes(), kEverything));
  PostReceive(pair.server->qp, {.local = region.slice(0, 4096), .id = 1});
  Check(region.Close());
  target.Protect(PROT_NONE);
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 100), .id = 2});
  EXPECT_THAT(WaitOne(pair.server->cq), Completed(1, WcStatus::kLocalProtectionError));
  EXPECT_THAT(WaitOne(pair.client->cq), Completed(2, WcStatus::kRemoteOperationError));
}

TEST_P(MemoryLife, ClosingARegionThatSendsUse) {
  // Sends from a region wait for receives; the region is closed; then the receives come.
  // Expect: LOC_PROT_ERR at the sender, as the data cannot be read any more, or success for what
  // had left before; no stray byte is read.
  if (!client().devices()[0]->capabilities().rnr) GTEST_SKIP() << "capability: rnr";
  Pair pair = MakePair(*this, {.server_min_rnr_timer = 1});
  Buffer source(64 << 10);
  MemoryRegion region = Check(pair.client->pd.Register(source.bytes(), Access::kLocalRead));
  Post(pair.client->qp, {.opcode = Opcode::kSend, .local = region.slice(0, 60000), .id = 1});
  ASSERT_TRUE(RunUntil([&] { return pair.client->qp.counters().rnr_naks_received > 0; }));
  Check(region.Close());
  source.Protect(PROT_NONE);
  PostReceive(pair.server->qp, {.local = pair.server->slice(0, 60000), .id = 2});
  EXPECT_THAT(WaitOne(pair.client->cq).status,
              testing::AnyOf(WcStatus::kLocalProtectionError, WcStatus::kSuccess));
}

TEST_P(MemoryLife, TruncatedFileDoesNotKillTheProcess) {
  // A region over a mapped file, which is then truncated: touching it would raise SIGBUS.
  // Expect: a peer that writes there gets an error; the process lives; other memory still works.
  Pair pair = MakePair(*this);
  FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(ftruncate(fileno(file), 64 << 10), 0);
  void* mapped = mmap(nullptr, 64 << 10, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
  ASSERT_NE(mapped, MAP_FAILED);
  {
    MemoryRegion region =
        Check(pair.server->pd.Register({static_cast<std::byte*>(mapped), 64 << 10}, kEverything));
    ASSERT_EQ(ftruncate(fileno(file), 0), 0);
    Post(pair.client->qp,
         OneSided(Opcode::kWrite, *pair.client, region.remote().at(0), 1, 64 << 10));
    // A device has pinned the pages, and fills them though the file has let go of them.
    const bool pinned = !server().devices()[0]->capabilities().lazy_registration;
    EXPECT_EQ(WaitOne(pair.client->cq).ok(), pinned);
  }
  munmap(mapped, 64 << 10);
  std::fclose(file);
  QueuePair ours = pair.client->NewQueuePair(), theirs = pair.server->NewQueuePair();
  Connect(*this, ours, theirs);
  Post(ours, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), 2));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(2));
}

TEST_P(MemoryLife, ReadOnlyMappingRefusesWritesWithoutACrash) {
  // A region with remote write over memory that is mapped read-only.
  // Expect: an error at the writer; the process lives.
  Pair pair = MakePair(*this);
  Buffer target(64 << 10);
  target.Protect(PROT_READ);
  absl::StatusOr<MemoryRegion> region = pair.server->pd.Register(target.bytes(), kEverything);
  if (!region.ok()) GTEST_SKIP() << "this provider checks at registration: " << region.status();
  Post(pair.client->qp,
       OneSided(Opcode::kWrite, *pair.client, region->remote().at(0), 1, 64 << 10));
  EXPECT_FALSE(WaitOne(pair.client->cq).ok());
}

}  // namespace
}  // namespace verbena::conformance
