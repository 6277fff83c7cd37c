// SPDX-License-Identifier: Apache-2.0
// A socket address as a value: IPv4 or IPv6 with a port, and its text.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "transport/ip.h"

namespace verbena::provider {

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;  // 0: unspecified

  // From what the kernel filled in; without a length the family tells. An IPv4 peer of a dual-stack
  // socket (::ffff:10.0.0.1) becomes the IPv4 address that people know.
  static Address From(const sockaddr* address, socklen_t length);
  static Address From(const sockaddr* address);
  // A numeric address, never looked up; InvalidArgument if it is not one.
  static absl::StatusOr<Address> FromIp(absl::string_view ip, uint16_t port);

  bool empty() const { return length == 0; }
  int family() const { return storage.ss_family; }
  bool is_any() const;       // 0.0.0.0 or [::]
  bool is_loopback() const;  // 127.0.0.0/8 or [::1]
  uint16_t port() const;
  void set_port(uint16_t port);
  Ip bytes() const;              // without zone and port; zeros if empty
  std::string ip() const;        // "10.0.0.1", "::1", "fe80::1%eth0"
  std::string ToString() const;  // "10.0.0.1:7471", "[::1]:7471"

  sockaddr* raw() { return reinterpret_cast<sockaddr*>(&storage); }  // as librdmacm takes it
  const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&storage); }

  friend bool operator==(const Address& a, const Address& b);
};

// "host:port", "[v6]:port", ":port". The port is a number 0–65535.
struct HostPort {
  std::string host;  // empty: any
  uint16_t port = 0;
};
absl::StatusOr<HostPort> ParseHostPort(absl::string_view text);

// Looks the host up (may block). In the order to try them. NotFound names the host and what the
// resolver said. `passive`: for listening (empty host: [::] if the machine has IPv6, else 0.0.0.0).
absl::StatusOr<std::vector<Address>> Lookup(const HostPort& where, bool passive);

// By its name: what runtimes of containers and virtual machines make. Peers elsewhere never reach
// its addresses.
bool MadeForGuests(absl::string_view interface);
// Peers elsewhere may reach this address of that interface: neither is it link-local, nor the
// interface made for guests. Which addresses to tell them, on every provider.
bool LeadsFar(const Ip& address, absl::string_view interface);

}  // namespace verbena::provider
