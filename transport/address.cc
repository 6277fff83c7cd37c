// SPDX-License-Identifier: Apache-2.0
#include "transport/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace verbena::provider {
namespace {

const sockaddr_in& V4(const Address& a) { return reinterpret_cast<const sockaddr_in&>(a.storage); }
const sockaddr_in6& V6(const Address& a) {
  return reinterpret_cast<const sockaddr_in6&>(a.storage);
}

Address Make4(in_addr ip, in_port_t port) {
  Address result;
  auto& v4 = reinterpret_cast<sockaddr_in&>(result.storage);
  v4.sin_family = AF_INET;
  v4.sin_addr = ip;
  v4.sin_port = port;
  result.length = sizeof(sockaddr_in);
  return result;
}

Address AnyV6(uint16_t port) {
  Address result;
  auto& v6 = reinterpret_cast<sockaddr_in6&>(result.storage);
  v6.sin6_family = AF_INET6;
  v6.sin6_addr = in6addr_any;
  v6.sin6_port = htons(port);
  result.length = sizeof(sockaddr_in6);
  return result;
}

// A kernel without IPv6 refuses the socket, one where it is switched off may refuse the bind.
bool HasIpv6() {
  const int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const Address any = AnyV6(0);
  const bool bound = bind(fd, any.raw(), any.length) == 0;
  close(fd);
  return bound;
}

absl::Status Malformed(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("\"", text, "\": ", why));
}

const char* Remedy(int gai_error) {
  switch (gai_error) {
    case EAI_AGAIN:
      return "; the name server does not answer: check /etc/resolv.conf, or give an address such "
             "as 10.0.0.1";
    case EAI_MEMORY:
      return "";
    default:
      return "; check the spelling, or give an address such as 10.0.0.1";
  }
}

}  // namespace

Address Address::From(const sockaddr* address, socklen_t length) {
  Address result;
  result.length = std::min<socklen_t>(length, sizeof(result.storage));
  memcpy(&result.storage, address, result.length);
  if (result.family() == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&V6(result).sin6_addr)) {
    in_addr ip;
    memcpy(&ip, &V6(result).sin6_addr.s6_addr[12], sizeof(ip));
    return Make4(ip, V6(result).sin6_port);
  }
  return result;
}

Address Address::From(const sockaddr* address) {
  if (address->sa_family == AF_INET) return From(address, sizeof(sockaddr_in));
  return address->sa_family == AF_INET6 ? From(address, sizeof(sockaddr_in6)) : Address();
}

absl::StatusOr<Address> Address::FromIp(absl::string_view ip, uint16_t port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST;
  addrinfo* list = nullptr;
  // The resolver also takes "10.1" for 10.0.0.1, which is rather a slip than an address.
  const bool v4_abbreviated = ip.find(':') == ip.npos && std::count(ip.begin(), ip.end(), '.') != 3;
  if (ip.empty() || v4_abbreviated ||
      getaddrinfo(std::string(ip).c_str(), nullptr, &hints, &list) != 0) {
    return Malformed(ip, "not an IP address; write one such as 10.0.0.1 or fd00::1");
  }
  Address result = From(list->ai_addr, list->ai_addrlen);
  freeaddrinfo(list);
  result.set_port(port);
  return result;
}

bool Address::is_any() const {
  if (family() == AF_INET) return V4(*this).sin_addr.s_addr == htonl(INADDR_ANY);
  return family() == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&V6(*this).sin6_addr);
}

bool Address::is_loopback() const {
  if (family() == AF_INET) return ntohl(V4(*this).sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
  return family() == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&V6(*this).sin6_addr);
}

uint16_t Address::port() const {
  if (family() == AF_INET) return ntohs(V4(*this).sin_port);
  if (family() == AF_INET6) return ntohs(V6(*this).sin6_port);
  return 0;
}

void Address::set_port(uint16_t port) {
  if (family() == AF_INET) reinterpret_cast<sockaddr_in&>(storage).sin_port = htons(port);
  if (family() == AF_INET6) reinterpret_cast<sockaddr_in6&>(storage).sin6_port = htons(port);
}

Ip Address::bytes() const {
  Ip ip{};
  if (family() == AF_INET) {
    std::copy(std::begin(kMapped), std::end(kMapped), ip.begin());
    memcpy(&ip[kMappedBytes], &V4(*this).sin_addr, ip.size() - kMappedBytes);
  } else if (family() == AF_INET6) {
    memcpy(ip.data(), &V6(*this).sin6_addr, ip.size());
  }
  return ip;
}

std::string Address::ip() const {
  char host[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE];  // room for "%eth0"
  if (empty()) return "";
  if (getnameinfo(raw(), length, host, sizeof(host), nullptr, 0, NI_NUMERICHOST) != 0) return "?";
  return host;
}

