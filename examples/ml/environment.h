// SPDX-License-Identifier: Apache-2.0
// How a process learns which rank it is: from the environment, which examples/ml/launch sets.
//
//   VERBENA_ML_RANK, VERBENA_ML_SIZE   which, of how many
//   VERBENA_ML_BOARD                   where they meet, see OpenBoard
//   VERBENA_ML_WAIT                    spin, adaptive (as without it) or block
//   VERBENA_ML_DEADLINE                seconds
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "examples/ml/group.h"

namespace ml {

// InvalidArgument names the variable that is missing or makes no sense.
absl::StatusOr<std::unique_ptr<Group>> JoinByEnvironment();

}  // namespace ml
