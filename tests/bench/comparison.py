# SPDX-License-Identifier: Apache-2.0
"""What tests/bench/compare and tests/bench/compare_rpc share: the command line, and to run each row
of each program in turn until enough of its runs count."""

import argparse
import dataclasses
import glob
import json
import os
import re
import subprocess
import sys
import time
from typing import Callable, Tuple

import machine
import report
import rows

PATIENCE_S = 40  # for one run; the programs give up after 30
SKIPPED = 77


class Bench:
    """The runs of all sources of some works, under one machine."""

    def __init__(self, works, where, folder, seconds, cores, deadline):
        self.works, self.where, self.folder = works, where, folder
        self.seconds, self.cores, self.deadline = seconds, cores, deadline
        self.late = False
        self.series = {source: report.Series()
                       for work in works for source in work.sources()}

    def run(self, source):
        series = self.series[source]
        folder = self.folder + ("/peers" if source.program in rows.PEERS else "")
        command = [os.path.join(folder, source.program), source.row, "--seconds",
                   str(self.seconds), "--cores", "%d,%d" % self.cores]
        command += ["--wire", source.wire] if source.wire else []
        command += self.where.arguments(source.path)
        self.where.choose(source.congestion)
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True, check=False, timeout=PATIENCE_S,
                                  env=self.where.environment(source.path))
        except subprocess.TimeoutExpired:
            series.failed = "hangs"
            return
        line = done.stdout.strip()
        if done.returncode == SKIPPED and line:
            series.lacks = json.loads(line)["skipped"]
        elif done.returncode != 0:
            why = (done.stderr.strip().splitlines() or [""])[-1]
            why = re.sub(r"^\[.*?\] \[.*?\] *", "", why)  # UCX: when, who
            series.failed = f"ended with status {done.returncode}: {why}"
        else:
            series.add(json.loads(line))

    def measure(self, rounds, at_most):
        """Until every row has `rounds` runs that count, or after `at_most` rounds, or too late."""
        for source, series in self.series.items():
            if not self.where.has(source.congestion):
                series.lacks = f"{source.congestion} is not to be had here"
        for done in range(at_most):
            busy = False
            for source, series in self.series.items():
                # What has all that it needs is not repeated for the others' sake.
                if series.unusable or (done >= rounds and
                                       len(series.trusted(self.fastest_ns)) >= rounds):
                    continue
                if time.monotonic() > self.deadline:
                    self.late = True
                    return
                self.run(source)
                busy = True
            if not busy:
                return

    @property
    def fastest_ns(self):
        return min((min(r.probe_ns) for s in self.series.values() for r in s.runs), default=0.0)


@dataclasses.dataclass(frozen=True)
class Comparison:
    name: str
    doc: str
    programs: Tuple[str, ...]
    columns: Tuple[str, ...]  # programs, beside ours
    works: Callable  # (args, where): [(title, works)], [what cannot be measured]
    minutes: int
    paths: bool = False  # it has --all, which is one hour


def find_folder(comparison, named):
    """Where the programs are: as told, or where `bazel build -c opt` left them."""
    here = os.path.dirname(os.path.realpath(__file__))
    root = os.path.dirname(os.path.dirname(here))
    folders = [named] if named else glob.glob(root + "/bazel-out/*-opt/bin/tests/bench")
    for folder in folders:
        if all(os.access(f"{folder}/{'peers/' if p in rows.PEERS else ''}{p}", os.X_OK)
               for p in comparison.programs):
            return folder
    sys.exit(f"{comparison.name}: {', '.join(comparison.programs)} are not all built; run "
             "`bazel build -c opt //tests/bench/...`, or name their folder with --programs")


def choose_cores(text):
    if text:
        first, second = text.split(",")
        return int(first), int(second)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("bench: only one core may be used, the figures mean nothing", file=sys.stderr)
    return cores[0], cores[min(1, len(cores) - 1)]


def parse_args(comparison, argv):
    parser = argparse.ArgumentParser(prog=comparison.name, description=comparison.doc,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each row that count")
    parser.add_argument("--seconds", type=float, default=0.4, help="of each run, at most 0.5")
    hour = ", with --all 60" if comparison.paths else ""
    parser.add_argument("--minutes", type=float,
                        help=f"in all at most; {comparison.minutes}{hour}")
    if comparison.paths:
        parser.add_argument("--all", action="store_true",
                            help="also a veth pair between namespaces, plain peers, and idling")
    parser.add_argument("--only", metavar="TEXT", help="rows whose name contains it")
    parser.add_argument("--cores", metavar="A,B", help="the two cores, otherwise the first two")
    parser.add_argument("--programs", metavar="DIR", help="where the programs are")
    parser.add_argument("--json", metavar="FILE", help="the same and more, for programs")
    parser.add_argument("--here", action="store_true",
                        help="on this network namespace's loopback, as it is")
    parser.add_argument("--smoke", action="store_true",
                        help="one short run of each program's rows; no figure can fail")
    args = parser.parse_args(argv)
    if not (args.rounds >= 1 and 0 < args.seconds <= 0.5):
        parser.error("--rounds is at least 1, --seconds at most 0.5")
    args.all = comparison.paths and args.all
    if args.minutes is None:
        args.minutes = 60 if args.all else comparison.minutes
    return args


def only(args, parts):
    """Those works that the command line wants."""
    if args.only:
        parts = [(title, [w for w in works if args.only in w.what]) for title, works in parts]
    return [(title, works) for title, works in parts if works]


def run(comparison, argv):
    """The exit status."""
    args = parse_args(comparison, argv)
    folder = find_folder(comparison, args.programs)
    where = machine.Machine()
    if not (args.here or where.inside):
        machine.enter()
    parts, lacks = comparison.works(args, where)
    parts = only(args, parts)
    works = [w for _, part in parts for w in part]
    seconds, rounds, most = (0.05, 1, 1) if args.smoke else (args.seconds, args.rounds,
                                                             3 * args.rounds)
    begin, load = time.monotonic(), machine.load()
    bench = Bench(works, where, folder, seconds, choose_cores(args.cores),
                  begin + args.minutes * 60)
    bench.measure(rounds, most)
    results = [(title, report.results(part, bench, rounds, not args.smoke))
               for title, part in parts]
    if args.all and not args.smoke:
        results.append(("idle", [report.idle(folder)]))
    facts = {
        "machine": machine.describe(), "cores": bench.cores, "congestion_control": where.own,
        "load": [load, machine.load()], "seconds": seconds, "rounds": rounds,
        "minutes": (time.monotonic() - begin) / 60, "fastest_probe_ns": bench.fastest_ns,
        "too_late": bench.late,
    }
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(dict(facts, sections=dict(results)), file, indent=1)
            file.write("\n")
    return report.show(facts, results, comparison.columns, lacks, args.smoke)
