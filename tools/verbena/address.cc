// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/address.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace verbena::tool {

std::string JoinHostPort(absl::string_view host, int64_t port) {
  if (absl::StrContains(host, ':') && !absl::StartsWith(host, "[")) {
    return absl::StrCat("[", host, "]:", port);
  }
  return absl::StrCat(host, ":", port);
}

absl::Status AskForServer(const absl::Status& why, absl::string_view command,
                          absl::string_view host, int64_t port) {
  if (!absl::IsUnavailable(why) && !absl::IsDeadlineExceeded(why)) return why;
  return absl::Status(why.code(), absl::StrCat(why.message(), "\nIs `verbena ", command, " -s -p ",
                                               port, "` running on ", host, "?"));
}

}  // namespace verbena::tool
