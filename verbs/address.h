// SPDX-License-Identifier: Apache-2.0
// Socket addresses as librdmacm takes them. Plain values; looking a name up may block.
#pragma once

#include <sys/socket.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace verbena::verbs {

struct Address {
  sockaddr_storage storage{};

  static Address From(const sockaddr* address);  // null: empty
  sockaddr* raw() { return reinterpret_cast<sockaddr*>(&storage); }
  const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&storage); }
  std::string ip() const;        // "10.0.0.1", "fe80::1%eth0"
  std::string ToString() const;  // "10.0.0.1:7471", "[::1]:7471"
};

// "host:port", "[v6]:port", ":port". In the order to try them. InvalidArgument: not of that form.
// NotFound: no such host. `passive`: for listening, where no host means every address.
absl::StatusOr<std::vector<Address>> Lookup(const std::string& text, bool passive);

}  // namespace verbena::verbs
