// SPDX-License-Identifier: Apache-2.0
// How much memory this process may pin: registering locks pages (setrlimit(2), RLIMIT_MEMLOCK).
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace verbena::verbs {

// OK if `bytes` more may be pinned, as far as can be known beforehand; else ResourceExhausted with
// the limit, what is pinned already, what is needed, and how to raise it.
absl::Status CheckPinnable(uint64_t bytes);

// The same text, for when the kernel has refused.
absl::Status PinRefused(uint64_t bytes);

}  // namespace verbena::verbs
