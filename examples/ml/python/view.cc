// SPDX-License-Identifier: Apache-2.0
#include "examples/ml/python/view.h"

#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "examples/ml/python/errors.h"

namespace ml::python {

namespace py = pybind11;

namespace {

// The part of DLPack's ABI that is needed here: https://dmlc.github.io/dlpack/latest/c_api.html
struct DlDevice {
  int32_t type;
  int32_t id;
};
struct DlType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};
struct DlTensor {
  void* data;
  DlDevice device;
  int32_t dimensions;
  DlType type;
  int64_t* shape;
  int64_t* strides;  // in elements; null: compact
  uint64_t byte_offset;
};
struct DlManaged {  // in capsules named "dltensor"
  DlTensor tensor;
  void* context;
  void (*deleter)(DlManaged*);
};
struct DlManagedVersioned {  // in capsules named "dltensor_versioned"
  uint32_t major, minor;
  void* context;
  void (*deleter)(DlManagedVersioned*);
  uint64_t flags;
  DlTensor tensor;
};
static_assert(sizeof(DlTensor) == 48 && offsetof(DlTensor, byte_offset) == 40);
static_assert(offsetof(DlManagedVersioned, tensor) == 32);
constexpr int32_t kDlCpu = 1;
constexpr uint64_t kDlReadOnly = 1;
constexpr uint32_t kDlMajor = 1;
enum DlCode : uint8_t { kDlInt = 0, kDlUint = 1, kDlFloat = 2, kDlBfloat = 4 };

[[noreturn]] void Refuse(const std::string& why) { Raise(absl::InvalidArgumentError(why)); }

std::optional<Dtype> OfDl(const DlType& type) {
  if (type.lanes != 1) return std::nullopt;
  switch (type.code << 8 | type.bits) {
    case kDlFloat << 8 | 32:
      return Dtype::kFloat32;
    case kDlFloat << 8 | 16:
      return Dtype::kFloat16;
    case kDlFloat << 8 | 64:
      return Dtype::kFloat64;
    case kDlBfloat << 8 | 16:
      return Dtype::kBfloat16;
    case kDlInt << 8 | 32:
      return Dtype::kInt32;
    case kDlInt << 8 | 64:
      return Dtype::kInt64;
    case kDlUint << 8 | 8:
      return Dtype::kUint8;
    default:
      return std::nullopt;
  }
}

// A format of the struct module: one letter, in this machine's order.
std::optional<Dtype> OfFormat(const char* format, size_t size) {
  if (format == nullptr) return Dtype::kUint8;
  if (*format == '@' || *format == '=' || *format == '<' || *format == '|') ++format;
  if (*format == '\0' || format[1] != '\0') return std::nullopt;
  switch (*format) {
    case 'f':
      return Dtype::kFloat32;
    case 'e':
      return Dtype::kFloat16;
    case 'd':
      return Dtype::kFloat64;
    case 'i':
    case 'l':
    case 'q':
      return size == 4 ? Dtype::kInt32 : Dtype::kInt64;
    case 'B':
    case 'b':
    case 'c':
      return Dtype::kUint8;
    default:
      return std::nullopt;
  }
}

constexpr const char* kNotContiguous =
    "the tensor is not contiguous in C order, and nothing is copied here: pass a contiguous one "
    "(numpy.ascontiguousarray, Tensor.contiguous)";
constexpr const char* kReadOnly = "the tensor is read-only, and would be written";

}  // namespace

View::View(const py::object& object, bool writable, const py::object& dtype) {
  if (PyCapsule_CheckExact(object.ptr())) {
    FromCapsule(object, writable);
  } else if (PyObject_CheckBuffer(object.ptr())) {
    FromBuffer(object, writable);
  } else if (py::hasattr(object, "__dlpack__")) {
    FromCapsule(object.attr("__dlpack__")(), writable);
  } else {
    Refuse(absl::StrCat("a ", std::string(py::str(py::type::of(object).attr("__name__"))),
                        " has neither the buffer protocol nor DLPack"));
  }
  if (!dtype.is_none()) {
    Rename(py::str(dtype));
  } else if (nameless_) {
    Refuse("elements are unsigned numbers of two bytes: say dtype=\"bfloat16\" if they are that");
  }
}

