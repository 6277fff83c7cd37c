// SPDX-License-Identifier: Apache-2.0
// Registering memory, of any kind and size: ibv_reg_mr(3).
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class Registration : public Conformance {
 protected:
  Device& device() { return *client().devices()[0]; }
  ProtectionDomain Domain() { return Check(device().AllocateProtectionDomain()); }
};
CONFORMANCE_RUN(Registration);

TEST_P(Registration, DescribesTheMemory) {
  // Expect: address, length and keys of the span; slice() and remote() count from it.
  ProtectionDomain pd = Domain();
  Buffer memory(8192);
  MemoryRegion region = Check(pd.Register(memory.bytes(100, 1000), kEverything));
  EXPECT_EQ(region.address(), reinterpret_cast<uint64_t>(memory.data() + 100));
  EXPECT_EQ(region.length(), 1000u);
  const Sge slice = region.slice(10, 20);
  EXPECT_EQ(slice.address, region.address() + 10);
  EXPECT_EQ(slice.length, 20u);
  EXPECT_EQ(slice.key, region.local_key());
  const RemoteBuffer remote = Check(Decode(Encode(region.remote())));
  EXPECT_EQ(remote.address, region.address());
  EXPECT_EQ(remote.length, 1000u);
  EXPECT_EQ(remote.key, region.remote_key());
}

TEST_P(Registration, NothingCannotBeRegistered) {
  // Expect: InvalidArgument for an empty span.
  EXPECT_THAT(Domain().Register({}, kEverything), StatusIs(kInvalid));
}

TEST_P(Registration, WrapAroundIsRefused) {
  // Spans and iovas whose end passes 2^64.
  // Expect: InvalidArgument.
  ProtectionDomain pd = Domain();
  Buffer memory(8192);
  EXPECT_THAT(pd.Register({reinterpret_cast<std::byte*>(~0ull - 100), 200}, Access::kLocalRead),
              StatusIs(kInvalid));
  EXPECT_THAT(pd.Register(memory.bytes(), kEverything, {.iova = ~0ull - 100}), StatusIs(kInvalid));
}

TEST_P(Registration, RemoteWriteNeedsLocalWrite) {
  // Expect: InvalidArgument, with a text that names what is missing (ibv_reg_mr(3)).
  ProtectionDomain pd = Domain();
  Buffer memory(4096);
  for (Access access :
       {Access::kRemoteWrite, Access::kRemoteAtomic, Access::kRemoteWrite | Access::kRemoteRead}) {
    EXPECT_THAT(pd.Register(memory.bytes(), access), StatusIs(kInvalid, HasSubstr("kLocalWrite")));
  }
}

TEST_P(Registration, ReadOnlyMemoryCanBeLentToRead) {
  // Memory mapped read-only, registered with remote read.
  // Expect: a peer reads it.
  Pair pair = MakePair(*this);
  Buffer memory(4096);
  Fill(memory.bytes(), 1);
  memory.Protect(PROT_READ);
  MemoryRegion region = Check(pair.server->pd.Register(memory.bytes(), Access::kRemoteRead));
  Post(pair.client->qp, OneSided(Opcode::kRead, *pair.client, region.remote().at(0), 1, 4096));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_THAT(pair.client->bytes(0, 4096), HasPattern(1));
}

TEST_P(Registration, MappedFiles) {
  // A shared mapping of a file is written by a peer.
  // Expect: the bytes are in the file.
  Pair pair = MakePair(*this);
  FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  const std::vector<char> zeroes(65536);
  ASSERT_EQ(std::fwrite(zeroes.data(), 1, zeroes.size(), file), zeroes.size());
  ASSERT_EQ(std::fflush(file), 0);
  void* mapped = mmap(nullptr, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
  ASSERT_NE(mapped, MAP_FAILED);
  {
    MemoryRegion region =
        Check(pair.server->pd.Register({static_cast<std::byte*>(mapped), 65536}, kEverything));
    Fill(pair.client->bytes(0, 65536), 1);
    Post(pair.client->qp, OneSided(Opcode::kWrite, *pair.client, region.remote().at(0), 1, 65536));
    EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  }
  std::vector<std::byte> content(65536);
  std::rewind(file);
  EXPECT_EQ(std::fread(content.data(), 1, content.size(), file), content.size());
  EXPECT_THAT(content, HasPattern(1));
  munmap(mapped, 65536);
  std::fclose(file);
}

// Pages of this process in memory.
long ResidentPages() {
  std::ifstream statm("/proc/self/statm");
  long total = 0, resident = 0;
  statm >> total >> resident;
  return resident;
}

// 1 TiB, or as much address space as a sanitizer leaves.
size_t Reservable() {
  size_t size = 1ull << 40;
  for (; size > 1ull << 32; size /= 2) {
    void* memory =
        mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) continue;
    munmap(memory, size);
    break;
  }
  return size;
}

