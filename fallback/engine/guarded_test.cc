// SPDX-License-Identifier: Apache-2.0
// Registered memory of a file that somebody truncates: a touch of it raises SIGBUS, which would end
// these tests. Expect everywhere: an error of the request, or zeros for what was framed already.
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "fallback/engine/guarded_copy.h"
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

constexpr size_t kSize = 128 << 10;

// A mapped file, registered with a Side.
class FileMemory {
 public:
  explicit FileMemory(Side* side) : side_(side), file_(memfd_create("guarded_test", MFD_CLOEXEC)) {
    EXPECT_EQ(ftruncate(file_, kSize), 0);
    data_ = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    EXPECT_NE(data_, MAP_FAILED);
    region.key = side->keys.NewKey();
    region.domain = 3;
    region.guarded = true;
    region.access = kEverything;
    region.host = static_cast<std::byte*>(data_);
    region.length = kSize;
    side->keys.Add(&region);
  }
  ~FileMemory() {
    side_->keys.Kill(&region);
    munmap(data_, kSize);
    close(file_);
  }
  Sge sge(uint32_t length = kSize) const { return {0, length, region.key}; }
  RemoteAddress at() const { return {0, region.key}; }
  std::byte* data() { return static_cast<std::byte*>(data_); }
  void Truncate(size_t size = 0) { EXPECT_EQ(ftruncate(file_, static_cast<off_t>(size)), 0); }

  Region region;

 private:
  Side* side_;
  int file_;
  void* data_;
};

TEST(Guarded, ProbeFindsTheOnePageThatIsGone) {
  Side side;
  FileMemory file(&side);
  EXPECT_TRUE(GuardedProbe(file.data(), kSize));
  file.Truncate(kSize - 4096);
  EXPECT_TRUE(GuardedProbe(file.data() + 5, kSize - 4096 - 5));
  EXPECT_FALSE(GuardedProbe(file.data(), kSize));
  EXPECT_FALSE(GuardedProbe(file.data() + kSize - 4097, 2));
  EXPECT_TRUE(GuardedProbe(file.data() + kSize, 0));
}

class GuardedCrc : public testing::TestWithParam<bool> {};  // whether the stream has CRCs

TEST_P(GuardedCrc, WriteFromIt) {
  Wired w(Chunks(0), GetParam());
  FileMemory from(&w.a);
  Memory to(&w.b, kSize);
  from.Truncate();
  w.a.Post({.opcode = Opcode::kWrite, .local = from.sge(), .remote = to.at(), .id = 1});
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "1 LOC_PROT_ERR");
}

TEST_P(GuardedCrc, ReadOfIt) {
  Wired w(Chunks(0), GetParam());
  FileMemory from(&w.b);
  Memory to(&w.a, kSize);
  from.Truncate();
  w.a.Post({.opcode = Opcode::kRead, .local = to.sge(), .remote = from.at(), .id = 1});
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "1 REM_OP_ERR");
}

INSTANTIATE_TEST_SUITE_P(All, GuardedCrc, testing::Bool(),
                         [](const auto& i) { return i.param ? "Crc" : "NoCrc"; });

TEST(Guarded, ResultOfAnAtomic) {
  Wired w;
  FileMemory result(&w.a);
  Memory target(&w.b, 8);
  result.Truncate();
  w.a.Post({.opcode = Opcode::kFetchAdd,
            .local = result.sge(8),
            .remote = target.at(),
            .id = 1,
            .atomic = {.compare_add = 1}});
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "1 LOC_PROT_ERR");
}

class TruncatedWhileSent : public testing::Test {
 protected:
  static constexpr size_t kLeft = 100;  // bytes that have left when the file is truncated
  TruncatedWhileSent() {
    w_.a.Post({.opcode = Opcode::kWrite, .local = from_.sge(), .remote = to_.at(), .id = 1});
    w_.a.qp.Gather(true, 0);
    w_.a.qp.Sent(kLeft);
    from_.Truncate();
  }
  Wired w_;
  FileMemory from_{&w_.a};
  Memory to_{&w_.b, kSize};
};

TEST_F(TruncatedWhileSent, SendCallFails) {
  w_.a.qp.SendFailed(EFAULT);
  EXPECT_EQ(w_.a.Sends(), "1 RETRY_EXC_ERR");
  EXPECT_TRUE(w_.a.qp.finished());
}

TEST_F(TruncatedWhileSent, Deregistered) {
  w_.a.qp.KeepUnsent();
  EXPECT_GT(w_.a.Drain().size(), kSize - kLeft);
}

TEST_F(TruncatedWhileSent, Closed) { EXPECT_GT(w_.a.qp.TakeUnsent().size(), kSize - kLeft); }

TEST_F(TruncatedWhileSent, Disconnected) {
  w_.a.qp.Disconnect();
  EXPECT_GT(w_.a.Drain().size(), kSize - kLeft);
}

}  // namespace
}  // namespace verbena::engine
