// SPDX-License-Identifier: Apache-2.0
// Groups whose ranks are threads of this process; what they compute against a sum made here.
#include "examples/ml/group.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ml {
namespace {

using ::testing::HasSubstr;

std::string NewFolder() {
  const char* base = std::getenv("TEST_TMPDIR");
  std::string path = std::string(base == nullptr ? "/tmp" : base) + "/board.XXXXXX";
  EXPECT_NE(mkdtemp(path.data()), nullptr);
  return "folder:" + path;
}

// Runs `what` on each rank, in threads.
void OnRanks(int size, const std::function<void(Group&)>& what, GroupOptions options = {}) {
  const std::string where = NewFolder();
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([&, rank, options]() mutable {
      auto board = OpenBoard(where);
      ASSERT_TRUE(board.ok()) << board.status();
      options.rank = rank;
      options.size = size;
      auto group = Group::Join(**board, options);
      ASSERT_TRUE(group.ok()) << group.status();
      what(**group);
    });
  }
  for (std::thread& each : ranks) each.join();
}

// Small whole numbers: their sums are exact in every kind, whatever the order.
double Value(int rank, size_t i) { return static_cast<double>((i * 7 + 3) % 13) - 5 + rank; }

void Set(Dtype dtype, std::byte* at, double value) {
  if (dtype == Dtype::kFloat32) {
    const auto set = static_cast<float>(value);
    std::memcpy(at, &set, sizeof(set));
  } else {
    const auto set = static_cast<float>(value);
    const uint16_t bits = dtype == Dtype::kFloat16 ? HalfOfFloat(set) : BfloatOfFloat(set);
    std::memcpy(at, &bits, sizeof(bits));
  }
}
double Get(Dtype dtype, const std::byte* at) {
  if (dtype == Dtype::kFloat32) {
    float value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  return dtype == Dtype::kFloat16 ? FloatOfHalf(bits) : FloatOfBfloat(bits);
}

std::vector<std::byte> Mine(Dtype dtype, int rank, size_t count) {
  std::vector<std::byte> bytes(count * SizeOf(dtype));
  for (size_t i = 0; i < count; ++i) Set(dtype, &bytes[i * SizeOf(dtype)], Value(rank, i));
  return bytes;
}

void ExpectSum(Dtype dtype, int size, const std::vector<std::byte>& out) {
  const size_t count = out.size() / SizeOf(dtype);
  std::vector<std::byte> sums(out.size());
  for (size_t i = 0; i < count; ++i) {
    double sum = 0;
    for (int rank = 0; rank < size; ++rank) sum += Value(rank, i);
    Set(dtype, &sums[i * SizeOf(dtype)], sum);
  }
  if (out == sums) return;
  for (size_t i = 0; i < count; ++i) {
    ASSERT_EQ(Get(dtype, &out[i * SizeOf(dtype)]), Get(dtype, &sums[i * SizeOf(dtype)]))
        << i << " of " << count << " " << NameOf(dtype) << ", " << size << " ranks";
  }
}

// Nothing, one, odd numbers, what is just small and just not, pieces that are cut short, and more
// than all slots hold.
const size_t kCounts[] = {0, 1, 3, 255, 4096, 4097, 16384, 16385, 300001, (2u << 20) + 3};

class Sizes : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, Sizes, testing::Values(1, 2, 3, 4, 5));

TEST_P(Sizes, AllReduceIsTheSum) {
  OnRanks(GetParam(), [](Group& group) {
    for (const Dtype dtype : {Dtype::kFloat32, Dtype::kFloat16, Dtype::kBfloat16}) {
      for (const size_t count : kCounts) {
        if (count > 300001 && dtype != Dtype::kFloat32) continue;
        const auto in = Mine(dtype, group.rank(), count);
        std::vector<std::byte> out(in.size());
        const auto apart = group.AllReduce(dtype, {in}, {out});
        ASSERT_TRUE(apart.ok()) << apart;
        ExpectSum(dtype, group.size(), out);
        EXPECT_EQ(in, Mine(dtype, group.rank(), count));
        auto both = in;
        const auto in_place = group.AllReduce(dtype, {both}, {both});
        ASSERT_TRUE(in_place.ok()) << in_place;
        EXPECT_EQ(both, out);
      }
    }
  });
}

