// SPDX-License-Identifier: Apache-2.0
#include "verbs/address_handle.h"

#include <netinet/in.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "transport/datagram_checks.h"

namespace verbena::verbs {
namespace {

constexpr uint8_t kHopLimit = 64;

uint32_t ZoneOf(const Address& address) {
  if (address.family() != AF_INET6) return 0;
  return reinterpret_cast<const sockaddr_in6*>(address.raw())->sin6_scope_id;
}

}  // namespace

absl::StatusOr<Gid> GidTowards(const Device& device, const provider::Address& to) {
  std::vector<Gid> gids = device.gids();
  const char* const wanted = std::getenv("VERBENA_GID_INDEX");
  if (wanted != nullptr && *wanted != '\0') return GidForPeers(device.name(), true, gids, wanted);
  if (const uint32_t zone = ZoneOf(to); zone != 0) {
    std::erase_if(gids, [zone](const Gid& each) { return each.entry.ndev_ifindex != zone; });
  }
  const Gid* const best = ChooseGid(gids, to.family());
  if (best != nullptr) return *best;
  return absl::FailedPreconditionError(
      absl::StrCat("device ", device.name(), ": its port has no address to reach ", to.ip(),
                   " from. Give its network interface one of that family."));
}

ibv_gid GidOf(const Ip& address, uint32_t type) {
  ibv_gid gid{};
  std::memcpy(gid.raw, address.data(), address.size());
  if (type == IBV_GID_TYPE_ROCE_V1 && IsV4(address) && provider::IsGroup(address)) {
    gid.raw[0] = 0xff;
    gid.raw[1] = 0x0e;
  }
  return gid;
}

absl::StatusOr<std::unique_ptr<provider::AddressHandle>> AddressHandle::Create(
    ProtectionDomain* domain, const AddressHandleOptions& options) {
  const absl::StatusOr<Address> to = provider::ParseDestination(options.address);
  if (!to.ok()) return to.status();
  const Device& device = *domain->device();
  const absl::StatusOr<Gid> from = GidTowards(device, *to);
  if (!from.ok()) return from.status();
  const bool group = provider::IsGroup(to->bytes());
  ibv_ah_attr attributes{};
  attributes.is_global = 1;
  attributes.port_num = device.port();
  attributes.grh.dgid = GidOf(to->bytes(), from->entry.gid_type);
  attributes.grh.sgid_index = static_cast<uint8_t>(from->entry.gid_index);
  attributes.grh.hop_limit = group ? options.hop_limit : kHopLimit;
  attributes.grh.traffic_class = options.traffic_class;
  ibv_ah* const handle = Lib().create_ah(domain->pd(), &attributes);
  if (handle != nullptr) return std::make_unique<AddressHandle>(domain, options, group, handle);
  return ErrnoStatus(
      errno, absl::StrCat("create address handle for ", to->ip(), " on device ", device.name()),
      absl::StrCat("Is it in a network that ", from->text, " reaches?"));
}

AddressHandle::AddressHandle(ProtectionDomain* domain, const AddressHandleOptions& options,
                             bool group, ibv_ah* handle)
    : domain_(domain), options_(options), group_(group), handle_(handle) {
  domain_->children().Add();
}

AddressHandle::~AddressHandle() { domain_->children().Remove(); }

absl::Status AddressHandle::Close() {
  domain_->spent_handles().Add(handle_);
  return absl::OkStatus();
}

}  // namespace verbena::verbs
