// SPDX-License-Identifier: Apache-2.0
// What people type as -a and -p: as one address, and in the question whether somebody is there.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace verbena::tool {

// "10.0.0.1:7174"; an IPv6 address gets its brackets, an empty host stays empty (any address).
std::string JoinHostPort(absl::string_view host, int64_t port);

// `why` a connect failed, and how to start the server that was not reached, where that may help.
absl::Status AskForServer(const absl::Status& why, absl::string_view command,
                          absl::string_view host, int64_t port);

}  // namespace verbena::tool
