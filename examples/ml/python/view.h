// SPDX-License-Identifier: Apache-2.0
// Memory of a Python object, in place: through the buffer protocol, or through DLPack where there
// is none. Nothing is copied.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "examples/ml/tensor.h"

namespace ml::python {

// Holds the object, and keeps it from being resized. With the GIL.
class View {
 public:
  // InvalidArgument: no such object, not on the CPU, not contiguous (C order), elements that are
  // none of Dtype's, or read-only where `writable`. `dtype`, if not None, is what the elements are
  // called, for halves that Python has no name for: NumPy's uint16 may be "bfloat16".
  View(const pybind11::object& object, bool writable, const pybind11::object& dtype);
  View(View&&) noexcept = default;

  std::span<std::byte> bytes() const { return bytes_; }
  Dtype dtype() const { return dtype_; }
  const std::vector<uint64_t>& shape() const { return shape_; }

 private:
  void FromBuffer(const pybind11::object& object, bool writable);
  void FromCapsule(const pybind11::object& capsule, bool writable);
  template <typename Managed>
  void FromManaged(const pybind11::object& capsule, const char* used, bool writable,
                   bool read_only);
  void Rename(const std::string& name);

  std::span<std::byte> bytes_;
  Dtype dtype_ = Dtype::kUint8;
  bool nameless_ = false;  // two bytes that are no float16 unless they are called so
  std::vector<uint64_t> shape_;
  std::unique_ptr<void, std::function<void(void*)>> held_;
};

}  // namespace ml::python
