// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "examples/ml/tensor_client.h"
#include "examples/ml/tensor_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rpc/server.h"

namespace ml {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;
using Code = absl::StatusCode;

constexpr uint64_t kMost = 256u << 20;

class TensorStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = verbena::rpc::Server::Open({.handler_threads = 4});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    ASSERT_TRUE(server_->Add(store_).ok());
    ASSERT_TRUE(server_->Start("127.0.0.1:0").ok());
    tensors_ = Open();
  }
  std::unique_ptr<Tensors> Open() {
    auto opened = Tensors::Open("127.0.0.1:" + std::to_string(server_->port()));
    EXPECT_TRUE(opened.ok()) << opened.status();
    return *std::move(opened);
  }
  static std::span<const std::byte> Bytes(const std::vector<float>& v) {
    return std::as_bytes(std::span(v));
  }
  absl::StatusOr<std::vector<float>> Get(const std::string& name,
                                         const std::vector<uint64_t>& shape) {
    const uint64_t count =
        std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<>());
    std::vector<float> into(count);
    const auto got =
        tensors_->Get(name, Dtype::kFloat32, shape, std::as_writable_bytes(std::span(into)));
    if (!got.ok()) return got.status();
    return into;
  }

  TensorServer store_{kMost};
  std::unique_ptr<verbena::rpc::Server> server_;
  std::unique_ptr<Tensors> tensors_;
};

TEST_F(TensorStoreTest, PutGetAccumulateListDelete) {
  const std::vector<float> ones(6, 1.0f);
  const auto put = tensors_->Put("a/w", Dtype::kFloat32, {2, 3}, Bytes(ones));
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_THAT(put->shape, ElementsAre(2, 3));
  const auto added = tensors_->Accumulate("a/w", Dtype::kFloat32, {2, 3}, Bytes(ones));
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_GT(added->version, put->version);
  EXPECT_EQ(*Get("a/w", {2, 3}), std::vector<float>(6, 2.0f));
  ASSERT_TRUE(tensors_->Put("b", Dtype::kFloat32, {}, Bytes({7.0f})).ok());
  ASSERT_TRUE(tensors_->Put("empty", Dtype::kFloat32, {0, 5}, {}).ok());
  EXPECT_EQ(*Get("b", {}), std::vector<float>{7.0f});
  EXPECT_THAT(*Get("empty", {0, 5}), SizeIs(0));
  EXPECT_THAT(*tensors_->List(), SizeIs(3));
  const auto listed = tensors_->List("a/");
  ASSERT_THAT(*listed, SizeIs(1));
  EXPECT_EQ(listed->front().name, "a/w");
  EXPECT_EQ(listed->front().version, added->version);
  EXPECT_EQ(tensors_->Describe("a/w")->version, added->version);
  ASSERT_TRUE(tensors_->Delete("a/w").ok());
  EXPECT_EQ(Get("a/w", {2, 3}).status().code(), Code::kNotFound);
  const auto again = tensors_->Put("a/w", Dtype::kFloat32, {2, 3}, Bytes(ones));
  EXPECT_GT(again->version, added->version);
}

TEST_F(TensorStoreTest, LargeOnes) {
  std::vector<float> many((5u << 20) + 7);
  std::iota(many.begin(), many.end(), 0.0f);
  ASSERT_TRUE(tensors_->Put("many", Dtype::kFloat32, {many.size()}, Bytes(many)).ok());
  EXPECT_TRUE(*Get("many", {many.size()}) == many);
}

