// SPDX-License-Identifier: Apache-2.0
// What a client may do with a server's volumes, and what it is told when it may not.
#include <sys/stat.h>

#include <algorithm>

#include "examples/volume/volume_fixture.h"

namespace verbena::volume {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSize = 8 << 20;

TEST(Block, ItsCrcIsCrc32c) {
  const Bytes zeros(kBlock);
  EXPECT_EQ(BlockCrc(zeros.data()), kZeroCrc);
  Bytes one(kBlock);
  one[100] = std::byte{1};
  const auto found = CheckBlocks(8192, one, std::vector<uint32_t>{kZeroCrc});
  EXPECT_TRUE(absl::IsDataLoss(found));
  EXPECT_THAT(std::string(found.message()), HasSubstr("the block at byte 8192"));
}

struct Way {
  const char* name;
  bool uring, direct;
  uint64_t inline_most;
};

class Ways : public VolumeTest, public ::testing::WithParamInterface<Way> {};

INSTANTIATE_TEST_SUITE_P(All, Ways,
                         ::testing::Values(Way{"UringDirect", true, true, 4096},
                                           Way{"UringCached", true, false, 4096},
                                           Way{"ThreadsDirect", false, true, 4096},
                                           Way{"ThreadsCached", false, false, 4096},
                                           Way{"AllByBulk", true, false, 0}),
                         [](const auto& row) { return std::string(row.param.name); });

// Blocks of every length, by both faces, come back after a restart too. Expect: what was not
// written is zeros.
TEST_P(Ways, WhatWasWrittenComesBack) {
  const StoreOptions options = {.direct = GetParam().direct, .uring = GetParam().uring};
  Serve(options);
  Connect(GetParam().inline_most);
  const auto volume = Make("disk", 32 << 20);
  const Bytes pattern = Pattern(9 << 20, 1);
  Bytes expected(32 << 20);
  uint64_t at = kBlock;
  for (const uint64_t bytes : {kBlock, 2 * kBlock, uint64_t{1} << 20, uint64_t{9} << 20}) {
    const auto piece = std::span(pattern).first(bytes);
    const absl::Status written =
        bytes == kBlock ? rpc::WaitFor(volume->CoWrite(at, piece)) : volume->Write(at, piece);
    ASSERT_TRUE(written.ok()) << written;
    std::copy(piece.begin(), piece.end(), expected.begin() + static_cast<ptrdiff_t>(at));
    at += bytes + kBlock;
  }
  ASSERT_TRUE(volume->Flush().ok());
  for (int round = 0; round < 2; ++round) {
    Bytes all(32 << 20);
    const absl::Status read =
        round == 0 ? volume->Read(0, all) : rpc::WaitFor(volume->CoRead(0, all));
    ASSERT_TRUE(read.ok()) << read;
    EXPECT_TRUE(all == expected);
    Bytes block(kBlock);
    ASSERT_TRUE(volume->Read(kBlock, block).ok());
    EXPECT_TRUE(std::equal(block.begin(), block.end(), pattern.begin()));
    Serve(options);
  }
  EXPECT_STREQ(serving_->store->disk(), GetParam().uring ? "io_uring" : "threads");
}

class Calls : public VolumeTest {};

// Writers of the same blocks at the same time. Expect: each read is whole, one writer's or
// another's.
TEST_F(Calls, ManyAtOnceInOnePlace) {
  Serve({.direct = false});
  const auto volume = Make("disk", kSize);
  constexpr uint64_t kPiece = 16 * kBlock;
  std::vector<Bytes> patterns, reads;
  for (uint64_t i = 0; i < 32; ++i) {
    patterns.push_back(Pattern(kPiece, i));
    reads.emplace_back(kPiece);
  }
  std::vector<rpc::Task<absl::Status>> all;
  for (size_t i = 0; i < 32; ++i) {
    all.push_back(volume->CoWrite(0, patterns[i]));
    all.push_back(volume->CoRead(0, reads[i]));
  }
  for (const absl::Status& end : rpc::WaitForAll(std::move(all))) EXPECT_TRUE(end.ok()) << end;
  patterns.emplace_back(kPiece);
  for (const Bytes& read : reads) {
    EXPECT_NE(std::find(patterns.begin(), patterns.end(), read), patterns.end());
  }
}

TEST_F(Calls, BadRanges) {
  Serve();
  const auto volume = Make("disk", kSize);
  Bytes block(kBlock);
  EXPECT_TRUE(absl::IsInvalidArgument(volume->Read(1, block)));
  EXPECT_TRUE(absl::IsInvalidArgument(volume->Write(0, std::span(block).first(100))));
  EXPECT_TRUE(absl::IsOutOfRange(volume->Read(kSize, block)));
  EXPECT_TRUE(absl::IsOutOfRange(volume->Write(~uint64_t{0} - kBlock + 1, block)));
  EXPECT_TRUE(absl::IsOutOfRange(volume->Trim(0, 2 * kSize)));
  EXPECT_TRUE(volume->Write(kSize - kBlock, block).ok());
}

TEST_F(Calls, ThatAreNotThere) {
  Serve();
  EXPECT_TRUE(absl::IsNotFound(client_->OpenVolume("nobody").status()));
  const auto volume = Make("disk", kSize);
  ASSERT_TRUE(client_->Remove("disk").ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
  Bytes block(kBlock);
  EXPECT_TRUE(absl::IsNotFound(volume->Read(0, block)));
  EXPECT_TRUE(absl::IsNotFound(volume->Flush()));
  const auto anew = Make("disk", kSize);
  EXPECT_TRUE(absl::IsNotFound(volume->Write(0, block))) << "of the same name, but another";
  EXPECT_TRUE(anew->Write(0, block).ok());
}

TEST_F(Calls, BadNamesAndSizes) {
  Serve();
  for (const char* name : {"", ".hidden", "a/b", "..", "with space"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(client_->Create(name, kSize).status())) << name;
  }
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{4097}, uint64_t{1} << 50}) {
    EXPECT_TRUE(absl::IsInvalidArgument(client_->Create("disk", bytes).status())) << bytes;
  }
  Make("disk", kSize);
  EXPECT_TRUE(absl::IsAlreadyExists(client_->Create("disk", kSize).status()));
}