TEST_P(Sizes, AllGatherIsEverybodysPart) {
  OnRanks(GetParam(), [](Group& group) {
    for (const size_t count : kCounts) {
      if (count > 300001) continue;
      const Dtype dtype = Dtype::kBfloat16;
      const auto in = Mine(dtype, group.rank(), count);
      std::vector<std::byte> all;
      for (int rank = 0; rank < group.size(); ++rank) {
        const auto theirs = Mine(dtype, rank, count);
        all.insert(all.end(), theirs.begin(), theirs.end());
      }
      std::vector<std::byte> out(all.size());
      const auto apart = group.AllGather({in}, {out});
      ASSERT_TRUE(apart.ok()) << apart;
      ASSERT_TRUE(out == all) << count;
      std::fill(out.begin(), out.end(), std::byte{0});
      if (!in.empty()) {
        std::copy(in.begin(), in.end(),
                  out.begin() + group.rank() * static_cast<ptrdiff_t>(in.size()));
      }
      const auto own =
          std::span(out).subspan(static_cast<size_t>(group.rank()) * in.size(), in.size());
      const auto in_place = group.AllGather({own}, {out});
      ASSERT_TRUE(in_place.ok()) << in_place;
      ASSERT_TRUE(out == all) << count;
    }
  });
}

// Sums that depend on their order: all ranks have the same bits all the same.
TEST_P(Sizes, TheSameBitsEverywhere) {
  for (const size_t count : {size_t{100}, size_t{100'000}}) {
    std::vector<std::vector<float>> outs(static_cast<size_t>(GetParam()));
    OnRanks(GetParam(), [&](Group& group) {
      std::vector<float>& out = outs[static_cast<size_t>(group.rank())];
      for (size_t i = 0; i < count; ++i) {
        out.push_back(std::sin(static_cast<float>(i + 1) * static_cast<float>(group.rank() + 1)));
      }
      const auto bytes = std::as_writable_bytes(std::span(out));
      const auto summed = group.AllReduce(Dtype::kFloat32, {bytes}, {bytes});
      ASSERT_TRUE(summed.ok()) << summed;
    });
    for (const auto& out : outs) EXPECT_EQ(out, outs.front());
  }
}

class Waits : public testing::TestWithParam<Wait> {};
INSTANTIATE_TEST_SUITE_P(All, Waits, testing::Values(Wait::kSpin, Wait::kAdaptive, Wait::kBlock));

// Operations of all kinds and lengths one behind the other, so that ranks are at different ones.
TEST_P(Waits, ManyOperations) {
  OnRanks(3,
          [](Group& group) {
            for (int i = 0; i < 60; ++i) {
              const size_t count = static_cast<size_t>(i * i * i) % 20'000;
              auto both = Mine(Dtype::kFloat32, group.rank(), count);
              const auto summed = group.AllReduce(Dtype::kFloat32, {both}, {both});
              ASSERT_TRUE(summed.ok()) << summed;
              ExpectSum(Dtype::kFloat32, group.size(), both);
              if (i % 7 == 0) {
                const auto met = group.Barrier();
                ASSERT_TRUE(met.ok()) << met;
              }
            }
          },
          {.wait = GetParam()});
}

// A large tensor is never copied on its way; out of place not either.
TEST(Group, LargeTensorsAreNotCopied) {
  OnRanks(2, [](Group& group) {
    std::vector<float> in(1 << 20, 1.0f), out(1 << 20);
    const auto summed = group.AllReduce(Dtype::kFloat32, {std::as_bytes(std::span(in))},
                                        {std::as_writable_bytes(std::span(out))});
    ASSERT_TRUE(summed.ok()) << summed;
    EXPECT_TRUE(out == std::vector<float>(out.size(), 2.0f));
    const GroupCounters counters = group.counters();
    EXPECT_LT(counters.bytes_copied, 100u);  // where the tensor is
    EXPECT_GE(counters.bytes_sent, out.size() * sizeof(float));
    EXPECT_EQ(counters.registrations, 2u);
  });
}

TEST(Group, RegisteredMemoryIsNotRegisteredAgain) {
  OnRanks(2, [](Group& group) {
    std::vector<float> both(1 << 16, 1.0f);
    const auto bytes = std::as_writable_bytes(std::span(both));
    auto region = group.Register(bytes, true);
    ASSERT_TRUE(region.ok()) << region.status();
    for (int i = 0; i < 3; ++i) {
      const auto summed = group.AllReduce(Dtype::kFloat32, {bytes, &*region}, {bytes, &*region});
      ASSERT_TRUE(summed.ok()) << summed;
    }
    EXPECT_TRUE(both == std::vector<float>(both.size(), 8.0f));
    EXPECT_EQ(group.counters().registrations, 1u);
  });
}

// The caller's own mistakes change nothing.
TEST(Group, Mistakes) {
  OnRanks(1, [](Group& group) {
    alignas(8) std::array<std::byte, 64> memory{};
    const std::span bytes(memory);
    const auto refused = [&](const absl::Status& status, const char* why) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr(why));
    };
    refused(group.AllReduce(Dtype::kFloat32, {bytes.first(8)}, {bytes.first(12)}), "two lengths");
    refused(group.AllReduce(Dtype::kFloat32, {bytes.first(7)}, {bytes.first(7)}), "whole number");
    refused(group.AllReduce(Dtype::kFloat32, {bytes.subspan(2, 8)}, {bytes.subspan(2, 8)}),
            "aligned");
    refused(group.AllReduce(Dtype::kFloat32, {bytes.first(16)}, {bytes.subspan(8, 16)}), "overlap");
    refused(group.AllGather({bytes.first(8)}, {bytes.first(16)}), "1 times as long");
    EXPECT_TRUE(group.AllReduce(Dtype::kFloat32, {bytes}, {bytes}).ok());
  });
}

