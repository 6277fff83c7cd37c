// SPDX-License-Identifier: Apache-2.0
#include "transport/datagram.h"

#include <array>

#include "gtest/gtest.h"
#include "transport/datagram_checks.h"
#include "transport/fake_provider.h"
#include "transport/protection_domain.h"
#include "transport/state_table.h"

namespace verbena {
namespace {

using Bytes = std::array<std::byte, kGrhBytes>;

TEST(ReadGrh, V4StandsInTheLastTwentyBytes) {
  Bytes grh{};
  const uint8_t header[20] = {0x45, 0x20, 0,  100, 0, 0, 0,   0, 7, 17,
                              0,    0,    10, 0,   0, 1, 224, 1, 2, 3};
  for (size_t i = 0; i < 20; ++i) grh[20 + i] = std::byte{header[i]};
  const absl::StatusOr<Grh> read = ReadGrh(grh);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->source, "10.0.0.1");
  EXPECT_EQ(read->destination, "224.1.2.3");
  EXPECT_EQ(read->traffic_class, 0x20);
  EXPECT_EQ(read->hop_limit, 7);
}

TEST(ReadGrh, V6IsAllOfIt) {
  Bytes grh{};
  grh[0] = std::byte{0x62};
  grh[1] = std::byte{0x80};
  grh[7] = std::byte{63};
  grh[23] = std::byte{1};
  grh[24] = std::byte{0xff};
  grh[25] = std::byte{0x0e};
  grh[39] = std::byte{2};
  const absl::StatusOr<Grh> read = ReadGrh(grh);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->source, "::1");
  EXPECT_EQ(read->destination, "ff0e::2");
  EXPECT_EQ(read->traffic_class, 0x28);
  EXPECT_EQ(read->hop_limit, 63);
}

TEST(ReadGrh, RefusesWhatIsNeither) {
  EXPECT_EQ(ReadGrh(Bytes{}).status().code(), absl::StatusCode::kInvalidArgument);
  Bytes options{};
  options[20] = std::byte{0x46};  // an IPv4 header of 24 bytes
  EXPECT_EQ(ReadGrh(options).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadGrh(std::span(options).first(39)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// A provider without datagrams says so.
TEST(Datagrams, AreUnimplementedWhereTheyAreNot) {
  ProtectionDomain pd(std::make_unique<fake::ProtectionDomain>(), nullptr);
  EXPECT_EQ(pd.CreateAddressHandle({.address = "10.0.0.1"}).status().code(),
            absl::StatusCode::kUnimplemented);
  QueuePair qp(std::make_unique<fake::QueuePair>(), nullptr);
  EXPECT_EQ(qp.AttachMulticast("224.1.2.3").code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(qp.DetachMulticast("224.1.2.3").code(), absl::StatusCode::kUnimplemented);
}

TEST(DatagramChecks, GroupsAndDestinations) {
  for (const char* group : {"224.0.0.0", "239.255.255.255", "ff02::1"}) {
    const absl::StatusOr<Ip> ip = provider::ParseGroup("attach", group);
    ASSERT_TRUE(ip.ok()) << ip.status();
    EXPECT_TRUE(provider::IsGroup(*ip));
    EXPECT_TRUE(provider::ParseDestination(group).ok());
  }
  for (const char* peer : {"223.255.255.255", "240.0.0.1", "fe80::1"}) {
    EXPECT_EQ(provider::ParseGroup("attach", peer).status().code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(provider::ParseDestination(peer).ok());
  }
  for (const char* nowhere : {"0.0.0.0", "::", "localhost"}) {
    EXPECT_EQ(provider::ParseDestination(nowhere).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(DatagramStates, NeedNoPeer) {
  using provider::CheckModify;
  constexpr QpType kUd = QpType::kUd;
  EXPECT_TRUE(CheckModify(QpState::kInit, {.state = QpState::kRtr, .qkey = 1}, kUd).ok());
  EXPECT_TRUE(CheckModify(QpState::kRtr, {.state = QpState::kRts}, kUd).ok());
  EXPECT_TRUE(CheckModify(QpState::kSqe, {.state = QpState::kRts}, kUd).ok());
  EXPECT_EQ(CheckModify(QpState::kInit, {.state = QpState::kRts}, kUd).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CheckModify(QpState::kRts, {.rnr_retry = 1}, kUd).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CheckModify(QpState::kRts, {.qkey = 1}, QpType::kRc).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CheckModify(QpState::kRts, {.state = QpState::kErr, .qkey = 1}, kUd).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace verbena
