// SPDX-License-Identifier: Apache-2.0
// Replaces this binary's operator new and delete by ones that count, and refuse when told to.
#pragma once

#include <cstdint>

namespace verbena::engine {

uint64_t AllocationCount();  // by all threads, so far
// From now on the nth allocation throws std::bad_alloc, once; 0: none.
void RefuseAllocation(uint32_t nth);
// new (std::nothrow) returns null, until it is told otherwise.
void RefuseQuietly(bool on);

}  // namespace verbena::engine
