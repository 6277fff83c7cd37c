#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Parameters on a server:  tensor_store.py HOST:7600, where `tensors serve` runs"""
import sys

import numpy
import verbena_ml

store = verbena_ml.TensorStore(sys.argv[1])
weights = numpy.ones((3, 4), numpy.float32)
store.put("layer1/weights", weights)
store.accumulate("layer1/weights", weights)
info = store.get("layer1/weights", weights)  # into the array's own memory
print(f"{info.name} {info.dtype} {info.shape} version {info.version}: {weights.sum()}")
