#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""All ranks add up their gradients:  examples/ml/launch -n 4 -- /usr/bin/python3 all_reduce.py"""
import asyncio

import numpy
import verbena_ml


async def train(group):
    gradients = numpy.full((1000, 1000), group.rank + 1, numpy.float16)
    await group.all_reduce_async(gradients)  # in place; the loop goes on meanwhile
    print(f"rank {group.rank} of {group.size} has {gradients[0, 0]}, "
          f"{group.counters()['bytes_copied']} bytes copied")

with verbena_ml.Group.from_environment() as ranks:
    asyncio.run(train(ranks))