void View::Rename(const std::string& name) {
  const auto wanted = DtypeNamed(name);
  if (!wanted.has_value()) Refuse(absl::StrCat("no dtype is called ", name));
  if (SizeOf(*wanted) != SizeOf(dtype_)) {
    Refuse(absl::StrCat("elements of ", SizeOf(dtype_), " bytes are no ", name));
  }
  dtype_ = *wanted;
}

void View::FromBuffer(const py::object& object, bool writable) {
  auto owned = std::make_unique<Py_buffer>();
  if (PyObject_GetBuffer(object.ptr(), owned.get(), PyBUF_FORMAT | PyBUF_STRIDES) != 0) {
    throw py::error_already_set();
  }
  Py_buffer* buffer = owned.release();
  held_ = {buffer, [](void* held) {
             auto* const mine = static_cast<Py_buffer*>(held);
             PyBuffer_Release(mine);
             delete mine;
           }};
  if (writable && buffer->readonly) Refuse(kReadOnly);
  if (!PyBuffer_IsContiguous(buffer, 'C')) Refuse(kNotContiguous);
  const auto size = static_cast<size_t>(buffer->itemsize);
  auto dtype = OfFormat(buffer->format, size);
  if (!dtype.has_value() && size == 2 && std::strcmp(buffer->format, "H") == 0) {
    nameless_ = true;
    dtype = Dtype::kFloat16;
  }
  if (!dtype.has_value() || SizeOf(*dtype) != size) {
    Refuse(absl::StrCat("elements of format \"", buffer->format, "\" are none that can be added"));
  }
  dtype_ = *dtype;
  shape_.assign(buffer->shape, buffer->shape + buffer->ndim);
  bytes_ = {static_cast<std::byte*>(buffer->buf), static_cast<size_t>(buffer->len)};
}

void View::FromCapsule(const py::object& capsule, bool writable) {
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
    const auto* managed =
        static_cast<DlManagedVersioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (managed->major != kDlMajor) Refuse("the capsule is of another version of DLPack");
    FromManaged<DlManagedVersioned>(capsule, "used_dltensor_versioned", writable,
                                    (managed->flags & kDlReadOnly) != 0);
  } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
    FromManaged<DlManaged>(capsule, "used_dltensor", writable, false);
  } else {
    Refuse("the capsule is no DLPack tensor, or was used before");
  }
}

template <typename Managed>
void View::FromManaged(const py::object& capsule, const char* used, bool writable, bool read_only) {
  auto* managed =
      static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), PyCapsule_GetName(capsule.ptr())));
  const DlTensor& tensor = managed->tensor;
  if (tensor.device.type != kDlCpu) {
    Refuse("the tensor is not in the CPU's memory: move it there first (Tensor.cpu)");
  }
  if (writable && read_only) Refuse(kReadOnly);
  const auto dtype = OfDl(tensor.type);
  if (!dtype.has_value()) Refuse("elements of this DLPack type are none that can be added");
  size_t count = 1;
  for (int i = tensor.dimensions - 1; i >= 0; --i) {
    if (tensor.strides != nullptr && tensor.shape[i] > 1 &&
        tensor.strides[i] != static_cast<int64_t>(count)) {
      Refuse(kNotContiguous);
    }
    count *= static_cast<size_t>(tensor.shape[i]);
  }
  dtype_ = *dtype;
  shape_.assign(tensor.shape, tensor.shape + tensor.dimensions);
  bytes_ = {static_cast<std::byte*>(tensor.data) + tensor.byte_offset, count * SizeOf(*dtype)};
  PyCapsule_SetName(capsule.ptr(), used);  // it is this View's now
  held_ = {managed, [](void* held) {
             auto* const mine = static_cast<Managed*>(held);
             if (mine->deleter != nullptr) mine->deleter(mine);
           }};
}

}  // namespace ml::python