std::string Address::ToString() const {
  if (empty()) return "(no address)";
  if (family() == AF_INET6) return absl::StrCat("[", ip(), "]:", port());
  return absl::StrCat(ip(), ":", port());
}

bool operator==(const Address& a, const Address& b) {
  if (a.length != b.length || a.family() != b.family()) return false;
  if (a.empty()) return true;
  if (a.family() == AF_INET) {
    return V4(a).sin_port == V4(b).sin_port && V4(a).sin_addr.s_addr == V4(b).sin_addr.s_addr;
  }
  // Not memcmp of the whole: a flow label does not make another address.
  return V6(a).sin6_port == V6(b).sin6_port && V6(a).sin6_scope_id == V6(b).sin6_scope_id &&
         IN6_ARE_ADDR_EQUAL(&V6(a).sin6_addr, &V6(b).sin6_addr);
}

absl::StatusOr<HostPort> ParseHostPort(absl::string_view text) {
  absl::string_view host, port;
  if (text.empty()) return Malformed(text, "no address; write host:port, e.g. server:7471");
  if (text[0] == '[') {
    const size_t end = text.find(']');
    if (end == text.npos) return Malformed(text, "no \"]\" after \"[\"; write e.g. [::1]:7471");
    host = text.substr(1, end - 1);
    port = text.substr(end + 1);
    if (host.empty()) return Malformed(text, "nothing in the brackets; write e.g. [::1]:7471");
    if (port.empty()) {
      return Malformed(text, absl::StrCat("no port; write [address]:port, e.g. [", host, "]:7471"));
    }
    if (port[0] != ':')
      return Malformed(text, "after \"]\" comes \":\" and the port, e.g. [::1]:7471");
    port.remove_prefix(1);
  } else {
    const size_t colon = text.find(':');
    if (colon == text.npos) {
      return Malformed(text, absl::StrCat("no port; write host:port, e.g. ", text, ":7471"));
    }
    if (text.find(':', colon + 1) != text.npos) {
      return Malformed(text,
                       "an IPv6 address goes in brackets; write [address]:port, e.g. [::1]:7471");
    }
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  if (port.empty())
    return Malformed(text, "no port after \":\"; write host:port, e.g. server:7471");
  uint32_t number = 0;
  // SimpleAtoi would also take "+1" and " 1".
  if (!std::all_of(port.begin(), port.end(), absl::ascii_isdigit)) {
    return Malformed(text, absl::StrCat("port \"", port, "\" is not a number; write e.g. 7471"));
  }
  if (!absl::SimpleAtoi(port, &number) || number > 65535) {
    return Malformed(text, absl::StrCat("port ", port, " is not between 0 and 65535"));
  }
  return HostPort{std::string(host), static_cast<uint16_t>(number)};
}

absl::StatusOr<std::vector<Address>> Lookup(const HostPort& where, bool passive) {
  if (passive && where.host.empty()) {
    if (HasIpv6()) return std::vector<Address>{AnyV6(where.port)};
    return std::vector<Address>{Make4(in_addr{htonl(INADDR_ANY)}, htons(where.port))};
  }
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  // Without AI_ADDRCONFIG: in a container that has only a loopback it hides ::1 and 127.0.0.1.
  hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
  addrinfo* list = nullptr;
  const int error = getaddrinfo(where.host.empty() ? nullptr : where.host.c_str(),
                                std::to_string(where.port).c_str(), &hints, &list);
  if (error != 0) {
    const char* said = error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error);
    return absl::NotFoundError(absl::StrCat("host \"", where.host, "\": ", said, Remedy(error)));
  }
  std::vector<Address> result;
  for (const addrinfo* each = list; each != nullptr; each = each->ai_next) {
    const Address address = Address::From(each->ai_addr, each->ai_addrlen);
    // /etc/hosts may name a host twice; a second try at one address only costs time.
    if (std::find(result.begin(), result.end(), address) == result.end()) {
      result.push_back(address);
    }
  }
  freeaddrinfo(list);
  return result;
}

bool MadeForGuests(absl::string_view interface) {
  for (const char* prefix :
       {"docker", "veth", "br-", "virbr", "cni", "flannel", "cali", "podman", "lxc", "vnet", "tap",
        "lxdbr", "incusbr", "nerdctl", "cilium", "kube-", "weave"}) {
    if (absl::StartsWith(interface, prefix)) return true;
  }
  return false;
}

bool LeadsFar(const Ip& address, absl::string_view interface) {
  return !IsLinkLocal(address) && !MadeForGuests(interface);
}

}  // namespace verbena::provider