TEST_F(TensorStoreTest, Refusals) {
  const std::vector<float> six(6, 1.0f);
  EXPECT_EQ(Get("none", {6}).status().code(), Code::kNotFound);
  EXPECT_EQ(tensors_->Accumulate("none", Dtype::kFloat32, {6}, Bytes(six)).status().code(),
            Code::kNotFound);
  EXPECT_EQ(tensors_->Delete("none").code(), Code::kNotFound);
  EXPECT_EQ(tensors_->Put("t", Dtype::kFloat32, {7}, Bytes(six)).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(tensors_->Put("", Dtype::kFloat32, {6}, Bytes(six)).status().code(),
            Code::kInvalidArgument);
  const uint64_t huge = uint64_t{1} << 40;
  EXPECT_EQ(tensors_->Put("t", Dtype::kFloat32, {huge, huge}, Bytes(six)).status().code(),
            Code::kInvalidArgument);
  ASSERT_TRUE(tensors_->Put("t", Dtype::kFloat32, {6}, Bytes(six)).ok());
  EXPECT_EQ(Get("t", {5}).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(tensors_->Accumulate("t", Dtype::kFloat32, {2, 3}, Bytes(six)).status().code(),
            Code::kFailedPrecondition);
  EXPECT_EQ(*Get("t", {6}), six);
}

TEST_F(TensorStoreTest, OnlyIfOfAVersion) {
  const std::vector<float> one = {1.0f}, two = {2.0f};
  const auto made = tensors_->Put("t", Dtype::kFloat32, {1}, Bytes(one), 0);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(tensors_->Put("t", Dtype::kFloat32, {1}, Bytes(two), 0).status().code(),
            Code::kAborted);
  EXPECT_TRUE(tensors_->Put("t", Dtype::kFloat32, {1}, Bytes(two), made->version).ok());
  EXPECT_EQ(tensors_->Put("t", Dtype::kFloat32, {1}, Bytes(one), made->version).status().code(),
            Code::kAborted);
  EXPECT_EQ(*Get("t", {1}), two);
}

// What was replaced, deleted or refused gives its room back.
TEST_F(TensorStoreTest, Room) {
  const std::vector<float> large((48u << 20) / sizeof(float));
  for (int i = 0; i < 20; ++i) {
    const auto put = tensors_->Put("t", Dtype::kFloat32, {large.size()}, Bytes(large));
    ASSERT_TRUE(put.ok()) << i << put.status();
    EXPECT_EQ(tensors_->Put("t", Dtype::kFloat32, {large.size()}, Bytes(large), 0).status().code(),
              Code::kAborted);
  }
  for (const char* name : {"u", "v", "w", "x"}) {
    ASSERT_TRUE(tensors_->Put(name, Dtype::kFloat32, {large.size()}, Bytes(large)).ok()) << name;
  }
  EXPECT_EQ(tensors_->Put("y", Dtype::kFloat32, {large.size()}, Bytes(large)).status().code(),
            Code::kResourceExhausted);
  ASSERT_TRUE(tensors_->Delete("u").ok());
  EXPECT_TRUE(tensors_->Put("y", Dtype::kFloat32, {large.size()}, Bytes(large)).ok());
}

// Many add to one tensor while others read it: no addition is lost, and nobody sees half of one.
TEST_F(TensorStoreTest, ManyAtOnce) {
  constexpr int kAdders = 3, kTimes = 20;
  const std::vector<float> ones(100'000, 1.0f), zeros(ones.size());
  ASSERT_TRUE(tensors_->Put("t", Dtype::kFloat32, {ones.size()}, Bytes(zeros)).ok());
  std::vector<std::thread> adders;
  std::atomic<int> adding = kAdders;
  for (int i = 0; i < kAdders; ++i) {
    adders.emplace_back([&] {
      const auto own = Open();
      for (int k = 0; k < kTimes; ++k) {
        const auto added = own->Accumulate("t", Dtype::kFloat32, {ones.size()}, Bytes(ones));
        EXPECT_TRUE(added.ok()) << added.status();
      }
      --adding;
    });
  }
  while (adding > 0) {
    const auto seen = Get("t", {ones.size()});
    ASSERT_TRUE(seen.ok()) << seen.status();
    ASSERT_TRUE(*seen == std::vector<float>(ones.size(), seen->front()));
  }
  for (std::thread& each : adders) each.join();
  EXPECT_EQ(Get("t", {ones.size()})->back(), static_cast<float>(kAdders * kTimes));
}

}  // namespace
}  // namespace ml
