// SPDX-License-Identifier: Apache-2.0
// A device that this process may use. Belongs to its Context, which outlives everything made here.
#pragma once

#include "absl/status/statusor.h"
#include "transport/capabilities.h"
#include "transport/completion_queue.h"
#include "transport/counters.h"
#include "transport/options.h"
#include "transport/protection_domain.h"
#include "transport/provider.h"

namespace verbena {

class Device {
 public:
  Device(provider::Device* impl, provider::Context* context) : impl_(impl), context_(context) {}
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceInfo& info() const { return impl_->info(); }
  const std::string& name() const { return info().name; }  // "tcp"
  DeviceAttributes attributes() const { return impl_->attributes(); }
  Capabilities capabilities() const { return impl_->capabilities(); }  // "at most"
  DeviceCounters counters() const { return impl_->counters(); }

  absl::StatusOr<ProtectionDomain> AllocateProtectionDomain();
  absl::StatusOr<CompletionChannel> CreateCompletionChannel();
  absl::StatusOr<CompletionQueue> CreateCompletionQueue(const CqOptions& options = {});

  provider::Device* impl() const { return impl_; }

 private:
  provider::Device* impl_;
  provider::Context* context_;
};

}  // namespace verbena
