// SPDX-License-Identifier: Apache-2.0
// From statuses to errno, as the kernel's drivers use them.
#pragma once

#include <cerrno>

#include "absl/status/status.h"
#include "transport/work_request.h"

namespace verbena::dropin {

inline int ErrnoOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kResourceExhausted:
      return ENOMEM;
    case absl::StatusCode::kFailedPrecondition:  // children are open
      return EBUSY;
    case absl::StatusCode::kUnimplemented:
      return EOPNOTSUPP;
    case absl::StatusCode::kNotFound:
      return ENODEV;
    case absl::StatusCode::kUnavailable:
      return EIO;
    default:
      return EINVAL;
  }
}

inline int ErrnoOf(PostError error) {
  switch (error) {
    case PostError::kNone:
      return 0;
    case PostError::kQueueFull:
      return ENOMEM;
    case PostError::kUnsupported:
      return EOPNOTSUPP;
    case PostError::kDead:
      return EIO;
    default:
      return EINVAL;
  }
}

// For functions that return a pointer.
template <typename T = void>
T* Fail(int error) {
  errno = error;
  return nullptr;
}

// For functions that return -1 and set errno: those of librdmacm.
inline int FailWith(int error) {
  if (error == 0) return 0;
  errno = error;
  return -1;
}

}  // namespace verbena::dropin
