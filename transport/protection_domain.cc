// SPDX-License-Identifier: Apache-2.0
#include "transport/protection_domain.h"

#include <cstddef>
#include <span>
#include <utility>

#include "absl/status/statusor.h"

namespace verbena {

absl::StatusOr<MemoryRegion> ProtectionDomain::Register(std::span<std::byte> memory, Access access,
                                                        const RegisterOptions& options) {
  auto made = impl_->Register(memory, access, options);
  if (!made.ok()) return made.status();
  return MemoryRegion(*std::move(made));
}

absl::StatusOr<MemoryWindow> ProtectionDomain::AllocateWindow() {
  auto made = impl_->AllocateWindow();
  if (!made.ok()) return made.status();
  return MemoryWindow(*std::move(made));
}

absl::StatusOr<QueuePair> ProtectionDomain::CreateQueuePair(const QueuePairOptions& options) {
  auto made = impl_->CreateQueuePair(options);
  if (!made.ok()) return made.status();
  return QueuePair(*std::move(made), context_);
}

absl::StatusOr<SharedReceiveQueue> ProtectionDomain::CreateSharedReceiveQueue(
    const SrqOptions& options) {
  auto made = impl_->CreateSharedReceiveQueue(options);
  if (!made.ok()) return made.status();
  return SharedReceiveQueue(*std::move(made));
}

absl::StatusOr<AddressHandle> ProtectionDomain::CreateAddressHandle(
    const AddressHandleOptions& options) {
  auto made = impl_->CreateAddressHandle(options);
  if (!made.ok()) return made.status();
  return AddressHandle(*std::move(made));
}

}  // namespace verbena
