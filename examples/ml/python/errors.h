// SPDX-License-Identifier: Apache-2.0
// absl::Status as exceptions of Python: Error with .code ("UNAVAILABLE"), and subclasses that are
// what Python calls such a thing besides: ValueError, TimeoutError, ConnectionError.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ml::python {

void DefineErrors(pybind11::module_& module);

// An instance, for futures.
pybind11::object ErrorOf(const absl::Status& status);
[[noreturn]] void Raise(const absl::Status& status);

inline void Check(const absl::Status& status) {
  if (!status.ok()) Raise(status);
}
template <typename T>
T Check(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

}  // namespace ml::python
