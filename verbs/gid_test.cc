// SPDX-License-Identifier: Apache-2.0
// Which of a port's GIDs peers are told.
#include <arpa/inet.h>

#include <cstring>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "verbs/inventory.h"

namespace verbena::verbs {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Gid Entry(uint32_t index, const char* address, uint32_t type, const char* interface = "eth0") {
  Gid gid{};
  gid.entry.gid_index = index;
  gid.entry.gid_type = type;
  gid.text = address;
  gid.interface = interface;
  if (inet_pton(AF_INET, address, &gid.entry.gid.raw[12]) == 1) {
    gid.entry.gid.raw[10] = gid.entry.gid.raw[11] = 0xff;
  } else {
    inet_pton(AF_INET6, address, gid.entry.gid.raw);
  }
  return gid;
}

constexpr uint32_t kV1 = IBV_GID_TYPE_ROCE_V1, kV2 = IBV_GID_TYPE_ROCE_V2;

const std::vector<Gid> kPort = {Entry(0, "fe80::1", kV1),  Entry(1, "fe80::1", kV2),
                                Entry(2, "10.0.0.1", kV1), Entry(3, "10.0.0.1", kV2),
                                Entry(4, "fd00::1", kV2),  Entry(5, "172.17.0.1", kV2, "docker0")};

uint32_t Chosen(const std::vector<Gid>& gids, const char* wanted = nullptr) {
  const absl::StatusOr<Gid> gid = GidForPeers("mlx5_0", true, gids, wanted);
  EXPECT_TRUE(gid.ok()) << gid.status();
  return gid.ok() ? gid->entry.gid_index : 999;
}

TEST(GidForPeers, RoutableOverV2AndIpv4) {
  EXPECT_EQ(Chosen(kPort), 3u);
  EXPECT_EQ(Chosen({kPort[0], kPort[1], kPort[4], kPort[5]}), 4u);
  EXPECT_EQ(Chosen({kPort[1], kPort[2], kPort[5]}), 2u);
}

TEST(GidForPeers, LinkLocalOfIpv4IsNoneToChooseEither) {
  const Gid zeroconf = Entry(6, "169.254.7.1", kV2), edge = Entry(7, "169.253.7.1", kV2);
  EXPECT_EQ(Chosen({zeroconf, kPort[4]}), 4u);
  EXPECT_EQ(Chosen({zeroconf, kPort[2]}), 2u);
  EXPECT_EQ(Chosen({zeroconf, edge}), 7u);
  EXPECT_EQ(Chosen({zeroconf}, "6"), 6u);
}

TEST(GidForPeers, TheIndexDecides) {
  for (uint32_t index = 0; index < kPort.size(); ++index) {
    EXPECT_EQ(Chosen(kPort, std::to_string(index).c_str()), index);
  }
  EXPECT_EQ(Chosen(kPort, ""), 3u);
}

TEST(GidForPeers, AWrongIndexIsRefusedWithTheTable) {
  for (const char* wanted : {"6", "-1", "x", "3x", "99999999999", "259"}) {
    const absl::Status status = GidForPeers("mlx5_0", true, kPort, wanted).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << wanted;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("device mlx5_0"), HasSubstr(std::string("`") + wanted + "`"),
                      HasSubstr("3 (10.0.0.1 on eth0, RoCE v2)"), HasSubstr("unset it")));
  }
}

TEST(GidForPeers, NothingUnreachableByAccident) {
  for (const std::vector<Gid>& gids :
       {std::vector<Gid>{kPort[0], kPort[1]}, std::vector<Gid>{kPort[5]}, std::vector<Gid>{},
        std::vector<Gid>{kPort[0], kPort[5], Entry(6, "169.254.7.1", kV2)}}) {
    EXPECT_EQ(GidForPeers("mlx5_0", true, gids, nullptr).status().code(),
              absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_THAT(std::string(GidForPeers("mlx5_0", true, {}, nullptr).status().message()),
              AllOf(HasSubstr("device mlx5_0: its GID table is empty"),
                    HasSubstr("Give its network interface an address")));
  EXPECT_EQ(Chosen({kPort[0], kPort[1]}, "1"), 1u);
  EXPECT_TRUE(GidForPeers("ib0", false, {kPort[0]}, nullptr).ok());  // a subnet's own prefix
}

// Which of a device's IP addresses the rendezvous offers.
std::vector<std::string> Offered(const std::vector<Gid>& addresses, bool named, Found* found) {
  found->info.usable = true;
  for (const Gid& each : addresses)
    AddAddress(*found, std::to_array(each.entry.gid.raw), each.interface);
  SettleAddresses(*found, named);
  return found->info.addresses;
}

const Gid kLinkLocal = Entry(0, "169.254.7.1", 0), kDocker = Entry(0, "172.17.0.1", 0, "docker0"),
          kBridge = Entry(0, "fd00::7", 0, "br-0f3a"), kGood = Entry(0, "10.0.0.1", 0);

TEST(Addresses, NearOnesAreNotOfferedByAccident) {
  for (bool named : {false, true}) {
    Found found;
    EXPECT_THAT(Offered({kLinkLocal, kDocker, kGood, kBridge}, named, &found),
                testing::ElementsAre("10.0.0.1"));
    EXPECT_TRUE(found.info.usable);
  }
}

TEST(Addresses, WithNoOtherTheDeviceHasToBeNamed) {
  Found found;
  EXPECT_THAT(Offered({kLinkLocal, kDocker}, false, &found), testing::IsEmpty());
  EXPECT_FALSE(found.info.usable);
  EXPECT_THAT(found.info.reason, AllOf(HasSubstr("169.254.7.1 on eth0, 172.17.0.1 on docker0"),
                                       HasSubstr("only if named"), HasSubstr("ip address add")));
  Found named;
  EXPECT_THAT(Offered({kLinkLocal, kDocker}, true, &named),
              testing::ElementsAre("169.254.7.1", "172.17.0.1"));
  EXPECT_TRUE(named.info.usable);
}

TEST(Addresses, ADeviceWithoutAnyStaysAsItIs) {
  for (bool named : {false, true}) {
    Found found;  // InfiniBand without IPoIB: addresses go out of band
    EXPECT_THAT(Offered({}, named, &found), testing::IsEmpty());
    EXPECT_TRUE(found.info.usable);
  }
}

}  // namespace
}  // namespace verbena::verbs
