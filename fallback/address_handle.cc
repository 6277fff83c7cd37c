// SPDX-License-Identifier: Apache-2.0
#include "fallback/address_handle.h"

#include <netinet/in.h>

#include "absl/strings/str_cat.h"
#include "transport/address.h"

namespace verbena::fallback {

bool IsGroup(const Ip& ip) {
  return IsV4(ip) ? ip[kMappedBytes] >> 4 == 14 : ip[0] == 0xff;  // RFC 5771, RFC 4291 2.7
}

absl::StatusOr<Ip> ParseGroup(const char* what, const std::string& group) {
  const absl::StatusOr<io::Address> address = io::Address::FromIp(group, 0);
  if (!address.ok()) return address.status();
  if (IsGroup(address->bytes())) return address->bytes();
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": ", group,
                   " is no multicast address; 224.0.0.0 to 239.255.255.255 and ff00::/8 are"));
}

absl::StatusOr<std::unique_ptr<provider::AddressHandle>> AddressHandle::Create(
    ProtectionDomain* domain, const AddressHandleOptions& options) {
  const absl::StatusOr<io::Address> address = io::Address::FromIp(options.address, 0);
  if (!address.ok()) return address.status();
  if (address->is_any()) {
    return absl::InvalidArgumentError(
        absl::StrCat("create address handle: ", options.address, " is no destination"));
  }
  datagram::Route route;
  route.ip = address->bytes();
  if (address->family() == AF_INET6) {
    route.scope = reinterpret_cast<const sockaddr_in6*>(address->raw())->sin6_scope_id;
  }
  route.traffic_class = options.traffic_class;
  route.group = IsGroup(route.ip);
  if (route.group) route.hop_limit = options.hop_limit;
  return std::make_unique<AddressHandle>(domain, options, route);
}

AddressHandle::AddressHandle(ProtectionDomain* domain, const AddressHandleOptions& options,
                             const datagram::Route& route)
    : domain_(domain), options_(options), route_(route) {
  domain_->children().Add();
}

AddressHandle::~AddressHandle() { domain_->children().Remove(); }

}  // namespace verbena::fallback
