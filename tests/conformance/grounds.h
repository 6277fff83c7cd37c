// SPDX-License-Identifier: Apache-2.0
// The grounds that there are: the kernel's network, RDMA devices, and a simulated network with
// faults from a seed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tests/conformance/environment.h"

namespace verbena::conformance {

// This machine alone, through the provider of this name: over loopback, or over its RDMA device.
std::unique_ptr<Ground> KernelGround(const std::string& provider);

// TCP over a simulated network: 1 is an ordinary one, 2 has tiny buffers, 3 is far away.
std::unique_ptr<Ground> SimulatedGround(uint64_t kind, uint64_t seed);

// Each case has a seed of its own, so that a suite sees many schedules and each is reproducible:
// VERBENA_SIM_SEED=… replays one that a failure printed.
uint64_t SeedFor(uint64_t seed, const std::string& test);

}  // namespace verbena::conformance
