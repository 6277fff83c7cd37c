// SPDX-License-Identifier: Apache-2.0
#include "examples/ml/python/tensors.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "examples/ml/python/errors.h"
#include "examples/ml/python/view.h"
#include "examples/ml/tensor_client.h"
#include "examples/ml/tensor_server.h"
#include "rpc/server.h"

namespace ml::python {

namespace py = pybind11;
using namespace pybind11::literals;  // NOLINT: "name"_a

namespace {

constexpr int kHandlers = 4;

class StoreServer {
 public:
  StoreServer(const std::string& address, uint64_t max_bytes) : store_(max_bytes) {
    server_ = Check(verbena::rpc::Server::Open({.handler_threads = kHandlers}));
    Check(server_->Add(store_));
    Check(server_->Start(address));
    port_ = server_->port();
  }
  ~StoreServer() { Close(); }
  int port() const { return port_; }
  void Close() {
    py::gil_scoped_release others;
    server_.reset();
  }

 private:
  TensorServer store_;
  std::unique_ptr<verbena::rpc::Server> server_;
  int port_ = 0;
};

// Other threads of Python run meanwhile.
template <typename What>
auto Call(Tensors* tensors, const What& what) {
  if (tensors == nullptr) Raise(absl::FailedPreconditionError("the store was closed"));
  return Check([&] {
    py::gil_scoped_release others;
    return what(*tensors);
  }());
}

class Store {
 public:
  Store(const std::string& address, double deadline)
      : tensors_(Check(Tensors::Open(address, {.deadline = absl::Seconds(deadline)}))) {}
  ~Store() { Close(); }
  void Close() {
    py::gil_scoped_release others;
    tensors_.reset();
  }

  Described Put(const std::string& name, const py::object& tensor,
                std::optional<uint64_t> only_version, const py::object& dtype) {
    const View view(tensor, false, dtype);
    return Call(tensors_.get(), [&](Tensors& tensors) {
      return tensors.Put(name, view.dtype(), view.shape(), view.bytes(), only_version);
    });
  }
  Described Accumulate(const std::string& name, const py::object& tensor, const py::object& dtype) {
    const View view(tensor, false, dtype);
    return Call(tensors_.get(), [&](Tensors& tensors) {
      return tensors.Accumulate(name, view.dtype(), view.shape(), view.bytes());
    });
  }
  Described Get(const std::string& name, const py::object& into, const py::object& dtype) {
    const View view(into, true, dtype);
    return Call(tensors_.get(), [&](Tensors& tensors) {
      return tensors.Get(name, view.dtype(), view.shape(), view.bytes());
    });
  }
  Described Describe(const std::string& name) {
    return Call(tensors_.get(), [&](Tensors& tensors) { return tensors.Describe(name); });
  }
  std::vector<Described> List(const std::string& prefix) {
    return Call(tensors_.get(), [&](Tensors& tensors) { return tensors.List(prefix); });
  }
  void Delete(const std::string& name) {
    Call(tensors_.get(), [&](Tensors& tensors) -> absl::StatusOr<bool> {
      if (auto status = tensors.Delete(name); !status.ok()) return status;
      return true;
    });
  }

 private:
  std::unique_ptr<Tensors> tensors_;
};

}  // namespace

void DefineTensors(py::module_& module) {
  py::class_<Described>(module, "TensorInfo")
      .def_readonly("name", &Described::name)
      .def_property_readonly("dtype", [](const Described& it) { return NameOf(it.dtype); })
      .def_property_readonly("shape",
                             [](const Described& it) { return py::tuple(py::cast(it.shape)); })
      .def_readonly("version", &Described::version);

  const auto none = py::none();
  py::class_<Store>(module, "TensorStore")
      .def(py::init<const std::string&, double>(), "address"_a, py::kw_only(), "deadline"_a = 30.0)
      .def("put", &Store::Put, "name"_a, "tensor"_a, py::kw_only(), "only_version"_a = none,
           "dtype"_a = none)
      .def("accumulate", &Store::Accumulate, "name"_a, "tensor"_a, py::kw_only(), "dtype"_a = none)
      .def("get", &Store::Get, "name"_a, "into"_a, py::kw_only(), "dtype"_a = none)
      .def("describe", &Store::Describe, "name"_a)
      .def("list", &Store::List, "prefix"_a = "")
      .def("delete", &Store::Delete, "name"_a)
      .def("close", &Store::Close)
      .def("__enter__", [](const py::object& self) { return self; })
      .def("__exit__", [](Store& self, const py::args&) { self.Close(); });

  py::class_<StoreServer>(module, "TensorServer")
      .def(py::init<const std::string&, uint64_t>(), "address"_a = "127.0.0.1:0", py::kw_only(),
           "max_bytes"_a = uint64_t{16} << 30)
      .def_property_readonly("port", &StoreServer::port)
      .def("close", &StoreServer::Close)
      .def("__enter__", [](const py::object& self) { return self; })
      .def("__exit__", [](StoreServer& self, const py::args&) { self.Close(); });
}

}  // namespace ml::python
