// SPDX-License-Identifier: Apache-2.0
// Blocks that are not what was written, ends in the middle of a write, writes that come too late.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <future>

#include "absl/strings/str_cat.h"
#include "examples/volume/checksums.h"
#include "examples/volume/volume_fixture.h"

namespace verbena::volume {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSize = 8 << 20;
constexpr uint64_t kBlocks = kSize / kBlock;

class Integrity : public VolumeTest {
 protected:
  // As a server leaves it that is killed in the middle of a write of all blocks with `after`: the
  // CRCs are stored, and of the blocks those before `written`.
  void KilledInAWrite(const Bytes& after, uint64_t written) const {
    const auto sums = Must(Checksums::Open(path(".disk.crc32c"), absl::InfinitePast()));
    (void)sums->BeginWrite(0, kBlocks);
    sums->Store(0, BlockCrcs(after));
    WriteFile("disk", 0, std::span(after).first(written * kBlock));
  }
};

// Expect: named, when it is read; the others are not harmed.
TEST_F(Integrity, AFlippedByteOnTheDisk) {
  Serve({.direct = false});
  const auto volume = Make("disk", kSize);
  const Bytes pattern = Pattern(kSize, 1);
  ASSERT_TRUE(volume->Write(0, pattern).ok());
  ASSERT_TRUE(volume->Flush().ok());
  WriteFile("disk", 5 * kBlock + 77, std::vector{pattern[5 * kBlock + 77] ^ std::byte{4}});
  Bytes read(kSize);
  const absl::Status found = volume->Read(0, read);
  EXPECT_TRUE(absl::IsDataLoss(found)) << found;
  EXPECT_THAT(std::string(found.message()), HasSubstr(absl::StrCat("at byte ", 5 * kBlock)));
  EXPECT_TRUE(absl::IsDataLoss(volume->Read(5 * kBlock, std::span(read).first(kBlock))));
  EXPECT_TRUE(volume->Read(6 * kBlock, std::span(read).first(kBlock)).ok());
  // A whole new block is right again.
  EXPECT_TRUE(volume->Write(5 * kBlock, std::span(pattern).first(kBlock)).ok());
  EXPECT_TRUE(volume->Read(0, read).ok());
}

// Expect: refused before anything is written.
TEST_F(Integrity, AFlippedByteOnTheWay) {
  Serve();
  const auto volume = Make("disk", kSize);
  const auto channel = Must(rpc::Channel::Open(serving_->server->address()));
  const volume::Volumes::Client calls(*channel);
  WriteRequest request;
  request.set_volume(volume->info().id());
  request.set_blocks(std::string(kBlock, 'x'));
  request.add_crcs(kZeroCrc);
  EXPECT_TRUE(absl::IsDataLoss(calls.Write(request).status()));
  request.clear_crcs();
  EXPECT_TRUE(absl::IsInvalidArgument(calls.Write(request).status()));
  Bytes block(kBlock, std::byte{1});
  ASSERT_TRUE(volume->Read(0, block).ok());
  EXPECT_TRUE(block == Bytes(kBlock));
}

// SIGKILL at any point of a write. Expect: each block is as before or as it was to become, and says
// so.
TEST_F(Integrity, KilledInTheMiddleOfAWrite) {
  const Bytes before = Pattern(kSize, 1);
  const Bytes after = Pattern(kSize, 2);
  for (const uint64_t written : {uint64_t{0}, uint64_t{1}, kBlocks / 2, kBlocks}) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    Serve();
    ASSERT_TRUE(Make("disk", kSize)->Write(0, before).ok());
    serving_->server.reset();
    serving_->store.reset();
    KilledInAWrite(after, written);
    client_.reset();
    serving_.reset();
    Serve();
    EXPECT_THAT(serving_->notes, HasSubstr(absl::StrCat("looked at ", kBlocks, " blocks, 0 ")));
    EXPECT_THAT(serving_->notes, HasSubstr(", 0 neither"));
    Bytes read(kSize), expected = before;
    std::copy_n(after.begin(), written * kBlock, expected.begin());
    ASSERT_TRUE(Must(client_->OpenVolume("disk"))->Read(0, read).ok());
    EXPECT_TRUE(read == expected);
    Serve();
    EXPECT_EQ(serving_->notes, "") << "and it was put right for good";
    client_.reset();
  }
}

// A block that is neither, though the machine ran on. Expect: lost, and it stays so.
TEST_F(Integrity, ABlockThatIsNeither) {
  Serve();
  ASSERT_TRUE(Make("disk", kSize)->Write(0, Pattern(kSize, 1)).ok());
  serving_->server.reset();
  serving_->store.reset();
  KilledInAWrite(Pattern(kSize, 2), 3);
  WriteFile("disk", kBlock, Pattern(kBlock, 3));
  client_.reset();
  serving_.reset();
  for (int round = 0; round < 2; ++round) {
    Serve();
    EXPECT_THAT(serving_->notes, HasSubstr("1 neither as before nor as written"));
    Bytes block(kBlock);
    EXPECT_TRUE(absl::IsDataLoss(Must(client_->OpenVolume("disk"))->Read(kBlock, block)));
  }
}

