// SPDX-License-Identifier: Apache-2.0
// The largest message that there is: 2 GiB, between windows on small files.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <span>
#include <string>

#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"
#include "tests/conformance/sanitizer.h"

namespace verbena::conformance {
namespace {

constexpr size_t kLargest = 1ull << 31;
constexpr size_t kFile = 64 << 20;

// 2 GiB of addresses, all on the same file of 64 MiB, so that memory is not what is tested.
class Folded {
 public:
  Folded() : file_(std::tmpfile()) {
    void* all =
        mmap(nullptr, kLargest, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (file_ == nullptr || all == MAP_FAILED || ftruncate(fileno(file_), kFile) != 0) {
      Stop("no file, or no addresses", Line::Here());
    }
    data_ = static_cast<std::byte*>(all);
    for (size_t at = 0; at < kLargest; at += kFile) {
      if (mmap(data_ + at, kFile, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fileno(file_),
               0) == MAP_FAILED) {
        Stop("mmap of a file failed", Line::Here());
      }
    }
  }
  ~Folded() {
    munmap(data_, kLargest);
    std::fclose(file_);
  }
  Folded(const Folded&) = delete;
  Folded& operator=(const Folded&) = delete;

  std::span<std::byte> bytes() const { return {data_, kLargest}; }
  std::span<std::byte> first() const { return {data_, kFile}; }

 private:
  std::FILE* file_;
  std::byte* data_ = nullptr;
};

struct LargestRow {
  std::string name;
  Opcode opcode;
};

const LargestRow kLargestRows[] = {
    {"Send", Opcode::kSend}, {"Write", Opcode::kWrite}, {"Read", Opcode::kRead}};
CONFORMANCE_TABLE(LargestMessage, LargestRow, kLargestRows);

TEST_P(LargestMessage, ArrivesWhole) {
  // 2^31 bytes in one request (IBTA 9.7.2).
  // Expect: one completion, the content, and a connection that works on.
  if (kThreadSanitizer) {
    GTEST_SKIP() << "memory: the thread sanitizer would take 16 GiB";
  }
  if (simulated()) GTEST_SKIP() << "size: a simulated network takes minutes for 2 GiB";
  const Device& device = *client().devices()[0];
  if (device.attributes().max_message < kLargest) GTEST_SKIP() << "limit: max_message";
  if (!device.capabilities().lazy_registration) GTEST_SKIP() << "capability: lazy_registration";
  Pair pair = MakePair(*this);
  const Folded ours, theirs;
  const MemoryRegion local = Check(pair.client->pd.Register(ours.bytes(), kEverything));
  const MemoryRegion remote = Check(pair.server->pd.Register(theirs.bytes(), kEverything));
  const bool reads = row().opcode == Opcode::kRead;
  Fill((reads ? theirs : ours).first(), 31);
  if (row().opcode == Opcode::kSend) {
    PostReceive(pair.server->qp, {.local = remote.slice(0, kLargest), .id = 2});
  }
  SendWr request{.opcode = row().opcode, .local = local.slice(0, kLargest), .id = 1};
  if (row().opcode != Opcode::kSend) request.remote = remote.remote().at(0);
  Post(pair.client->qp, request);
  // A second or so; half a minute with sanitizers.
  EXPECT_THAT(Check(pair.client->cq.Wait(1, absl::Minutes(5))).front(), Succeeded(1));
  EXPECT_THAT((reads ? ours : theirs).first(), HasPattern(31));
  if (row().opcode == Opcode::kSend) {
    EXPECT_THAT(WaitOne(pair.server->cq),
                testing::AllOf(Succeeded(2), testing::Field(&WorkCompletion::length, kLargest)));
  }
  Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, pair.server->at(0), 3));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(3));
}

}  // namespace
}  // namespace verbena::conformance
