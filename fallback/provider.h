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

std::vector<DeviceInfo> ListDevices();

// The same on another world, and by another name: tests put a simulated network underneath, and
// have it play an RDMA device.
absl::StatusOr<std::unique_ptr<provider::Context>> OpenOn(
    std::unique_ptr<io::World> world, const std::string& argument,
    const DeviceInfo& info = ListDevices().front());

}  // namespace verbena::fallback