TEST_P(Registration, ReservedTerabyteTakesNoTimeAndNoMemory) {
  // 1 TiB of reserved address space is registered, its last bytes written by a peer.
  // Expect: under 10 ms, no page touched by the registration (nothing is pinned).
  if (!device().capabilities().lazy_registration) GTEST_SKIP() << "capability: lazy_registration";
  Pair pair = MakePair(*this);
  Buffer memory(Reservable());
  const long before = ResidentPages();
  MemoryRegion region;
  auto took = std::chrono::steady_clock::duration::max();
  for (int i = 0; i < 5; ++i) {  // the best of five: other programs may be running
    const auto start = std::chrono::steady_clock::now();
    region = Check(pair.server->pd.Register(memory.bytes(), kEverything));
    took = std::min(took, std::chrono::steady_clock::now() - start);
  }
  EXPECT_LT(took, std::chrono::milliseconds(10));
  EXPECT_LT(ResidentPages() - before, 1000);
  Fill(pair.client->bytes(0, 8), 1);
  Post(pair.client->qp,
       OneSided(Opcode::kWrite, *pair.client, region.remote().at(memory.size() - 8), 1));
  EXPECT_THAT(WaitOne(pair.client->cq), Succeeded(1));
  EXPECT_THAT(memory.bytes(memory.size() - 8, 8), HasPattern(1));
}

// What the kernel maps into every process for its own clock: not host memory that can be pinned,
// as a GPU's is not. Empty if this kernel does not show it.
std::span<std::byte> DeviceMapping() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    uint64_t first = 0, end = 0;
    if (line.find("[vvar]") == std::string::npos) continue;
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64, &first, &end) == 2) {
      return {reinterpret_cast<std::byte*>(first), end - first};
    }
  }
  return {};
}

TEST_P(Registration, NoHostMemoryIsRefused) {
  // Where registering pins: a hole, memory that is protected, memory to be written that is mapped
  // for reading, and a mapping that is no memory at all, as a GPU's is.
  // Expect: InvalidArgument, which names the range and what GPU memory would need.
  if (device().capabilities().lazy_registration) GTEST_SKIP() << "it is found out at first use";
  constexpr size_t kSize = 65536;
  ProtectionDomain pd = Domain();
  auto map = [](int protection) {
    void* at = mmap(nullptr, kSize, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return std::span(static_cast<std::byte*>(at), kSize);
  };
  const std::span hole = map(PROT_READ), none = map(PROT_NONE), read_only = map(PROT_READ);
  munmap(hole.data(), hole.size());
  struct {
    std::span<std::byte> memory;
    Access access;
  } const rows[] = {{hole, kEverything},
                    {none, kEverything},
                    {read_only, kEverything},
                    {DeviceMapping(), Access::kLocalRead}};
  for (const auto& row : rows) {
    if (row.memory.empty()) continue;
    const absl::Status refused = pd.Register(row.memory, row.access).status();
    EXPECT_THAT(refused, StatusIs(kInvalid));
    EXPECT_THAT(std::string(refused.message()),
                AllOf(HasSubstr(absl::StrCat(
                          "[0x", absl::Hex(reinterpret_cast<uint64_t>(row.memory.data())), ", ")),
                      HasSubstr("dma-buf")));
  }
  munmap(none.data(), none.size());
  munmap(read_only.data(), read_only.size());
}

TEST_P(Registration, KeysAreNotGuessable) {
  // Twenty registrations.
  // Expect: keys that are neither in sequence nor small, where the device says so.
  if (!device().capabilities().unguessable_keys) GTEST_SKIP() << "capability: unguessable_keys";
  ProtectionDomain pd = Domain();
  Buffer memory(4096);
  std::vector<MemoryRegion> regions;
  int close_together = 0;
  for (int i = 0; i < 20; ++i) {
    regions.push_back(Check(pd.Register(memory.bytes(), kEverything)));
    if (i > 0) {
      const uint32_t step = regions[i].remote_key() - regions[i - 1].remote_key();
      close_together += step < 0x10000 || -step < 0x10000;
    }
  }
  EXPECT_LT(close_together, 3);
}

}  // namespace
}  // namespace verbena::conformance
