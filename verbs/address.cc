// SPDX-License-Identifier: Apache-2.0
#include "verbs/address.h"

#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace verbena::verbs {
namespace {

socklen_t LengthOf(const sockaddr* address) {
  switch (address->sa_family) {
    case AF_INET:
      return sizeof(sockaddr_in);
    case AF_INET6:
      return sizeof(sockaddr_in6);
    default:
      return 0;
  }
}

absl::Status Malformed(const std::string& text, const char* why) {
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", text, "\": ", why, "; write HOST:PORT, [IPV6]:PORT, or :PORT for every address"));
}

struct HostPort {
  std::string host;
  std::string port;
};

absl::StatusOr<HostPort> Split(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == text.npos || text.back() == ']') return Malformed(text, "it has no port");
  HostPort out{text.substr(0, colon), text.substr(colon + 1)};
  uint16_t number = 0;
  const char* end = out.port.data() + out.port.size();
  const auto [stop, error] = std::from_chars(out.port.data(), end, number);
  if (error != std::errc() || stop != end) return Malformed(text, "the port is not 0 to 65535");
  const bool bracketed = out.host.size() > 1 && out.host.front() == '[' && out.host.back() == ']';
  if (bracketed) {
    out.host = out.host.substr(1, out.host.size() - 2);
  } else if (out.host.find(':') != out.host.npos) {
    return Malformed(text, "an IPv6 address needs brackets");
  }
  if (out.host.find(' ') != out.host.npos) return Malformed(text, "a host has no spaces");
  return out;
}

}  // namespace

Address Address::From(const sockaddr* address) {
  Address out;
  if (address == nullptr || LengthOf(address) == 0) return out;
  std::memcpy(&out.storage, address, LengthOf(address));
  // An IPv4 caller of a listener on [::] becomes the address that people know.
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(out.storage);
  if (out.storage.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = v6.sin6_port;
    std::memcpy(&v4.sin_addr, &v6.sin6_addr.s6_addr[12], 4);
    out.storage = {};
    std::memcpy(&out.storage, &v4, sizeof v4);
  }
  return out;
}

std::string Address::ip() const {
  char host[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE];
  const socklen_t length = LengthOf(raw());
  if (length == 0) return "";
  if (getnameinfo(raw(), length, host, sizeof host, nullptr, 0, NI_NUMERICHOST) != 0) return "?";
  return host;
}

std::string Address::ToString() const {
  const bool v6 = storage.ss_family == AF_INET6;
  const in_port_t port = v6 ? reinterpret_cast<const sockaddr_in6&>(storage).sin6_port
                            : reinterpret_cast<const sockaddr_in&>(storage).sin_port;
  return absl::StrCat(v6 ? "[" : "", ip(), v6 ? "]" : "", ":", ntohs(port));
}

absl::StatusOr<std::vector<Address>> Lookup(const std::string& text, bool passive) {
  absl::StatusOr<HostPort> where = Split(text);
  if (!where.ok()) return where.status();
  if (where->host.empty() && !passive) return Malformed(text, "it has no host to connect to");
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = passive ? AI_PASSIVE : 0;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(where->host.empty() ? nullptr : where->host.c_str(),
                                where->port.c_str(), &hints, &list);
  if (error != 0) {
    return absl::NotFoundError(absl::StrCat(
        "\"", text, "\": no address for the host `", where->host, "` (", gai_strerror(error),
        "); check the spelling and /etc/resolv.conf, or give an address such as "
        "10.0.0.1"));
  }
  std::vector<Address> out;
  for (const addrinfo* a = list; a != nullptr; a = a->ai_next) {
    if (LengthOf(a->ai_addr) != 0) out.push_back(Address::From(a->ai_addr));
  }
  freeaddrinfo(list);
  // One listener on [::] serves both families (rdma_bind_addr(3)), so it is tried first.
  if (passive && where->host.empty()) {
    std::stable_sort(out.begin(), out.end(), [](const Address& a, const Address& b) {
      return a.storage.ss_family == AF_INET6 && b.storage.ss_family != AF_INET6;
    });
  }
  return out;
}

}  // namespace verbena::verbs
