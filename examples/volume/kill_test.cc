// SPDX-License-Identifier: Apache-2.0
// A server that dies with SIGKILL again and again while several threads write and flush. Expect: no
// caller sees it, every block verifies, and each is as its last acknowledged write left it.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "examples/volume/client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/process/process.h"

namespace verbena::volume {
namespace {

constexpr int kWriters = 4;
constexpr uint64_t kBlocksEach = 64;
constexpr int kKills = 5;

std::string Program() {
  const std::string path = "examples/volume/volume_server";
  return access(path.c_str(), X_OK) == 0 ? path : "bazel-bin/" + path;
}

std::unique_ptr<testing::Process> Serve(const std::string& folder, const std::string& address) {
  return std::make_unique<testing::Process>(
      std::vector<std::string>{Program(), "--listen", address, folder});
}

// A block full of one number.
std::vector<std::byte> Filled(uint64_t blocks, uint64_t number) {
  std::vector<std::byte> bytes(blocks * kBlock);
  for (size_t at = 0; at < bytes.size(); at += 8) std::memcpy(&bytes[at], &number, 8);
  return bytes;
}

// Writes runs of its own blocks with growing numbers until told to end, flushes at times; what each
// of its blocks has to have.
struct Writer {
  void Run(Volume& volume, const std::atomic<bool>& over) {
    for (uint64_t number = 1; !over.load(); ++number) {
      const uint64_t at = number * 7 % kBlocksEach;
      const uint64_t count = std::min(1 + number % 19, kBlocksEach - at);
      const absl::Status written = volume.Write((first + at) * kBlock, Filled(count, number));
      ASSERT_TRUE(written.ok()) << written;
      for (uint64_t i = at; i < at + count; ++i) acknowledged[i] = number;
      if (number % 16 == 0) {
        const absl::Status flushed = volume.Flush();
        ASSERT_TRUE(flushed.ok()) << flushed;
      }
      writes.fetch_add(1);
    }
  }
  uint64_t first = 0;
  std::vector<uint64_t> acknowledged = std::vector<uint64_t>(kBlocksEach);
  std::atomic<uint64_t> writes = 0;
};

TEST(KilledServer, WhatWasAcknowledgedIsThere) {
  const char* scratch = std::getenv("TEST_TMPDIR");
  const std::string folder = std::string(scratch == nullptr ? "/tmp" : scratch) + "/killed_volumes";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  auto server = Serve(folder, "127.0.0.1:0");
  const std::string line = server->LineWith("on port ");
  const std::string address = "127.0.0.1:" + line.substr(line.find_last_of(' ') + 1);

  const auto client = Client::Open(address);
  ASSERT_TRUE(client.ok());
  ASSERT_TRUE((*client)->Create("disk", kWriters * kBlocksEach * kBlock).ok());
  const auto volume = (*client)->OpenVolume("disk");
  ASSERT_TRUE(volume.ok()) << volume.status();

  std::atomic<bool> over = false;
  std::vector<Writer> writers(kWriters);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < writers.size(); ++i) {
    writers[i].first = i * kBlocksEach;
    threads.emplace_back([&, i] { writers[i].Run(**volume, over); });
  }
  for (int kill = 0; kill < kKills; ++kill) {
    // Each time somewhere in the middle: all have written some since it came back.
    for (const Writer& writer : writers) {
      const uint64_t enough = writer.writes.load() + 20;
      while (writer.writes.load() < enough && !::testing::Test::HasFailure()) {
        std::this_thread::yield();
      }
    }
    server->Kill(SIGKILL);
    server->Wait();
    server = Serve(folder, address);
    server->LineWith("on port ");
  }
  over.store(true);
  for (std::thread& thread : threads) thread.join();
  server->Kill(SIGKILL);
  server->Wait();
  server = Serve(folder, address);
  server->LineWith("on port ");

  std::vector<std::byte> block(kBlock);
  for (const Writer& writer : writers) {
    for (uint64_t i = 0; i < kBlocksEach; ++i) {
      const absl::Status read = (*volume)->Read((writer.first + i) * kBlock, block);
      ASSERT_TRUE(read.ok()) << read;
      EXPECT_TRUE(block == Filled(1, writer.acknowledged[i])) << "block " << writer.first + i;
    }
  }
  EXPECT_GE((*client)->counters().connections, static_cast<uint64_t>(kKills) + 1);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace verbena::volume
