// SPDX-License-Identifier: Apache-2.0
// Protection domains and memory regions. Windows: memory_window.h.
#pragma once

#include <infiniband/verbs.h>

#include <memory>
#include <optional>
#include <span>

#include "dropin/context.h"
#include "fallback/protection_domain.h"
#include "transport/protection_domain.h"

namespace verbena::dropin {

class ProtectionDomain final : public ibv_pd {
 public:
  static ProtectionDomain* Of(ibv_pd* pd) { return static_cast<ProtectionDomain*>(pd); }
  ProtectionDomain(ibv_context* context, std::unique_ptr<provider::ProtectionDomain> domain);

  fallback::ProtectionDomain& domain() {
    return static_cast<fallback::ProtectionDomain&>(*domain_);
  }

 private:
  const HeldContext held_;
  const std::unique_ptr<provider::ProtectionDomain> domain_;
};

class MemoryRegion final : public ibv_mr {
 public:
  static MemoryRegion* Of(ibv_mr* mr) { return static_cast<MemoryRegion*>(mr); }
  // Null, with errno set.
  static ibv_mr* Register(ibv_pd* pd, void* address, size_t length, uint64_t iova,
                          unsigned int access);
  static ibv_mr* Null(ibv_pd* pd);

  // ibv_rereg_mr(3): what is not given stays. On failure nothing has changed.
  int Change(ibv_pd* pd, std::optional<std::span<std::byte>> memory,
             std::optional<unsigned int> access);
  int Deregister();
  const verbena::MemoryRegion& region() const { return region_; }

 private:
  MemoryRegion() : ibv_mr{} {}
  int Lend(ibv_pd* pd, void* address, size_t length, uint64_t iova, unsigned int access);

  verbena::MemoryRegion region_;
  unsigned int access_ = 0;
};

}  // namespace verbena::dropin
