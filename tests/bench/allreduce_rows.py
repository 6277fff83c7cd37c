# SPDX-License-Identifier: Apache-2.0
"""What tests/bench/compare_allreduce measures, and what it has to come to."""

from rows import ALLREDUCE, MPI, Claim, Source, Work

PROGRAMS = (ALLREDUCE, MPI)
COLUMNS = (MPI,)


def times(row, called, speed=None):
    """`speed` x as fast as Open MPI; without it only to be seen."""
    return Claim(against=Source(MPI, row), called=called,
                 at_most=None if speed is None else 1 / speed)


def work(what, row, *claims):
    return Work(what, Source(ALLREDUCE, row), tuple(claims))


WORKS = [
    work("all-reduce of 8 B", "reduce_8", times("reduce_8", "Open MPI", 0.8)),
    work("all-reduce of 64 KiB", "reduce_64k", times("reduce_64k", "Open MPI")),
    work("all-reduce of 1 MiB", "reduce_1m", times("reduce_1m", "Open MPI", 0.8),
         times("reduce_1m_3", "recursive doubling")),
    work("all-reduce of 64 MiB", "reduce_64m", times("reduce_64m", "Open MPI", 1.2),
         times("reduce_64m_2", "reduce + broadcast"), times("reduce_64m_5", "segmented ring")),
]
