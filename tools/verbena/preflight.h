// SPDX-License-Identifier: Apache-2.0
// What a command needs of its surroundings, checked before it starts, so that the refusal names the
// limit and the remedy instead of whichever call happened to fail.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace verbena::tool {

// Descriptors that a context takes (service thread, events), and that each connection adds (its
// socket, a completion channel and its wake-up).
inline constexpr int kContextDescriptors = 16;
inline constexpr int kConnectionDescriptors = 4;

// ResourceExhausted unless `connections` at once fit under RLIMIT_NOFILE beside what is open now.
absl::Status CheckDescriptors(int connections);

// At most `wanted`: as many connections as the limit has room for, at least 0.
int ConnectionsThatFit(int wanted);

// Keeps this process on one CPU. InvalidArgument: it has no such CPU; the message lists them.
absl::Status PinToCpu(int64_t cpu);

}  // namespace verbena::tool
