# SPDX-License-Identifier: Apache-2.0
"""What tests/bench/compare measures, and what it has to come to."""

import dataclasses
from typing import Optional, Tuple

OURS, RAW, LIBFABRIC, UCX = "verbena_bench", "raw_socket", "libfabric_bench", "ucx_bench"
RPC, GRPC = "rpc_bench", "grpc_bench"
VOLUME, CHAIN = "volume", "nbdkit"  # see compare_storage
ALLREDUCE, MPI = "allreduce_bench", "mpi_bench"
PROGRAMS = (OURS, RAW, LIBFABRIC, UCX)
PEERS = (LIBFABRIC, UCX, GRPC, MPI)
NAMES = {OURS: "verbs", RAW: "raw", LIBFABRIC: "libfabric", UCX: "UCX", RPC: "own", GRPC: "gRPC",
         VOLUME: "own", CHAIN: "nbdkit", ALLREDUCE: "own", MPI: "Open MPI"}

LOOPBACK, VETH = "loopback", "veth"


@dataclasses.dataclass(frozen=True)
class Source:
    """A row of one of the programs, and under which conditions it runs."""
    program: str
    row: str
    congestion: str = ""  # "": the machine's own
    wire: str = ""  # see verbena_bench --wire
    path: str = LOOPBACK


@dataclasses.dataclass(frozen=True)
class Claim:
    at_most: Optional[float] = None  # × `against`, or by itself if there is none
    at_least: Optional[float] = None
    ahead: bool = False  # 1 ×, in the direction in which the unit is better
    against: Optional[Source] = None
    called: str = ""  # what `against` is

    def bound(self, unit):
        """("<=" or ">=", number)."""
        if self.ahead:
            return ("<=" if unit.startswith(("us", "s/")) else ">=", 1.0)
        return ("<=", self.at_most) if self.at_most is not None else (">=", self.at_least)

    def text(self, unit):
        sign, number = self.bound(unit)
        if self.against is None:
            return f"{sign} {number:g} {unit}"
        what = self.called or NAMES[self.against.program]
        return f"{sign} {number:g} x {what}"

    def met(self, unit, value):
        sign, number = self.bound(unit)
        return value <= number if sign == "<=" else value >= number


@dataclasses.dataclass(frozen=True)
class Work:
    what: str
    ours: Source
    claims: Tuple[Claim, ...] = ()
    beside: Tuple[Source, ...] = ()  # shown only

    def sources(self):
        """Ours last, behind what it is held against."""
        found = [c.against for c in self.claims if c.against is not None] + list(self.beside)
        return list(dict.fromkeys(found)) + [self.ours]

    def under(self, **conditions):
        """The same, under other conditions; `wire` is our program's alone."""
        def there(source):
            if source is None:
                return None
            wanted = {k: v for k, v in conditions.items() if k != "wire" or source.program == OURS}
            return dataclasses.replace(source, **wanted)
        claims = tuple(dataclasses.replace(c, against=there(c.against)) for c in self.claims)
        return Work(self.what, there(self.ours), claims, tuple(there(s) for s in self.beside))


def raw(row, **bound):
    return Claim(against=Source(RAW, row), called={
        "ping_spin": "raw spinning", "stream_spin": "raw spinning", "cpu_spin": "raw spinning",
        "ping_block": "raw blocking", "stream_block": "raw blocking", "cpu_block": "raw blocking",
        "ping_epoll": "raw in epoll", "units": "raw units", "messages": "raw, a call each",
    }[row], **bound)


def ahead(row, *programs):
    return tuple(Claim(ahead=True, against=Source(program, row)) for program in programs)


def own(row, called, **bound):
    return Claim(against=Source(OURS, row), called=called, **bound)


def work(what, row, *claims, beside=()):
    return Work(what, Source(OURS, row), tuple(claims), tuple(beside))


