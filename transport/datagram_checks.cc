// SPDX-License-Identifier: Apache-2.0
#include "transport/datagram_checks.h"

#include "absl/strings/str_cat.h"

namespace verbena::provider {

bool IsGroup(const Ip& ip) {
  return IsV4(ip) ? ip[kMappedBytes] >> 4 == 14 : ip[0] == 0xff;  // RFC 5771, RFC 4291 2.7
}

absl::StatusOr<Ip> ParseGroup(const char* what, const std::string& group) {
  const absl::StatusOr<Address> address = Address::FromIp(group, 0);
  if (!address.ok()) return address.status();
  if (IsGroup(address->bytes())) return address->bytes();
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": ", group,
                   " is no multicast address; 224.0.0.0 to 239.255.255.255 and ff00::/8 are"));
}

absl::StatusOr<Address> ParseDestination(const std::string& address) {
  absl::StatusOr<Address> parsed = Address::FromIp(address, 0);
  if (!parsed.ok() || !parsed->is_any()) return parsed;
  return absl::InvalidArgumentError(
      absl::StrCat("create address handle: ", address, " is no destination"));
}

absl::Status HasNoPeer(const char* what) {
  return absl::InvalidArgumentError(
      absl::StrCat(what,
                   ": a queue pair of type UD has no peer. Modify it to RTR and RTS, and name each "
                   "datagram's destination (SendWr::to)"));
}

absl::Status NotAttached() {
  return absl::NotFoundError("detach multicast: the queue pair is not attached to it");
}

}  // namespace verbena::provider
