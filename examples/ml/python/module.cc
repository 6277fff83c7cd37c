// SPDX-License-Identifier: Apache-2.0
// The Python module verbena_ml; verbena_ml.pyi says what its parts do.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "examples/ml/environment.h"
#include "examples/ml/python/errors.h"
#include "examples/ml/python/group.h"
#include "examples/ml/python/tensors.h"

namespace ml::python {

namespace py = pybind11;
using namespace pybind11::literals;  // NOLINT: "name"_a

namespace {

Wait WaitNamed(const std::string& name) {
  if (name == "spin") return Wait::kSpin;
  if (name == "adaptive") return Wait::kAdaptive;
  if (name == "block") return Wait::kBlock;
  Raise(absl::InvalidArgumentError("a rank waits by spin, adaptive or block, not " + name));
}

std::unique_ptr<PyGroup> Join(int rank, int size, const std::string& board, double deadline,
                              const std::string& wait, const std::string& device) {
  const GroupOptions options{.rank = rank,
                             .size = size,
                             .wait = WaitNamed(wait),
                             .deadline = absl::Seconds(deadline),
                             .context = {.device = device}};
  auto group = [&]() -> absl::StatusOr<std::unique_ptr<Group>> {
    py::gil_scoped_release others;
    auto opened = OpenBoard(board);
    if (!opened.ok()) return opened.status();
    return Group::Join(**opened, options);
  }();
  return std::make_unique<PyGroup>(Check(std::move(group)));
}

std::unique_ptr<PyGroup> FromEnvironment() {
  auto group = [] {
    py::gil_scoped_release others;
    return JoinByEnvironment();
  }();
  return std::make_unique<PyGroup>(Check(std::move(group)));
}

py::dict CountersOf(PyGroup& group) {
  const GroupCounters counters = group.Counters();
  py::dict all;
  all["operations"] = counters.operations;
  all["messages"] = counters.messages;
  all["bytes_sent"] = counters.bytes_sent;
  all["bytes_copied"] = counters.bytes_copied;
  all["registrations"] = counters.registrations;
  return all;
}

void DefineGroup(py::module_& module) {
  const auto none = py::none();
  py::class_<Memory>(module, "Memory")
      .def_property_readonly(
          "address",
          [](const Memory& it) { return reinterpret_cast<uintptr_t>(it.view().bytes().data()); })
      .def_property_readonly("length", [](const Memory& it) { return it.view().bytes().size(); })
      .def_property_readonly("dtype", [](const Memory& it) { return NameOf(it.view().dtype()); })
      .def_property_readonly(
          "remote_key",
          [](const Memory& it) { return it.region().is_open() ? it.region().remote_key() : 0; })
      .def("close", [](Memory& self) { Check(self.Close()); })
      .def("__enter__", [](const py::object& self) { return self; })
      .def("__exit__", [](Memory& self, const py::args&) { Check(self.Close()); });

  py::class_<PyGroup>(module, "Group")
      .def(py::init(&Join), "rank"_a, "size"_a, "board"_a, py::kw_only(), "deadline"_a = 30.0,
           "wait"_a = "adaptive", "device"_a = "")
      .def_static("from_environment", &FromEnvironment)
      .def_property_readonly("rank", &PyGroup::rank)
      .def_property_readonly("size", &PyGroup::size)
      .def_property_readonly("device", &PyGroup::device)
      .def("fileno", &PyGroup::fd)
      .def("counters", &CountersOf)
      .def("register", &PyGroup::Register, "tensor"_a, py::kw_only(), "writable"_a = true,
           "dtype"_a = none, py::keep_alive<0, 1>())
      .def("all_reduce", &PyGroup::AllReduce, "tensor"_a, "out"_a = none, py::kw_only(),
           "dtype"_a = none)
      .def("all_gather", &PyGroup::AllGather, "tensor"_a, "out"_a, py::kw_only(), "dtype"_a = none)
      .def("barrier", &PyGroup::Barrier)
      .def(
          "all_reduce_async",
          [](const py::object& self, const py::object& tensor, const py::object& out,
             const py::object& dtype) {
            return self.cast<PyGroup&>().AllReduceAsync(self, tensor, out, dtype);
          },
          "tensor"_a, "out"_a = none, py::kw_only(), "dtype"_a = none)
      .def(
          "all_gather_async",
          [](const py::object& self, const py::object& tensor, const py::object& out,
             const py::object& dtype) {
            return self.cast<PyGroup&>().AllGatherAsync(self, tensor, out, dtype);
          },
          "tensor"_a, "out"_a, py::kw_only(), "dtype"_a = none)
      .def("leave", &PyGroup::Leave)
      .def("__enter__", [](const py::object& self) { return self; })
      .def("__exit__", [](PyGroup& self, const py::args&) { self.Leave(); });
}

}  // namespace
}  // namespace ml::python

PYBIND11_MODULE(verbena_ml, module) {
  module.doc() = "All-reduce, all-gather and a tensor store by RDMA, on devices and on kernel TCP";
  ml::python::DefineErrors(module);
  ml::python::DefineGroup(module);
  ml::python::DefineTensors(module);
}
