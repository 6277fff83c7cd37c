#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/bench/compare on programs that only pretend to measure."""

import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPT = os.path.join(HERE, "compare")


def load():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("compare", SCRIPT)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("compare", loader))
    sys.modules["compare"] = module  # dataclasses look there
    loader.exec_module(module)
    return module


compare = load()


def run(value, probe=60, delayed=0.01):
    return compare.Run(value, "us", (60, probe), delayed)


class SeriesTest(unittest.TestCase):
    def test_a_run_in_a_slow_phase_or_beside_others_does_not_count(self):
        series = compare.Series()
        series.runs = [run(1), run(50, probe=200), run(3), run(60, delayed=0.5), run(2)]
        self.assertEqual(series.values(60), [1, 3, 2])
        self.assertEqual(series.median(60), 2)

    def test_if_none_counts_all_do(self):
        series = compare.Series()
        series.runs = [run(4, probe=200), run(6, delayed=0.9)]
        self.assertEqual(series.trusted(60), [])
        self.assertEqual(series.median(60), 5)


class TargetTest(unittest.TestCase):
    def test_at_most_at_least_and_none(self):
        self.assertTrue(compare.Work("w", "o", "r", at_most=2).met(2.0))
        self.assertFalse(compare.Work("w", "o", "r", at_most=2).met(2.1))
        self.assertTrue(compare.Work("w", "o", "r", at_least=0.5).met(0.5))
        self.assertFalse(compare.Work("w", "o", "r", at_least=0.5).met(0.4))
        self.assertIsNone(compare.Work("w", "o", "r").met(7))


class WholeTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.log = os.path.join(self.folder, "log")

    def program(self, name, values, status=0):
        """One that answers row R with values[R], else 1, and writes down that it was run."""
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"""#!/usr/bin/env python3
import json, sys
with open({self.log!r}, "a") as log:
    log.write({name!r} + " " + sys.argv[1] + "\\n")
print(json.dumps({{"value": {values!r}.get(sys.argv[1], 1.0), "unit": "us",
                   "probe_ns": [60, 61], "delayed": 0}}))
sys.exit({status})
""")
        os.chmod(path, 0o755)

    def compare(self, *args):
        return subprocess.run([sys.executable, SCRIPT, "--programs", self.folder, *args],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              check=False)

    def test_status_table_and_json(self):
        self.program("raw_socket", {"ping_spin": 3.0})
        for ping, status in ((5.9, 0), (6.1, 1)):
            self.program("verbena_bench", {"send_ping": ping})
            done = self.compare("--rounds", "1")
            self.assertEqual(done.returncode, status, done.stdout + done.stderr)
            line = [text for text in done.stdout.splitlines() if "send/receive" in text][0]
            self.assertEqual("NO" in line, status == 1, line)
            self.assertTrue(done.stdout.endswith(f"{3 - status} passed, {status} failed\n"))
            rows = json.loads(self.compare("--rounds", "1", "--json").stdout)["rows"]
            self.assertAlmostEqual(rows[0]["ratio"], ping / 3)
            self.assertEqual(rows[0]["met"], status == 0)
            self.assertIsNone(rows[3]["met"])

    def test_a_smoke_asserts_no_figure_but_runs_every_row_once(self):
        self.program("raw_socket", {})
        self.program("verbena_bench", {"send_ping": 1000})
        done = self.compare("--smoke")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        with open(self.log, encoding="utf-8") as file:
            lines = file.read().splitlines()
        self.assertEqual(len(lines), len(set(lines)))
        for work in compare.WORK:
            self.assertIn("verbena_bench " + work.ours, lines)
            self.assertIn("raw_socket " + work.raw, lines)

    def test_the_rows_alternate(self):
        self.program("raw_socket", {})
        self.program("verbena_bench", {})
        self.assertEqual(self.compare("--rounds", "2").returncode, 0)
        with open(self.log, encoding="utf-8") as file:
            lines = file.read().splitlines()
        half = len(lines) // 2
        self.assertEqual(lines[:half], lines[half:])
        self.assertEqual(lines[:2], ["raw_socket ping_spin", "verbena_bench send_ping"])

    def test_a_program_that_fails_is_named(self):
        self.program("raw_socket", {}, status=3)
        self.program("verbena_bench", {})
        done = self.compare("--smoke")
        self.assertEqual(done.returncode, 1)
        self.assertIn("raw_socket ping_spin ended with status 3", done.stderr)

    def test_programs_that_are_not_built_are_named_with_the_remedy(self):
        done = self.compare("--smoke")
        self.assertEqual(done.returncode, 1)
        self.assertIn("bazel build -c opt //tests/bench/...", done.stderr)


if __name__ == "__main__":
    unittest.main()
