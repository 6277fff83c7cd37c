// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/exit_status.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "tools/verbena/text.h"

namespace verbena::tool {

void Complain(absl::string_view command, absl::string_view message) {
  const std::string line =
      absl::StrCat("verbena", command.empty() ? "" : " ", command, ": ", Printable(message), "\n");
  fputs(line.c_str(), stderr);
}

int Fail(absl::string_view command, const absl::Status& why) {
  Complain(command, why.message());
  return kFailed;
}

int Misused(absl::string_view command, const absl::Status& why) {
  Complain(command, absl::StrCat(why.message(), "\nTry `verbena ", command,
                                 command.empty() ? "help" : " --help", "`."));
  return kUsage;
}

}  // namespace verbena::tool
