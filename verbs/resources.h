// SPDX-License-Identifier: Apache-2.0
// The objects of a device: how many it has at most, how many there are, and what to say when it
// gives no more.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace verbena::verbs {

enum class Resource : uint8_t {
  kProtectionDomain,
  kCompletionQueue,
  kQueuePair,
  kMemoryRegion,
  kMemoryWindow,
  kSharedReceiveQueue,
};

// How many exist in all processes, as the kernel tells (`rdma resource`). Empty: it does not. May
// block for a moment.
std::optional<uint64_t> InUse(const std::string& device, Resource resource);

// The device has refused to make one, with this errno, though what was asked for is valid: "what:
// errno. Of at most LIMIT queue pairs (max_qp) of the device N exist, in all processes. remedy".
absl::Status NoMore(int error, const std::string& what, Resource resource,
                    const ibv_device_attr& limits, std::optional<uint64_t> in_use,
                    const std::string& remedy);

}  // namespace verbena::verbs
