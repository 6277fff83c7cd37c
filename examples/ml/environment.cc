// SPDX-License-Identifier: Apache-2.0
#include "examples/ml/environment.h"

#include <cstdlib>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace ml {
namespace {

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

absl::Status Wrong(const char* name, const char* what) {
  return absl::InvalidArgumentError(absl::StrCat(name, " is \"", Variable(name), "\", not ", what,
                                                 ": start this program by examples/ml/launch"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Group>> JoinByEnvironment() {
  GroupOptions options;
  if (!absl::SimpleAtoi(Variable("VERBENA_ML_RANK"), &options.rank)) {
    return Wrong("VERBENA_ML_RANK", "a number");
  }
  if (!absl::SimpleAtoi(Variable("VERBENA_ML_SIZE"), &options.size)) {
    return Wrong("VERBENA_ML_SIZE", "a number");
  }
  const std::string wait = Variable("VERBENA_ML_WAIT");
  if (wait == "spin") {
    options.wait = Wait::kSpin;
  } else if (wait == "block") {
    options.wait = Wait::kBlock;
  } else if (!wait.empty() && wait != "adaptive") {
    return Wrong("VERBENA_ML_WAIT", "spin, adaptive or block");
  }
  if (double seconds; !Variable("VERBENA_ML_DEADLINE").empty()) {
    if (!absl::SimpleAtod(Variable("VERBENA_ML_DEADLINE"), &seconds) || seconds <= 0) {
      return Wrong("VERBENA_ML_DEADLINE", "a number of seconds");
    }
    options.deadline = absl::Seconds(seconds);
  }
  auto board = OpenBoard(Variable("VERBENA_ML_BOARD"));
  if (!board.ok()) return board.status();
  return Group::Join(**board, options);
}

}  // namespace ml
