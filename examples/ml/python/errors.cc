// SPDX-License-Identifier: Apache-2.0
#include "examples/ml/python/errors.h"

#include <string>

namespace ml::python {

namespace py = pybind11;

namespace {

py::object MakeClass(py::module_& module, const char* name, const py::tuple& bases) {
  const std::string full = std::string("verbena_ml.") + name;
  auto made =
      py::reinterpret_steal<py::object>(PyErr_NewException(full.c_str(), bases.ptr(), nullptr));
  if (!made) throw py::error_already_set();
  module.attr(name) = made;
  return made;
}

const char* ClassOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return "InvalidArgument";
    case absl::StatusCode::kDeadlineExceeded:
      return "DeadlineExceeded";
    case absl::StatusCode::kUnavailable:
      return "Unavailable";
    default:
      return "Error";
  }
}

}  // namespace

void DefineErrors(py::module_& module) {
  const py::object error = MakeClass(module, "Error", py::make_tuple(py::handle(PyExc_Exception)));
  error.attr("code") = "UNKNOWN";
  MakeClass(module, "InvalidArgument", py::make_tuple(error, py::handle(PyExc_ValueError)));
  MakeClass(module, "DeadlineExceeded", py::make_tuple(error, py::handle(PyExc_TimeoutError)));
  MakeClass(module, "Unavailable", py::make_tuple(error, py::handle(PyExc_ConnectionError)));
}

py::object ErrorOf(const absl::Status& status) {
  const py::module_ module = py::module_::import("verbena_ml");
  py::object error = module.attr(ClassOf(status.code()))(std::string(status.message()));
  error.attr("code") = absl::StatusCodeToString(status.code());
  return error;
}

void Raise(const absl::Status& status) {
  const py::object error = ErrorOf(status);
  PyErr_SetObject(py::type::of(error).ptr(), error.ptr());
  throw py::error_already_set();
}

}  // namespace ml::python
