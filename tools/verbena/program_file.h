// SPDX-License-Identifier: Apache-2.0
// Whether the dynamic loader will put libraries under a program: ld.so(8).
#pragma once

#include <string>

#include "absl/status/status.h"

namespace verbena::tool {

// FailedPrecondition, with the reason and what to do: it is static, of another machine, or runs
// with more rights than who starts it. What is no program file (a script) is left to the kernel.
absl::Status CheckPreloadable(const std::string& file);

}  // namespace verbena::tool
