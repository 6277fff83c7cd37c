// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/local_addresses.h"

#include <net/if.h>

#include <algorithm>
#include <string>
#include <utility>

namespace verbena::io {
namespace {

enum class Reach { kFar, kNear, kHere };

Reach ReachOf(const ifaddrs& each, const Address& address) {
  if ((each.ifa_flags & IFF_LOOPBACK) != 0) return Reach::kHere;
  return provider::LeadsFar(address.bytes(), each.ifa_name) ? Reach::kFar : Reach::kNear;
}

bool NeedsZone(const Address& address) {
  return address.family() == AF_INET6 && IsLinkLocal(address.bytes());
}

}  // namespace

std::vector<Address> LocalAddresses() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return {};
  std::vector<Address> addresses = ToTellPeers(list);
  freeifaddrs(list);
  return addresses;
}

std::vector<Address> ToTellPeers(const ifaddrs* list) {
  struct Known {
    Reach reach;
    Address address;
  };
  std::vector<Known> found;
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || (each->ifa_flags & IFF_UP) == 0) continue;
    const Address address = Address::From(each->ifa_addr);
    if (!address.empty() && !NeedsZone(address))
      found.push_back({ReachOf(*each, address), address});
  }
  std::stable_sort(found.begin(), found.end(), [](const Known& a, const Known& b) {
    return std::pair(a.reach, a.address.family() == AF_INET6) <
           std::pair(b.reach, b.address.family() == AF_INET6);
  });
  std::vector<Address> out;
  for (const Known& each : found) {
    if (each.reach == found.front().reach) out.push_back(each.address);
  }
  return out;
}

}  // namespace verbena::io
