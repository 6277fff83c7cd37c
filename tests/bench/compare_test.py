#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/bench/compare and its likes on programs that only pretend to measure."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPT = os.path.join(HERE, "compare")
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(SCRIPT)))
import allreduce_rows  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
import rpc_rows  # noqa: E402

PING = "8 B send/receive, both poll"


def run(value, probe=60, delayed=0.01):
    return report.Run(value, "us", (60, probe), delayed, {})


def series(*values):
    made = report.Series()
    made.runs = [run(value) for value in values]
    return made


class SeriesTest(unittest.TestCase):
    def test_a_run_in_a_slow_phase_or_beside_others_does_not_count(self):
        some = report.Series()
        some.runs = [run(1), run(50, probe=200), run(3), run(60, delayed=0.5), run(2)]
        self.assertEqual(some.values(60), [1, 3, 2])
        self.assertEqual(some.median(60), 2)

    def test_if_none_counts_the_median_is_of_all(self):
        some = report.Series()
        some.runs = [run(4, probe=200), run(6, delayed=0.9)]
        self.assertEqual(some.trusted(60), [])
        self.assertEqual(some.median(60), 5)


class VerdictTest(unittest.TestCase):
    CLAIM = rows.raw("ping_spin", at_most=2)

    def test_bounds(self):
        spin = series(2.0, 2.0, 2.0)
        for value, met in ((4.0, True), (4.1, False)):
            self.assertEqual(report.verdict(self.CLAIM, series(value, value, value), spin, 60, 7),
                             (value / 2, met, ""))
        self.assertTrue(rows.Claim(at_least=15).met("M/s", 15))
        self.assertFalse(rows.Claim(at_least=15).met("M/s", 14.9))

    def test_ahead_means_less_time_and_more_of_the_rest(self):
        ahead = rows.Claim(ahead=True, against=rows.Source(rows.UCX, "r"))
        for unit, less in (("us", True), ("s/GB", True), ("GB/s", False), ("M/s", False)):
            self.assertEqual(ahead.met(unit, 0.9), less, unit)
            self.assertEqual(ahead.met(unit, 1.1), not less, unit)

    def test_too_few_runs_that_count_are_no_verdict(self):
        noisy = series(2.0, 2.0, 2.0)
        noisy.runs[0].delayed = 0.9
        for pair in ((noisy, series(2, 2, 2)), (series(2, 2, 2), noisy)):
            _, met, why = report.verdict(self.CLAIM, *pair, 60, 7)
            self.assertIsNone(met)
            self.assertIn("not quiet", why)

    def test_who_fails_fails_the_row_unless_it_is_a_peer(self):
        good, bad = series(2.0, 2.0, 2.0), report.Series()
        bad.failed = "ended"
        peers = rows.Claim(ahead=True, against=rows.Source(rows.LIBFABRIC, "r"))
        self.assertIs(report.verdict(self.CLAIM, bad, good, 60, 7)[1], False)
        self.assertIs(report.verdict(self.CLAIM, good, bad, 60, 7)[1], False)
        self.assertEqual(report.verdict(peers, good, bad, 60, 7), (None, None, "ended"))


class RowsTest(unittest.TestCase):
    def test_other_paths_and_wires_are_held_against_their_like(self):
        for work in rows.veth() + rows.foreign():
            for source in work.sources():
                self.assertEqual(source.path, rows.VETH, work.what)
            for claim in work.claims:
                self.assertIsNotNone(claim.against, work.what)
        for work in rows.foreign():
            self.assertEqual(work.ours.wire, "plain")
            for source in work.sources():
                self.assertEqual(source.wire, "plain" if source.program == rows.OURS else "")

    def test_every_section_has_what_its_neighbour_has(self):
        names = {w.what for w in rows.veth()}
        for work in rows.loopback():
            if any(c.against for c in work.claims):
                self.assertIn(work.what, names)


class Pretending(unittest.TestCase):
    SCRIPT, PROGRAMS = SCRIPT, rows.PROGRAMS

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        os.mkdir(os.path.join(self.folder, "peers"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.log = os.path.join(self.folder, "log")

    def program(self, name, values=None, status=0, line=None):
        """One that answers row R with values[R], else 1, and writes down that it was run."""
        path = os.path.join(self.folder, "peers" if name in rows.PEERS else "", name)
        line = line or {"unit": "us", "probe_ns": [60, 61], "delayed": 0}
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"""#!/usr/bin/env python3
import json, sys
with open({self.log!r}, "a") as log:
    log.write({name!r} + " " + sys.argv[1] + "\\n")
print(json.dumps(dict({line!r}, value={values or {}!r}.get(sys.argv[1], 1.0))))
sys.exit({status})
""")
        os.chmod(path, 0o755)

    def programs(self, **values):
        for name in self.PROGRAMS:
            self.program(name, values.get(name))

    def compare(self, *args):
        command = [sys.executable, self.SCRIPT, "--here", "--programs", self.folder, *args]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              check=False)

    def logged(self):
        with open(self.log, encoding="utf-8") as file:
            return file.read().splitlines()


