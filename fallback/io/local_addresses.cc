// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/local_addresses.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>


namespace verbena::io {
namespace {

int Rank(const ifaddrs& each) {
  int rank = each.ifa_addr->sa_family == AF_INET6 ? 1 : 0;
  if ((each.ifa_flags & IFF_LOOPBACK) != 0) return rank + 4;
  return provider::MadeForGuests(each.ifa_name) ? rank + 2 : rank;
}

bool Usable(const ifaddrs& each) {
  if (each.ifa_addr == nullptr || (each.ifa_flags & IFF_UP) == 0) return false;
  if (each.ifa_addr->sa_family == AF_INET) return true;
  if (each.ifa_addr->sa_family != AF_INET6) return false;
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(each.ifa_addr);
  return !IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr);
}

}  // namespace

std::vector<Address> LocalAddresses() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return {};
  std::vector<std::pair<int, Address>> found;
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (!Usable(*each)) continue;
    const bool v6 = each->ifa_addr->sa_family == AF_INET6;
    found.emplace_back(Rank(*each), Address::From(each->ifa_addr,
                                                  v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in)));
  }
  freeifaddrs(list);
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Address> out;
  for (const auto& [rank, address] : found) {
    if (rank / 2 == found.front().first / 2) out.push_back(address);
  }
  return out;
}

}  // namespace verbena::io
