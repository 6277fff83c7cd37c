// SPDX-License-Identifier: Apache-2.0
// The fallback provider: RC queue pairs as iWARP over kernel TCP. What the list of providers names.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "fallback/io/world.h"
#include "transport/capabilities.h"
#include "transport/provider.h"

namespace verbena::fallback {

// `argument`: empty, or the address that it listens on and connects from.
absl::StatusOr<std::unique_ptr<provider::Context>> Open(const std::string& argument);

// The same on another world: tests put a simulated network underneath.
absl::StatusOr<std::unique_ptr<provider::Context>> OpenOn(std::unique_ptr<io::World> world,
                                                          const std::string& argument);

std::vector<DeviceInfo> ListDevices();

}  // namespace verbena::fallback