class WholeTest(Pretending):
    def test_status_table_and_json(self):
        file = os.path.join(self.folder, "json")
        for ping, status in ((3.1, 0), (3.2, 1)):
            self.programs(raw_socket={"ping_spin": 3.0}, verbena_bench={"send_ping": ping},
                          libfabric_bench={"send_ping": 4.0}, ucx_bench={"send_ping": 12.0})
            done = self.compare("--rounds", "1", "--only", PING, "--json", file)
            self.assertEqual(done.returncode, status, done.stdout + done.stderr)
            line = [text for text in done.stdout.splitlines() if text.startswith(PING)][0]
            self.assertEqual(line.split()[5:], f"{ping} us 3 4 12 {ping / 3:.3g} <= 1.05 x raw "
                             f"spinning {'NO' if status else 'yes'}".split())
            self.assertTrue(done.stdout.endswith(f"{3 - status} passed, {status} failed, "
                                                 "0 skipped\n"), done.stdout)
            with open(file, encoding="utf-8") as text:
                row, = json.load(text)["sections"]["loopback"]
            self.assertAlmostEqual(row["claims"][0]["value"], ping / 3)
            self.assertEqual([c["met"] for c in row["claims"]], [status == 0, True, True])

    def test_a_peer_that_is_missing_is_skipped_and_said(self):
        self.programs()
        self.program(rows.UCX, status=77, line={"skipped": "no ucx_perftest"})
        done = self.compare("--rounds", "1", "--only", PING)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("skipped: no ucx_perftest: " + PING, done.stdout)
        self.assertTrue(done.stdout.endswith("2 passed, 0 failed, 1 skipped\n"), done.stdout)

    def test_nothing_measured_is_no_success(self):
        self.programs()
        self.program(rows.OURS, status=77, line={"skipped": "no descriptors"})
        done = self.compare("--rounds", "1", "--only", "10,000")
        self.assertEqual(done.returncode, 1)
        self.assertIn("skipped: no descriptors", done.stdout)

    def test_a_smoke_asserts_no_figure_but_runs_every_row_once(self):
        self.programs(verbena_bench={"send_ping": 1000})
        done = self.compare("--smoke")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        lines = self.logged()
        for work in rows.loopback():
            for source in work.sources():
                self.assertIn(f"{source.program} {source.row}", lines)
        self.assertEqual(lines.count("verbena_bench send_ping"), 1)

    def test_the_rows_alternate(self):
        self.programs()
        self.compare("--rounds", "2", "--only", PING)
        lines = self.logged()
        half = len(lines) // 2
        self.assertEqual(lines[:half], lines[half:])
        self.assertEqual(lines[:half], ["raw_socket ping_spin", "libfabric_bench send_ping",
                                        "ucx_bench send_ping", "verbena_bench send_ping"])

    def test_time_that_is_over_is_said(self):
        self.programs()
        done = self.compare("--rounds", "1", "--minutes", "0")
        self.assertEqual(done.returncode, 1)
        self.assertIn("skipped: out of time", done.stdout)

    def test_a_program_that_fails_is_named(self):
        self.programs()
        self.program(rows.RAW, status=3)
        done = self.compare("--smoke", "--only", PING)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"failed: {PING}: ended with status 3", done.stdout)

    def test_programs_that_are_not_built_are_named_with_the_remedy(self):
        done = self.compare("--smoke")
        self.assertEqual(done.returncode, 1)
        self.assertIn("bazel build -c opt //tests/bench/...", done.stderr)


class RpcTest(Pretending):
    SCRIPT, PROGRAMS = os.path.join(HERE, "compare_rpc"), rpc_rows.PROGRAMS
    DEEP = "64 B echo, 512 in flight"

    def test_a_smoke_runs_every_row(self):
        self.programs()
        done = self.compare("--smoke")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        lines = self.logged()
        for work in rpc_rows.WORKS:
            for source in work.sources():
                self.assertIn(f"{source.program} {source.row}", lines)

    def test_verdicts_and_what_a_call_costs(self):
        self.programs(raw_socket={"calls_deep": 4.0}, grpc_bench={"echo_deep": 0.1})
        self.program(rows.RPC, {"echo_deep": 2.0}, line={
            "unit": "M/s", "probe_ns": [60, 61], "delayed": 0,
            "client": {"calls": 1000, "cpu_ns": 500000, "system_calls": 20},
            "server": {"cpu_ns": 250000, "system_calls": 30}})
        done = self.compare("--rounds", "1", "--only", self.DEEP)
        self.assertIn(f"{self.DEEP} own echo_deep 0.75 0.05 -".split(),
                      [line.split() for line in done.stdout.splitlines()])
        self.assertTrue(done.stdout.endswith("2 passed, 1 failed, 0 skipped\n"), done.stdout)

    def test_without_grpc_its_rows_are_skipped(self):
        self.programs()
        self.program(rows.GRPC, status=77, line={"skipped": "built without gRPC"})
        done = self.compare("--rounds", "1", "--only", self.DEEP)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("skipped: built without gRPC: " + self.DEEP, done.stdout)


class AllReduceTest(Pretending):
    SCRIPT = os.path.join(HERE, "compare_allreduce")
    PROGRAMS = allreduce_rows.PROGRAMS
    LARGE = "all-reduce of 64 MiB"

    def test_verdicts_and_what_a_call_costs(self):
        for ours, status in ((50.0, 0), (51.0, 1)):
            self.programs(mpi_bench={"reduce_64m": 60.0})
            self.program(rows.ALLREDUCE, {"reduce_64m": ours}, line={
                "unit": "us", "probe_ns": [60, 61], "delayed": 0,
                "client": {"calls": 10, "cpu_ns": 50000, "system_calls": 20, "bytes_copied": 60},
                "server": {"cpu_ns": 25000, "system_calls": 30, "bytes_copied": 40}})
            done = self.compare("--rounds", "1", "--only", self.LARGE)
            self.assertEqual(done.returncode, status, done.stdout + done.stderr)
            self.assertIn(f"{self.LARGE} own reduce_64m 7.5 5 10".split(),
                          [line.split() for line in done.stdout.splitlines()])

    def test_without_open_mpi_its_rows_are_skipped(self):
        self.programs()
        self.program(rows.MPI, status=77, line={"skipped": "no mpirun"})
        done = self.compare("--smoke")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("skipped: no mpirun: all-reduce of 8 B", done.stdout)


if __name__ == "__main__":
    unittest.main()
