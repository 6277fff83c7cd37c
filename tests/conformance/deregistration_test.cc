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

// A mapped file.
class FileMemory {
 public:
  explicit FileMemory(size_t size) : file_(std::tmpfile()), size_(size) {
    if (file_ == nullptr || ftruncate(fileno(file_), static_cast<off_t>(size)) != 0) {
      Stop("no temporary file", Line::Here());
    }
    data_ = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file_), 0);
    if (data_ == MAP_FAILED) Stop("mmap of a file failed", Line::Here());
  }
  ~FileMemory() {
    munmap(data_, size_);
    std::fclose(file_);
  }
  FileMemory(const FileMemory&) = delete;
  FileMemory& operator=(const FileMemory&) = delete;

  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(data_), size_}; }
  void Truncate() const {
    if (ftruncate(fileno(file_), 0) != 0) Stop("ftruncate failed", Line::Here());
  }

 private:
  std::FILE* file_;
  size_t size_;
  void* data_;
};

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
  EXPECT_THAT(done[i], Completed(i, Refusal(WcStatus::kRemoteAccessError)));
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

// A request that touches memory of a file which was truncated: at the target, or at the end that
// posts it.
struct TruncatedRow {
  std::string name;
  Opcode opcode;
  bool at_target;
  uint32_t length;
};

const TruncatedRow kTruncated[] = {
    {"SmallSendReceived", Opcode::kSend, true, 8},
    {"LargeSendReceived", Opcode::kSend, true, 64 << 10},
    {"SmallWriteTarget", Opcode::kWrite, true, 8},
    {"LargeWriteTarget", Opcode::kWrite, true, 64 << 10},
    {"SmallReadSource", Opcode::kRead, true, 8},
    {"LargeReadSource", Opcode::kRead, true, 64 << 10},
    {"AtomicTarget", Opcode::kFetchAdd, true, 8},
    {"SmallSendSource", Opcode::kSend, false, 8},
    {"LargeSendSource", Opcode::kSend, false, 64 << 10},
    {"SmallWriteSource", Opcode::kWrite, false, 8},
    {"LargeWriteSource", Opcode::kWrite, false, 64 << 10},
    {"SmallReadSink", Opcode::kRead, false, 8},
    {"LargeReadSink", Opcode::kRead, false, 64 << 10},
    {"AtomicResult", Opcode::kFetchAdd, false, 8},
};
CONFORMANCE_TABLE(TruncatedFile, TruncatedRow, kTruncated);

TEST_P(TruncatedFile, FailsTheRequestOnly) {
  // Memory over a mapped file, which is truncated: touching it would raise SIGBUS.
  // Expect: the request says whose memory it was, the process lives, another connection works.
  if (IsAtomic(row().opcode) && !client().devices()[0]->capabilities().atomics) {
    GTEST_SKIP() << "capability: atomics";
  }
  Pair pair = MakePair(*this);
  const FileMemory file(64 << 10);
  End& owner = row().at_target ? *pair.server : *pair.client;
  {
    const MemoryRegion region = Check(owner.pd.Register(file.bytes(), kEverything));
    file.Truncate();
    const MemoryRegion& target = row().at_target ? region : pair.server->region;
    const MemoryRegion& local = row().at_target ? pair.client->region : region;
    if (row().opcode == Opcode::kSend) {
      PostReceive(pair.server->qp, {.local = target.slice(0, row().length), .id = 2});
    }
    SendWr request = OneSided(row().opcode, *pair.client, target.remote().at(0), 1, row().length);
    request.local = local.slice(0, row().length);
    Post(pair.client->qp, request);
    // A device has pinned the pages, and uses them though the file has let go of them.
    const bool pinned = !server().devices()[0]->capabilities().lazy_registration;
    EXPECT_THAT(WaitOne(pair.client->cq),
                Completed(1, pinned            ? WcStatus::kSuccess
                             : row().at_target ? WcStatus::kRemoteOperationError
                                               : WcStatus::kLocalProtectionError));
  }
  QueuePair ours = pair.client->NewQueuePair(), theirs = pair.server->NewQueuePair();
  Connect(*this, ours, theirs);
  Post(ours, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), 3));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(3));
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
