// SPDX-License-Identifier: Apache-2.0
// Address handles of the fallback: a route, and nothing that is open.
#pragma once

#include <memory>

#include "fallback/datagram/queue_pair.h"
#include "fallback/protection_domain.h"
#include "transport/provider.h"

namespace verbena::fallback {

class AddressHandle final : public provider::AddressHandle {
 public:
  static absl::StatusOr<std::unique_ptr<provider::AddressHandle>> Create(
      ProtectionDomain* domain, const AddressHandleOptions& options);
  AddressHandle(ProtectionDomain* domain, const AddressHandleOptions& options,
                const datagram::Route& route);
  ~AddressHandle() override;

  absl::Status Close() override { return absl::OkStatus(); }
  provider::Device* device() const override { return domain_->device(); }
  const AddressHandleOptions& options() const override { return options_; }
  const datagram::Route& route() const { return route_; }

 private:
  ProtectionDomain* const domain_;
  const AddressHandleOptions options_;
  const datagram::Route route_;
};

}  // namespace verbena::fallback
