// SPDX-License-Identifier: Apache-2.0
// Where the ranks of a job leave what the others need to find them: small values under names,
// written once. Behind it may stand a folder, etcd, or what a job's own launcher has.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ml {

// One thread at a time; several boards of one place, in any processes, see the same.
class Board {
 public:
  virtual ~Board() = default;
  // AlreadyExists: somebody has written it, so
  // two ranks have one number, or the place is left over from another job.
  virtual absl::Status Put(const std::string& key, const std::string& value) = 0;
  // DeadlineExceeded: nobody has written it after `timeout`.
  virtual absl::StatusOr<std::string> Wait(const std::string& key, absl::Duration timeout) = 0;
};

// "folder:PATH", a folder that all ranks see; "etcd:HOST:PORT[,HOST:PORT…]/JOB", keys under a name
// that no other job has, gone after an hour. InvalidArgument, NotFound.
absl::StatusOr<std::unique_ptr<Board>> OpenBoard(const std::string& where);

}  // namespace ml