def bandwidth(congestion, spinning):
    return [w.under(congestion=congestion) for w in (
        work(f"1 MiB writes, {congestion}", "writes",
             raw("stream_spin", at_least=spinning), raw("stream_block", at_least=1.0),
             *ahead("writes", LIBFABRIC, UCX)),
        work(f"1 MiB reads, {congestion}", "reads",
             own("writes", "its writes", at_least=0.95),
             Claim(at_least=1.5, against=Source(LIBFABRIC, "reads")),
             Claim(at_least=3.0, against=Source(UCX, "reads")),
             beside=[Source(RAW, "stream_spin")]))]


LATENCY = [
    work("8 B send/receive, both poll", "send_ping", raw("ping_spin", at_most=1.05),
         *ahead("send_ping", LIBFABRIC, UCX)),
    work("8 B write, polling while it watches", "write_ping", raw("ping_spin", at_most=1.05),
         *ahead("write_ping", LIBFABRIC, UCX)),
    work("8 B write, perftest's loop", "write_ping_perftest", raw("ping_spin", at_most=1.10)),
    work("8 B write, one side never polls", "write_ping_one_polls", raw("ping_spin", at_most=3.2)),
    work("8 B write, neither side ever polls", "write_ping_none_polls",
         raw("ping_spin", at_most=5.0)),
    work("8 B send/receive, channel in own epoll", "event_ping", raw("ping_block", at_most=1.10),
         raw("ping_epoll"), *ahead("event_ping", UCX)),
]
RATES = [
    work("64 B sends, 32 a post", "messages", Claim(at_least=15.0), raw("messages", ahead=True),
         *ahead("messages", LIBFABRIC, UCX)),
    work("64 B sends, one a post", "messages_one", Claim(at_least=10.0)),
    work("64 B sends, post one, poll one", "messages_one_poll", Claim(at_least=5.0)),
    work("64 B writes, 32 a post", "writes_64", Claim(at_least=15.0), raw("messages", ahead=True),
         *ahead("writes_64", LIBFABRIC, UCX)),
    work("4 KiB writes", "writes_4k", raw("units", ahead=True),
         *ahead("writes_4k", LIBFABRIC, UCX)),
    work("4 KiB reads", "reads_4k", raw("units", ahead=True), *ahead("reads_4k", LIBFABRIC, UCX)),
    work("8 B fetch-and-add", "atomics", Claim(at_least=2.0), *ahead("atomics", UCX)),
    work("64 B sends, 64 queue pairs", "messages_64_qps",
         own("messages", "one's", at_least=0.7)),
    work("64 B sends, 8 of 10,000 active", "open_10000",
         own("open_8", "8 of 8", at_least=0.91)),
]
CPU = [
    work("1 MiB writes, CPU, both poll", "cpu_poll", raw("cpu_spin", at_most=1.05)),
    work("1 MiB writes, CPU, both sleep", "cpu_events", raw("cpu_block", at_most=1.05)),
]


def crc(path=LOOPBACK):
    return Work("1 MiB writes with CRC32C", Source(OURS, "writes", wire="crc", path=path),
                (Claim(at_least=0.6, against=Source(OURS, "writes", path=path),
                       called="without"),))


def loopback():
    return LATENCY + bandwidth("reno", 0.90) + bandwidth("bbr", 0.75) + RATES + CPU + [crc()]


def without_absolute(w):
    """On other paths only ratios say something."""
    return dataclasses.replace(w, claims=tuple(c for c in w.claims if c.against is not None))


# What needs more than RFC 5040 has, or receives that the sender can run out of.
BEYOND_IWARP = ("atomics", "messages", "messages_one", "messages_one_poll", "messages_64_qps",
                "open_10000")


def veth():
    rows = LATENCY + bandwidth("reno", 0.90) + bandwidth("bbr", 0.75) + RATES + CPU
    rows = [without_absolute(w) for w in rows]
    return [w.under(path=VETH) for w in rows if w.claims] + [crc(VETH)]


def foreign():
    return [dataclasses.replace(w.under(wire="plain"), what=w.what + ", plain peer")
            for w in veth() if w.ours.row not in BEYOND_IWARP and not w.ours.wire]
