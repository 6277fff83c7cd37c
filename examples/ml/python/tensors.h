// SPDX-License-Identifier: Apache-2.0
// The tensor store for Python: ml::Tensors, and a server of them.
#pragma once

#include <pybind11/pybind11.h>

namespace ml::python {

void DefineTensors(pybind11::module_& module);

}  // namespace ml::python
