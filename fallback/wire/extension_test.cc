// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/extension.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "fallback/wire/test_bytes.h"
#include "gtest/gtest.h"

namespace verbena::wire {
namespace {

constexpr uint32_t kAll = kAcknowledge | kRnr | kImmediate | kAtomics | kLargeFpdu;
constexpr char kGolden[] = "56726231 01 01 10 3c 0000001f 00000001";

std::vector<std::byte> With(std::string_view application, const Record& record, size_t tail = 0) {
  const auto chars = Chars(application);
  std::vector<std::byte> all(chars.begin(), chars.end());
  all.resize(all.size() + sizeof(RecordBytes) + tail);
  AppendRecord(record, std::span(all).subspan(application.size()));
  return all;
}

TEST(Extension, RecordGolden) {
  const auto bytes = With("", {kRoleRequest, kMaxFpduKib, kAll, kAcknowledge});
  EXPECT_EQ(ToHex(bytes), Golden(kGolden));
  const auto found = FindRecord(bytes, kRoleRequest);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->record, (Record{kRoleRequest, kMaxFpduKib, kAll, kAcknowledge}));
  EXPECT_TRUE(found->application.empty());
}

TEST(Extension, ApplicationDataIsSeparated) {
  const auto bytes = With("hello", {kRoleReply, 60, kAll, 0});
  const auto found = FindRecord(bytes, kRoleReply);
  ASSERT_TRUE(found);
  EXPECT_EQ(ToHex(found->application), ToHex(Chars("hello")));
}

// rdma_cm may deliver more than was sent. The record's own last bytes may be zero, too.
TEST(Extension, TailOfZeroes) {
  for (size_t tail = 0; tail < 200; ++tail) {
    for (const uint32_t required : {0u, 1u, 0x01000000u}) {
      const Record record{kRoleReply, 60, required == 0 ? 0u : 0x0100001fu, required};
      const auto bytes = With(std::string("a\0b", 3), record, tail);
      const auto found = FindRecord(bytes, kRoleReply);
      ASSERT_TRUE(found) << tail;
      EXPECT_EQ(found->record, record) << tail;
      EXPECT_EQ(found->application.size(), 3u) << tail;
    }
  }
}

// Something else behind it: then it is the application's data.
TEST(Extension, NotAtTheEnd) {
  for (size_t tail = 1; tail < 32; ++tail) {
    auto bytes = With("", {kRoleReply, 60, kAll, 0}, tail);
    bytes.back() = std::byte{1};
    EXPECT_FALSE(FindRecord(bytes, kRoleReply)) << tail;
  }
}

TEST(Extension, EveryTruncation) {
  // Not a zero among the last bytes, so that none may be missing.
  const auto bytes = With("", {kRoleRequest, 60, 0x1f1f1f1f, 0x01010101});
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_FALSE(FindRecord(std::span(bytes).first(n), kRoleRequest)) << n;
    EXPECT_FALSE(FindRecord(std::span(bytes).subspan(n + 1), kRoleRequest)) << n;
  }
}

// A responder that copies what it got proves nothing.
TEST(Extension, EchoDoesNotCount) {
  const auto bytes = With("x", {kRoleRequest, 60, kAll, 0});
  EXPECT_TRUE(FindRecord(bytes, kRoleRequest));
  EXPECT_FALSE(FindRecord(bytes, kRoleReply));
}

// Each byte of magic, version, role and length matters.
TEST(Extension, OtherLayoutsAreForeign) {
  for (size_t i = 0; i < 7; ++i) {
    auto bytes = Hex(kGolden);
    bytes[i] ^= std::byte{0x40};
    EXPECT_FALSE(FindRecord(bytes, kRoleRequest)) << i;
  }
}

TEST(Extension, AllZeroPrivateDataHasNone) {
  EXPECT_FALSE(FindRecord(std::vector<std::byte>(512), kRoleRequest));
  EXPECT_FALSE(FindRecord({}, kRoleRequest));
}

TEST(Extension, AppendNeedsRoom) {
  std::byte out[15];
  EXPECT_EQ(AppendRecord({}, out), 0u);
}

// 196 + 4 bytes of IRD and ORD + 16 fit what siw and cxgb4 read.
TEST(Extension, ApplicationLimitsFit) {
  EXPECT_LE(kAcceptPrivateData + 4 + sizeof(RecordBytes), 256u);
  EXPECT_LE(kConnectPrivateData, kRejectPrivateData);
  EXPECT_LE(kRejectPrivateData, kAcceptPrivateData);
}

struct Pair {
  const char* name;
  Record mine;
  Record theirs;
  Negotiated result;
};

class Intersection : public testing::TestWithParam<Pair> {};

// The same result on both ends.
TEST_P(Intersection, IsSymmetric) {
  const Pair& p = GetParam();
  const auto here = Negotiate(p.mine, p.theirs);
  const auto there = Negotiate(p.theirs, p.mine);
  ASSERT_TRUE(here.ok()) << here.status();
  ASSERT_TRUE(there.ok()) << there.status();
  EXPECT_EQ(*here, p.result);
  EXPECT_EQ(*there, p.result);
}

INSTANTIATE_TEST_SUITE_P(
    Pairs, Intersection,
    testing::Values(
        Pair{"Everything", {1, 60, kAll, 0}, {2, 60, kAll, 0}, {kAll, 61440}},
        Pair{"SmallerFpdu", {1, 60, kAll, 0}, {2, 16, kAll, 0}, {kAll, 16384}},
        Pair{"AbsurdFpduIsCapped", {1, 255, kAll, 0}, {2, 255, kAll, 0}, {kAll, 61440}},
        Pair{"NoLargeFpdu",
             {1, 60, kAll, 0},
             {2, 60, kAll & ~kLargeFpdu, 0},
             {kAll & ~kLargeFpdu, 0}},
        Pair{"FpduOfZero", {1, 60, kAll, 0}, {2, 0, kAll, 0}, {kAll & ~kLargeFpdu, 0}},
        Pair{"RnrNeedsAcknowledge", {1, 60, kAll, 0}, {2, 60, kRnr | kAtomics, 0}, {kAtomics, 0}},
        Pair{"UnknownFeaturesFallAway", {1, 60, kAll, 0}, {2, 60, 0xffffffff, kAll}, {kAll, 61440}},
        Pair{"Nothing", {1, 60, kAll, 0}, {2, 60, 0, 0}, {0, 0}}),
    [](const auto& i) { return std::string(i.param.name); });

TEST(Extension, UnknownRequiredBitIsNamed) {
  const auto result = Negotiate({1, 60, kAll, 0}, {2, 60, kAll | 0x200, 0x200});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(result.status().message().find("bit 9 (unknown) is required by the peer"),
            std::string::npos)
      << result.status();
}

TEST(Extension, OwnRequirementIsNamed) {
  const auto result = Negotiate({1, 60, kAll, kAtomics}, {2, 60, kAll & ~kAtomics, 0});
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.status().message().find("bit 3 (atomics) is required by this end"),
            std::string::npos)
      << result.status();
}

TEST(Extension, EveryFeatureHasAName) {
  for (uint32_t bit = 1; bit != 0; bit <<= 1) {
    EXPECT_EQ(std::string(FeatureName(bit)) == "unknown",
              ((kAll | kRendezvous | kNote | kOutOfBand | kUnreliable) & bit) == 0)
        << bit;
  }
}

}  // namespace
}  // namespace verbena::wire
