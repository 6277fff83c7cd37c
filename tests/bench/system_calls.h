// SPDX-License-Identifier: Apache-2.0
// Counts the system calls of this process that move bytes or wait for them: whoever links this has
// the functions of libc that make them replaced, for shared libraries too. What libc calls inside
// of itself is not seen, such as the futexes of a condition variable.
#pragma once

#include <cstdint>

namespace verbena::bench {

uint64_t SystemCalls();  // of all threads so far

}  // namespace verbena::bench