TEST_F(Calls, ReadOnly) {
  const Bytes pattern = Pattern(kSize, 3);
  WriteFile("disk", 0, pattern);
  chmod(path("disk").c_str(), 0444);
  Serve();
  const auto volume = Must(client_->OpenVolume("disk"));
  EXPECT_FALSE(volume->info().writable());
  Bytes read(kSize);
  EXPECT_TRUE(volume->Read(0, read).ok());
  EXPECT_TRUE(read == pattern);
  EXPECT_TRUE(absl::IsPermissionDenied(volume->Write(0, std::span(read).first(kBlock))));
  EXPECT_TRUE(absl::IsPermissionDenied(volume->Trim(0, kBlock)));
  EXPECT_TRUE(absl::IsPermissionDenied(client_->Remove("disk")));
  EXPECT_TRUE(volume->Flush().ok());
}

// Expect: zeros that take no room.
TEST_F(Calls, Trim) {
  Serve();
  const auto volume = Make("disk", kSize);
  const Bytes pattern = Pattern(kSize, 4);
  ASSERT_TRUE(volume->Write(0, pattern).ok());
  ASSERT_TRUE(volume->Flush().ok());
  struct stat before = {}, after = {};
  stat(path("disk").c_str(), &before);
  ASSERT_TRUE(volume->Trim(kBlock, kSize / 2).ok());
  stat(path("disk").c_str(), &after);
  EXPECT_LT(after.st_blocks, before.st_blocks);
  Bytes read(kSize), expected = pattern;
  std::fill_n(expected.begin() + kBlock, kSize / 2, std::byte{0});
  ASSERT_TRUE(volume->Read(0, read).ok());
  EXPECT_TRUE(read == expected);
}

