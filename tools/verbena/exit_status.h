// SPDX-License-Identifier: Apache-2.0
// How the tool ends: the numbers that scripts see, and the one way to say why.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace verbena::tool {

inline constexpr int kOk = 0;
inline constexpr int kFailed = 1;  // it was tried, and failed
inline constexpr int kUsage = 2;   // the command line cannot be understood

// Says "verbena COMMAND: MESSAGE" on stderr, in one piece. Any thread.
void Complain(absl::string_view command, absl::string_view message);

// Complain, and the exit status that follows.
int Fail(absl::string_view command, const absl::Status& why);
int Misused(absl::string_view command, const absl::Status& why);  // adds how to get help

}  // namespace verbena::tool