// The machine went down: the disk has blocks and CRCs of different times. Expect: where nothing was
// flushed, what is there; where nothing was written since, a flip is still found.
TEST_F(Integrity, TheMachineWentDown) {
  constexpr uint64_t kLong = 3 * kRegion;
  Serve({.direct = false, .boot = 1});
  const auto volume = Make("disk", kLong);
  const Bytes pattern = Pattern(kSize, 1);
  ASSERT_TRUE(volume->Write(2 * kRegion, pattern).ok());
  // The second flush clears the mark of what was not written between.
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(volume->Flush().ok());
  ASSERT_TRUE(volume->Write(0, pattern).ok());
  serving_.reset();
  WriteFile("disk", kBlock, Pattern(kBlock, 2));                // neither, in a marked region
  WriteFile("disk", 2 * kRegion + kBlock, Pattern(kBlock, 2));  // … in one that is not
  client_.reset();
  Serve({.direct = false, .boot = 2});
  EXPECT_THAT(serving_->notes, HasSubstr(", 1 not flushed and taken for what they are"));
  const auto again = Must(client_->OpenVolume("disk"));
  Bytes block(kBlock);
  EXPECT_TRUE(again->Read(kBlock, block).ok());
  EXPECT_TRUE(block == Pattern(kBlock, 2));
  EXPECT_TRUE(absl::IsDataLoss(again->Read(2 * kRegion + kBlock, block)));
}

// Expect: the flush that promises what may be lost fails, once.
TEST_F(Integrity, FlushAfterTheMachineWentDown) {
  Serve({.boot = 1});
  const auto volume = Make("disk", kSize);
  ASSERT_TRUE(volume->Write(0, Pattern(kBlock, 1)).ok());
  ASSERT_TRUE(volume->Flush().ok());
  Serve({.boot = 2});
  EXPECT_TRUE(volume->Flush().ok()) << "nothing was written since";
  ASSERT_TRUE(volume->Write(0, Pattern(kBlock, 2)).ok());
  Serve({.boot = 3});
  EXPECT_TRUE(absl::IsDataLoss(volume->Flush()));
  EXPECT_TRUE(volume->Flush().ok());
  ASSERT_TRUE(volume->Write(0, Pattern(kBlock, 3)).ok());
  Serve({.boot = 4});
  ASSERT_TRUE(volume->Write(0, Pattern(kBlock, 4)).ok());
  EXPECT_TRUE(absl::IsDataLoss(volume->Flush())) << "also if more was written since";
  EXPECT_TRUE(volume->Flush().ok());
}

// What is left of a first try comes after the second. Expect: refused.
TEST_F(Integrity, AWriteThatComesTooLate) {
  Serve();
  const auto volume = Make("disk", kSize);
  const auto channel = Must(rpc::Channel::Open(serving_->server->address()));
  const volume::Volumes::Client calls(*channel);
  WriteRequest request;
  request.set_volume(volume->info().id());
  request.set_blocks(std::string(kBlock, '\0'));
  request.add_crcs(kZeroCrc);
  request.mutable_attempt()->set_writer(7);
  request.mutable_attempt()->set_number(1);
  EXPECT_TRUE(calls.Write(request).ok());
  request.mutable_attempt()->set_number(0);
  EXPECT_TRUE(absl::IsAborted(calls.Write(request).status()));
  request.mutable_attempt()->set_writer(8);
  EXPECT_TRUE(calls.Write(request).ok()) << "somebody else's";
}

TEST_F(Integrity, TwoServersOfOneVolume) {
  Serve();
  Make("disk", kSize);
  const Serving second(folder_, {.patience = absl::Milliseconds(20)});
  EXPECT_THAT(second.notes, HasSubstr("another server has this volume"));
}

// I/O of a server that was killed goes on for a while on its open files. Expect: the next one waits
// for both, and does not list the volume as another's.
TEST_F(Integrity, AServerThatIsNotQuiteGone) {
  Serve();
  Make("disk", kSize);
  for (const char* name : {"disk", ".disk.crc32c"}) {
    const int fd = open(path(name).c_str(), O_RDWR | O_CLOEXEC);
    EXPECT_NE(flock(fd, LOCK_EX | LOCK_NB), 0) << "while it is served";
    serving_.reset();
    ASSERT_EQ(flock(fd, LOCK_EX | LOCK_NB), 0);
    auto next = std::async(std::launch::async, [this] {
      return std::make_unique<Serving>(folder_, StoreOptions{.patience = absl::Seconds(60)});
    });
    EXPECT_EQ(next.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
    close(fd);
    serving_ = next.get();
    EXPECT_EQ(serving_->notes.find("cannot be used"), std::string::npos) << serving_->notes;
  }
}

TEST_F(Integrity, AFileThatWasCutShort) {
  Serve();
  Make("disk", kSize);
  serving_.reset();
  std::filesystem::resize_file(path("disk"), kSize / 2);
  client_.reset();
  Serve();
  EXPECT_THAT(serving_->notes, HasSubstr("has 4194304 bytes and checksums of 8388608"));
}

// Ends between the steps of a change of length. Expect: the old length or the new one.
TEST_F(Integrity, KilledInTheMiddleOfAResize) {
  for (const bool was_cut : {false, true}) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    Serve();
    ASSERT_TRUE(Make("disk", kSize)->Write(0, Pattern(kSize, 1)).ok());
    client_.reset();
    serving_.reset();
    {
      const auto sums = Must(Checksums::Open(path(".disk.crc32c"), absl::InfinitePast()));
      ASSERT_TRUE(sums->BeginResize(2 * kSize).ok());
    }
    if (was_cut) std::filesystem::resize_file(path("disk"), 2 * kSize);
    Serve();
    const auto volume = Must(client_->OpenVolume("disk"));
    EXPECT_EQ(volume->info().bytes(), was_cut ? 2 * kSize : kSize);
    Bytes all(volume->info().bytes());
    EXPECT_TRUE(volume->Read(0, all).ok());
    client_.reset();
  }
}

}  // namespace
}  // namespace verbena::volume
