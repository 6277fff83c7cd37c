// SPDX-License-Identifier: Apache-2.0
// Error handling of the examples: say what went wrong and end. Your program returns the status.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "transport/work_request.h"

inline void Check(const absl::Status& status) {
  if (status.ok()) return;
  fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}

inline void Check(const verbena::PostResult& posted) { Check(posted.ToStatus()); }

template <typename T>
T Check(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}
