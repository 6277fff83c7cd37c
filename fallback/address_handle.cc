// SPDX-License-Identifier: Apache-2.0
#include "fallback/address_handle.h"

#include <netinet/in.h>

#include "transport/datagram_checks.h"

namespace verbena::fallback {

absl::StatusOr<std::unique_ptr<provider::AddressHandle>> AddressHandle::Create(
    ProtectionDomain* domain, const AddressHandleOptions& options) {
  const absl::StatusOr<io::Address> address = provider::ParseDestination(options.address);
  if (!address.ok()) return address.status();
  datagram::Route route;
  route.ip = address->bytes();
  if (address->family() == AF_INET6) {
    route.scope = reinterpret_cast<const sockaddr_in6*>(address->raw())->sin6_scope_id;
  }
  route.traffic_class = options.traffic_class;
  route.group = provider::IsGroup(route.ip);
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
