// SPDX-License-Identifier: Apache-2.0
// Whole files.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace verbena::tool {

// The error names the file and the reason.
absl::Status WriteFile(const std::string& path, absl::string_view text);
absl::StatusOr<std::string> ReadFile(const std::string& path);

}  // namespace verbena::tool