// Expect: what was beyond a shorter end is zeros when it grows again.
TEST_F(Calls, Resize) {
  Serve();
  const auto volume = Make("disk", kSize);
  ASSERT_TRUE(volume->Write(0, Pattern(kSize, 5)).ok());
  EXPECT_EQ(Must(client_->Resize("disk", kSize / 2)).bytes(), kSize / 2);
  Bytes block(kBlock);
  EXPECT_TRUE(absl::IsOutOfRange(volume->Read(kSize / 2, block)));
  EXPECT_EQ(Must(client_->Resize("disk", 2 * kSize)).bytes(), 2 * kSize);
  Serve();
  const auto again = Must(client_->OpenVolume("disk"));
  Bytes all(2 * kSize), expected = Pattern(kSize, 5);
  std::fill(expected.begin() + kSize / 2, expected.end(), std::byte{0});
  expected.resize(2 * kSize);
  ASSERT_TRUE(again->Read(0, all).ok());
  EXPECT_TRUE(all == expected);
  EXPECT_TRUE(absl::IsInvalidArgument(client_->Resize("disk", 1).status()));
}

TEST_F(Calls, Listed) {
  WriteFile("odd", 0, Bytes(100));
  WriteFile("image", 0, Pattern(kSize, 6));
  Serve();
  Make("made", kSize);
  const auto list = Must(client_->List());
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0].name(), "image");
  EXPECT_EQ(list[1].name(), "made");
  EXPECT_EQ(list[2].name(), "odd");
  EXPECT_THAT(list[2].unusable(), HasSubstr("truncate -s %4096"));
  EXPECT_TRUE(absl::IsFailedPrecondition(client_->OpenVolume("odd").status()));
  EXPECT_THAT(serving_->notes, HasSubstr("image: it had no checksums"));
}

// The server is gone, and another comes to its place. Expect: callers of both faces only wait.
TEST_F(Calls, TheServerGoesAndComesBack) {
  Serve();
  const auto volume = Make("disk", kSize);
  const Bytes pattern = Pattern(kSize, 7);
  ASSERT_TRUE(volume->Write(0, pattern).ok());
  const std::string address = serving_->server->address();
  serving_.reset();
  Bytes blocking(kSize), coroutine(kSize);
  std::thread other([&] { EXPECT_TRUE(rpc::WaitFor(volume->CoRead(0, coroutine)).ok()); });
  std::thread writer([&] { EXPECT_TRUE(volume->Write(kBlock, Bytes(kBlock)).ok()); });
  serving_ = std::make_unique<Serving>(folder_, StoreOptions{}, address);
  EXPECT_TRUE(volume->Read(0, blocking).ok());
  other.join();
  writer.join();
  EXPECT_TRUE(
      std::equal(pattern.begin() + 2 * kBlock, pattern.end(), blocking.begin() + 2 * kBlock));
  EXPECT_TRUE(
      std::equal(pattern.begin() + 2 * kBlock, pattern.end(), coroutine.begin() + 2 * kBlock));
}

// Expect: who opens a volume meanwhile only waits, too.
TEST_F(Calls, OpenedBeforeTheServerIsBack) {
  Serve();
  Make("disk", kSize);
  const std::string address = serving_->server->address();
  serving_.reset();
  std::thread opens([&] { EXPECT_TRUE(client_->OpenVolume("disk").ok()); });
  serving_ = std::make_unique<Serving>(folder_, StoreOptions{}, address);
  opens.join();
}

TEST_F(Calls, PatienceEnds) {
  Serve();
  const auto made = Make("disk", kSize);
  const auto client =
      Must(Client::Open(serving_->server->address(), {.patience = absl::Milliseconds(200)}));
  const auto volume = Must(client->OpenVolume("disk"));
  serving_.reset();
  Bytes block(kBlock);
  EXPECT_TRUE(absl::IsUnavailable(volume->Read(0, block)));
  EXPECT_TRUE(absl::IsUnavailable(client->OpenVolume("disk").status()));
}

}  // namespace
}  // namespace verbena::volume