// Ranks that call different things are told, all of them.
TEST(Group, RanksThatDisagree) {
  OnRanks(2, [](Group& group) {
    std::vector<std::byte> bytes(group.rank() == 0 ? 8 : 16);
    const auto summed = group.AllReduce(Dtype::kFloat32, {bytes}, {bytes});
    EXPECT_FALSE(summed.ok());
    EXPECT_EQ(group.Barrier(), summed);
  });
}

// Who leaves when it has what it wanted does not harm those that are not done yet.
TEST(Group, LeavingInTurn) {
  for (int i = 0; i < 5; ++i) {
    OnRanks(4, [](Group& group) {
      std::vector<float> both(group.size() * 100'000, 1.0f);
      const auto bytes = std::as_writable_bytes(std::span(both));
      const auto summed = group.AllReduce(Dtype::kFloat32, {bytes}, {bytes});
      EXPECT_TRUE(summed.ok()) << summed;
    });
  }
}

TEST(Group, WhoIsNeededAndHasLeft) {
  OnRanks(2, [](Group& group) {
    if (group.rank() == 1) return;
    const auto met = group.Barrier();
    EXPECT_EQ(met.code(), absl::StatusCode::kUnavailable) << met;
  });
}

// A rank that is there and does nothing: the others' deadline.
TEST(Group, ASilentRank) {
  std::latch given_up(1);
  OnRanks(2,
          [&](Group& group) {
            if (group.rank() == 1) return given_up.wait();
            const auto met = group.Barrier();
            EXPECT_EQ(met.code(), absl::StatusCode::kDeadlineExceeded) << met;
            EXPECT_THAT(std::string(met.message()), HasSubstr("rank 1"));
            given_up.count_down();
          },
          {.deadline = absl::Seconds(1)});
}

TEST(Board, WritesOnce) {
  auto board = OpenBoard(NewFolder());
  ASSERT_TRUE(board.ok());
  EXPECT_TRUE((*board)->Put("a", "1").ok());
  EXPECT_EQ((*board)->Put("a", "2").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(*(*board)->Wait("a", absl::ZeroDuration()), "1");
  EXPECT_EQ((*board)->Wait("b", absl::Milliseconds(10)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(OpenBoard("folder:/no/such").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(OpenBoard("nonsense").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Board, SomebodyDoesNotCome) {
  auto board = OpenBoard(NewFolder());
  ASSERT_TRUE(board.ok());
  const auto group = Group::Join(**board, {.size = 2, .deadline = absl::Milliseconds(50)});
  EXPECT_EQ(group.status().code(), absl::StatusCode::kDeadlineExceeded) << group.status();
  EXPECT_THAT(std::string(group.status().message()), HasSubstr("context.1"));
}

}  // namespace
}  // namespace ml
