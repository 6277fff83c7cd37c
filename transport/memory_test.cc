// SPDX-License-Identifier: Apache-2.0
#include "transport/memory.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"
#include "transport/access.h"
#include "transport/work_request.h"

namespace verbena {
namespace {

std::string Hex(const RemoteBuffer& buffer) { return absl::BytesToHexString(Encode(buffer)); }

TEST(RemoteBuffer, GoldenBytes) {
  EXPECT_EQ(Hex({}), "0000000000000000000000000000000000000000");
  EXPECT_EQ(Hex({0x0102030405060708, 0x1112131415161718, 0x21222324}),
            "0102030405060708111213141516171821222324");
  EXPECT_EQ(Hex({~uint64_t{0}, ~uint64_t{0}, ~uint32_t{0}}),
            "ffffffffffffffffffffffffffffffffffffffff");
}

TEST(RemoteBuffer, RoundTrip) {
  const RemoteBuffer cases[] = {
      {}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {0x80, 0x8000, 0x80000000}, {~0ull, ~0ull, ~0u}};
  for (const RemoteBuffer& buffer : cases) {
    const auto decoded = Decode(Encode(buffer));
    ASSERT_TRUE(decoded.ok());
    EXPECT_EQ(decoded->address, buffer.address);
    EXPECT_EQ(decoded->length, buffer.length);
    EXPECT_EQ(decoded->key, buffer.key);
  }
}

// Every truncation is refused, and the text says how many bytes came.
TEST(RemoteBuffer, EveryTruncation) {
  const std::string whole = Encode({1, 2, 3});
  ASSERT_EQ(whole.size(), 20u);
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto decoded = Decode(whole.substr(0, size));
    EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument) << size;
    EXPECT_NE(decoded.status().message().find("only " + std::to_string(size) + " came"),
              std::string::npos)
        << decoded.status();
  }
}

// Connection managers may deliver padding.
TEST(RemoteBuffer, LongerTailIsAllowed) {
  const auto decoded = Decode(Encode({1, 2, 3}) + std::string(236, '\0'));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->key, 3u);
}

TEST(RemoteBuffer, AtKeepsTheKey) {
  const RemoteAddress place = RemoteBuffer{0x1000, 0x100, 7}.at(0x10);
  EXPECT_EQ(place.address, 0x1010u);
  EXPECT_EQ(place.key, 7u);
}

std::vector<uint64_t> Addresses(const SgeList& list) {
  std::vector<uint64_t> addresses;
  for (const Sge& sge : list) addresses.push_back(sge.address);
  return addresses;
}

TEST(SgeList, NoneOneMany) {
  const std::vector<Sge> many = {{.address = 1}, {.address = 2}, {.address = 3}};
  EXPECT_EQ(Addresses(SgeList()), std::vector<uint64_t>{});
  EXPECT_EQ(Addresses(Sge{.address = 9}), std::vector<uint64_t>{9});
  EXPECT_EQ(Addresses(std::span<const Sge>(many)), (std::vector<uint64_t>{1, 2, 3}));
  EXPECT_EQ(Addresses(std::span<const Sge>()), std::vector<uint64_t>{});
}

// A copy of a list of one has an entry of its own; a copy of a list of many borrows the same array.
TEST(SgeList, Copies) {
  SgeList one = Sge{.address = 9};
  const SgeList copy = one;
  one = Sge{.address = 8};
  EXPECT_EQ(Addresses(copy), std::vector<uint64_t>{9});
  EXPECT_NE(copy.begin(), one.begin());
  const std::vector<Sge> array(2);
  const SgeList many = std::span<const Sge>(array);
  const SgeList same = many;
  EXPECT_EQ(same.begin(), array.data());
}

// Programs fill in their array after they have made the request, and once more before each post.
TEST(SgeList, AnArrayIsReadWhenItIsUsed) {
  std::vector<Sge> array(1);
  const SgeList list = std::span<const Sge>(array);
  array[0].address = 7;
  EXPECT_EQ(Addresses(list), std::vector<uint64_t>{7});
}

TEST(SgeList, InRequests) {
  const std::vector<Sge> array(5);
  const SendWr none = {.opcode = Opcode::kSend};
  const SendWr one = {.local = Sge{.address = 1, .length = 2, .key = 3}};
  const ReceiveWr many = {.local = std::span<const Sge>(array), .id = 4};
  EXPECT_EQ(none.local.size(), 0u);
  EXPECT_EQ(one.local.size(), 1u);
  EXPECT_EQ(many.local.size(), 5u);
}

constexpr Access kBits[] = {Access::kLocalWrite, Access::kRemoteWrite, Access::kRemoteRead,
                            Access::kRemoteAtomic, Access::kWindowBind};

// The bits are distinct, each allows itself, and none allows another.
TEST(AccessAlgebra, BitsAreIndependent) {
  for (Access a : kBits) {
    EXPECT_TRUE(Allows(a, Access::kLocalRead));
    EXPECT_FALSE(Allows(Access::kLocalRead, a));
    for (Access b : kBits) {
      EXPECT_EQ(Allows(a, b), a == b);
      EXPECT_EQ((a & b) == Access::kLocalRead, a != b);
    }
  }
}

TEST(AccessAlgebra, UnionAllowsEachPartOnly) {
  Access all = Access::kLocalRead;
  for (Access bit : kBits) {
    EXPECT_FALSE(Allows(all, bit));
    all |= bit;
    EXPECT_TRUE(Allows(all, bit));
  }
  EXPECT_EQ(static_cast<int>(all), 31);
  const Access some = Access::kLocalWrite | Access::kRemoteRead;
  EXPECT_TRUE(Allows(all, some));
  EXPECT_FALSE(Allows(some, some | Access::kRemoteWrite));
}

TEST(SendFlagsAlgebra, Has) {
  const SendFlags flags = SendFlags::kSignaled | SendFlags::kInline;
  EXPECT_TRUE(Has(flags, SendFlags::kSignaled));
  EXPECT_TRUE(Has(flags, SendFlags::kInline));
  EXPECT_FALSE(Has(flags, SendFlags::kFence));
  EXPECT_FALSE(Has(SendFlags::kNone, SendFlags::kSignaled));
}

}  // namespace
}  // namespace verbena
