# SPDX-License-Identifier: Apache-2.0
"""What tests/bench/compare_rpc measures, and what it has to come to."""

from rows import GRPC, OURS, RAW, RPC, Claim, Source, Work

PROGRAMS = (RPC, RAW, GRPC, OURS)
COLUMNS = (RAW, GRPC, OURS)


def claim(program, row, called, **bound):
    return Claim(against=Source(program, row), called=called, **bound)


def work(what, row, *claims):
    return Work(what, Source(RPC, row), tuple(claims))


WORKS = [
    work("64 B echo, one in flight, spinning", "echo_spin",
         claim(RAW, "trip_spin", "raw spinning, 8 B", at_most=1.5),
         claim(GRPC, "echo_block", "gRPC", at_most=0.1),
         claim(GRPC, "echo_poll", "gRPC polling")),
    work("64 B echo, one in flight, blocking", "echo_block",
         claim(RAW, "trip_block", "raw blocking, 8 B", at_most=1.3),
         claim(GRPC, "echo_block", "gRPC", at_most=0.55)),
    work("64 B echo, by 16 threads", "echo_threads",
         claim(GRPC, "echo_threads", "gRPC", at_least=1.0)),
    work("64 B echo, 512 in flight", "echo_deep",
         claim(RAW, "calls_deep", "by hand, batched", at_least=0.5),
         claim(GRPC, "echo_deep", "gRPC unary", at_least=20.0),
         claim(GRPC, "stream_deep", "gRPC stream", at_least=10.0)),
    work("16 MiB to the caller", "bulk",
         claim(OURS, "writes", "1 MiB writes", at_least=0.9),
         claim(OURS, "writes_16m", "1 MiB writes through 16 MiB"),
         claim(GRPC, "fetch", "gRPC unary", at_least=4.0),
         claim(GRPC, "pieces_64k", "gRPC stream, 64 KiB", at_least=2.5),
         claim(GRPC, "pieces_256k", "gRPC stream, 256 KiB", at_least=2.5),
         claim(GRPC, "pieces_1m", "gRPC stream, 1 MiB", at_least=2.5)),
]
