// SPDX-License-Identifier: Apache-2.0
// Replaces this binary's operator new and delete by ones that count.
#pragma once

#include <cstdint>

namespace verbena::testing {

uint64_t AllocationsOfThisThread();  // so far

}  // namespace verbena::testing
