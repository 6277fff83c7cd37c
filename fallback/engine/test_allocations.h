// SPDX-License-Identifier: Apache-2.0
// Replaces this binary's operator new and delete by ones that count.
#pragma once

#include <cstdint>

namespace verbena::engine {

uint64_t AllocationCount();  // by all threads, so far

}  // namespace verbena::engine
