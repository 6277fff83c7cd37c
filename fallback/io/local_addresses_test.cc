// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/local_addresses.h"

#include <net/if.h>

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace verbena::io {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

struct Row {
  std::string interface, ip;
  unsigned flags = IFF_UP;
};

// What peers are told of a machine that has these, in the kernel's order.
std::vector<std::string> Told(std::vector<Row> rows) {
  std::vector<Address> addresses;
  for (const Row& row : rows) addresses.push_back(*Address::FromIp(row.ip, 0));
  std::vector<ifaddrs> list(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    list[i] = {};
    list[i].ifa_next = i + 1 < rows.size() ? &list[i + 1] : nullptr;
    list[i].ifa_name = rows[i].interface.data();
    list[i].ifa_flags = rows[i].flags;
    list[i].ifa_addr = addresses[i].raw();
  }
  std::vector<std::string> told;
  for (const Address& each : ToTellPeers(list.empty() ? nullptr : list.data())) {
    told.push_back(each.ip());
  }
  return told;
}

const Row kLoopback{"lo", "127.0.0.1", IFF_UP | IFF_LOOPBACK}, kDocker{"docker0", "172.17.0.1"},
    kDocker6{"br-0f3a", "fd00::7"}, kZeroconf{"eth1", "169.254.7.1"}, kZone{"eth0", "fe80::1%1"},
    kFar{"eth0", "10.0.0.1"}, kFar6{"eth0", "fd00::1"};

TEST(LocalAddresses, WhatLeadsFarAlone) {
  EXPECT_THAT(Told({kLoopback, kDocker, kZone, kZeroconf, kFar6, kFar, kDocker6}),
              ElementsAre("10.0.0.1", "fd00::1"));
  EXPECT_THAT(Told({kZeroconf, kFar6}), ElementsAre("fd00::1"));
}

TEST(LocalAddresses, WithNothingElseTheNearOnes) {
  EXPECT_THAT(Told({kLoopback, kDocker6, kZone, kZeroconf, kDocker}),
              ElementsAre("169.254.7.1", "172.17.0.1", "fd00::7"));
  EXPECT_THAT(Told({kLoopback, kZeroconf}), ElementsAre("169.254.7.1"));
}

TEST(LocalAddresses, AtLastTheLoopback) {
  EXPECT_THAT(Told({{"lo", "::1", IFF_UP | IFF_LOOPBACK}, kLoopback, kZone}),
              ElementsAre("127.0.0.1", "::1"));
  EXPECT_THAT(Told({{"eth0", "10.0.0.1", 0}, kLoopback}), ElementsAre("127.0.0.1"));
  EXPECT_THAT(Told({}), IsEmpty());
}

}  // namespace
}  // namespace verbena::io
