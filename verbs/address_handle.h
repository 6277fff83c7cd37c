// SPDX-License-Identifier: Apache-2.0
// Address handles of a device: how its port reaches an IP address. For queue pairs of the same
// protection domain (ibv_create_ah(3)).
#pragma once

#include <memory>

#include "transport/provider.h"
#include "verbs/inventory.h"
#include "verbs/protection_domain.h"

namespace verbena::verbs {

class AddressHandle final : public provider::AddressHandle {
 public:
  // May block while the kernel asks for the neighbour's MAC address.
  static absl::StatusOr<std::unique_ptr<provider::AddressHandle>> Create(
      ProtectionDomain* domain, const AddressHandleOptions& options);
  AddressHandle(ProtectionDomain* domain, const AddressHandleOptions& options, bool group,
                ibv_ah* handle);
  ~AddressHandle() override;

  absl::Status Close() override;
  provider::Device* device() const override { return domain_->device(); }
  const AddressHandleOptions& options() const override { return options_; }

  ProtectionDomain* domain() const { return domain_; }
  bool group() const { return group_; }
  ibv_ah* handle() const { return handle_; }

 private:
  ProtectionDomain* const domain_;
  const AddressHandleOptions options_;
  const bool group_;
  ibv_ah* const handle_;
};

// The GID of the device to reach `to` from, or for `to` to be received on: the one that
// VERBENA_GID_INDEX names, else the best of its family, and of its zone if it has one.
absl::StatusOr<Gid> GidTowards(const Device& device, const provider::Address& to);

// The GID that stands for an address on a port with GIDs of this type. RoCE v1 has its own for
// groups of IPv4 (Linux drivers/infiniband/core/cma.c cma_iboe_set_mgid).
ibv_gid GidOf(const Ip& address, uint32_t type);

}  // namespace verbena::verbs
