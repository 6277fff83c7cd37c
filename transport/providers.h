// SPDX-License-Identifier: Apache-2.0
// The one list of providers: what Context::Open chooses from and what the conformance suite runs
// on.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "transport/capabilities.h"
#include "transport/provider.h"

namespace verbena {

struct ProviderEntry {
  const char* name;  // what stands before the colon of a device name: "tcp"
  // `device_argument`: what stands behind it, or empty. `passed_over`: null, or nobody named a
  // device: then those that serve only if named stay closed, and it gets every device that was not
  // opened, with the reason.
  absl::StatusOr<std::unique_ptr<provider::Context>> (*open)(const std::string& device_argument,
                                                             std::vector<Candidate>* passed_over);
  std::vector<DeviceInfo> (*list)();  // usable or not
};

// The first is the one that works everywhere, and what "auto" opens.
std::span<const ProviderEntry> AllProviders();

}  // namespace verbena
