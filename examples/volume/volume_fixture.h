// SPDX-License-Identifier: Apache-2.0
// A folder, a server of it in this process, a client of that.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "examples/volume/client.h"
#include "examples/volume/service.h"
#include "examples/volume/store.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rpc/server.h"

namespace verbena::volume {

using Bytes = std::vector<std::byte>;

// No two blocks are the same, and none is that of another seed.
inline Bytes Pattern(uint64_t bytes, uint64_t seed) {
  Bytes pattern(bytes);
  auto* words = reinterpret_cast<uint64_t*>(pattern.data());
  for (uint64_t i = 0; i < bytes / 8; ++i) words[i] = (i + 1) * 0x9e3779b97f4a7c15 + seed;
  return pattern;
}

// A value, or the test has failed with the status.
template <typename T>
T Must(absl::StatusOr<T> value) {
  EXPECT_TRUE(value.ok()) << value.status();
  return std::move(value).value();
}

struct Serving {
  explicit Serving(const std::string& folder, const StoreOptions& options = {},
                   const std::string& address = "127.0.0.1:0")
      : store(Must(
            Store::Open({folder}, options, [this](const auto& what) { notes += what + "\n"; }))),
        service(*store, size_t{16} << 20),
        server(Must(rpc::Server::Open({.handler_threads = 0}))) {
    EXPECT_TRUE(server->Add(service).ok());
    const absl::Status started = server->Start(address);
    EXPECT_TRUE(started.ok()) << started;
  }
  std::string notes;
  std::unique_ptr<Store> store;
  VolumeService service;
  std::unique_ptr<rpc::Server> server;
};

class VolumeTest : public ::testing::Test {
 protected:
  VolumeTest() {
    const char* scratch = std::getenv("TEST_TMPDIR");
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string name = std::string(test->test_suite_name()) + test->name();
    std::replace(name.begin(), name.end(), '/', '_');
    folder_ = std::string(scratch == nullptr ? "/tmp" : scratch) + "/" + name;
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~VolumeTest() override {
    client_.reset();
    serving_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Serve(const StoreOptions& options = {}) {
    const std::string address = serving_ == nullptr ? "127.0.0.1:0" : serving_->server->address();
    serving_.reset();
    serving_ = std::make_unique<Serving>(folder_, options, address);
    if (client_ == nullptr) Connect();
  }
  void Connect(uint64_t inline_most = 4096) {
    client_ = Must(Client::Open(serving_->server->address(), {.inline_most = inline_most}));
  }

  std::unique_ptr<Volume> Make(const std::string& name, uint64_t bytes) {
    const auto made = client_->Create(name, bytes);
    EXPECT_TRUE(made.ok()) << made.status();
    return Must(client_->OpenVolume(name));
  }

  std::string path(const std::string& name) const { return folder_ + "/" + name; }

  // What somebody does to the file behind the server's back.
  void WriteFile(const std::string& name, uint64_t offset, std::span<const std::byte> bytes) const {
    const int fd = open(path(name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    EXPECT_EQ(pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(bytes.size()));
    close(fd);
  }

  std::string folder_;
  std::unique_ptr<Serving> serving_;
  std::unique_ptr<Client> client_;
};

}  // namespace verbena::volume
