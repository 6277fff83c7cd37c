// SPDX-License-Identifier: Apache-2.0
#include "transport/device.h"

#include <utility>

#include "absl/status/statusor.h"

namespace verbena {

absl::StatusOr<ProtectionDomain> Device::AllocateProtectionDomain() {
  auto made = impl_->AllocateProtectionDomain();
  if (!made.ok()) return made.status();
  return ProtectionDomain(*std::move(made), context_);
}

absl::StatusOr<CompletionChannel> Device::CreateCompletionChannel() {
  auto made = impl_->CreateCompletionChannel();
  if (!made.ok()) return made.status();
  return CompletionChannel(*std::move(made));
}

absl::StatusOr<CompletionQueue> Device::CreateCompletionQueue(const CqOptions& options) {
  auto made = impl_->CreateCompletionQueue(options);
  if (!made.ok()) return made.status();
  return CompletionQueue(*std::move(made));
}

}  // namespace verbena
