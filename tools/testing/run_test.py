#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The counting and the table reading of tools/test, on small planted inputs."""

import json
import os
import subprocess
import tempfile
import unittest

import report
import results
import run
import tiers

GTEST = """<testsuites tests="4" name="AllTests"><testsuite name="S">
 <testcase name="Good" classname="S" status="run" result="completed"/>
 <testcase name="Bad" classname="S" status="run" result="completed"><failure/></testcase>
 <testcase name="V6" classname="S" status="run" result="skipped">
  <skipped message="a_test.cc:6&#x0A;no IPv6: ::1 is missing"/></testcase>
 <testcase name="DISABLED_Off" classname="S" status="notrun" result="suppressed"/>
</testsuite></testsuites>"""
EMPTY = '<testsuites tests="0" name="AllTests"></testsuites>'
SCRIPT = ('<testsuites><testsuite name="t/x"><testcase name="t/x" status="run"/>'
          '</testsuite></testsuites>')
CRASH = ('<testsuites><testsuite><testcase name="t/x" status="run">'
         '<error message="exited with error code 139"/></testcase></testsuite></testsuites>')
OLD = {"label": "//t:old", "run": 1, "shard": 1, "attempt": 1}


def configured(label, test=True):
    return {"id": {"targetConfigured": {"label": label}},
            "configured": {"testSize": "SMALL"} if test else {}}


def completed(label, success=True):
    event = {"id": {"targetCompleted": {"label": label}}}
    event.update({"completed": {"success": True}} if success
                 else {"aborted": {"reason": "ANALYSIS_FAILURE"}})
    return event


def tested(label, xml, status="PASSED", shard=1, attempt=1):
    outputs = [{"name": "test.log", "uri": "file:///log%20of"}]
    if xml:
        outputs.append({"name": "test.xml", "uri": "file:///" + xml})
    return {"id": {"testResult": {"label": label, "run": 1, "shard": shard, "attempt": attempt}},
            "testResult": {"status": status, "testActionOutput": outputs}}


def count(events, files, exit_status=0):
    lines = [json.dumps(event) for event in events]
    return results.BazelRun(lines).count(exit_status, lambda path: files[path.lstrip("/")])


class XmlTest(unittest.TestCase):
    def test_gtest_cases_are_counted_one_by_one(self):
        result = results.count_xml("//t:a", GTEST)
        self.assertEqual(result.closing_line(), "1 passed, 1 failed, 2 skipped")
        self.assertEqual(result.skips[0].reason, "no IPv6: ::1 is missing")
        self.assertEqual(result.skips[1].reason, "disabled in its source")

    def test_a_script_is_one_case(self):
        self.assertEqual(results.count_xml("//t:s", SCRIPT).closing_line(),
                         "1 passed, 0 failed, 0 skipped")
        self.assertEqual(results.count_xml("//t:s", CRASH).failed, 1)

    def test_traces_do_not_hide_that_reasons_are_the_same(self):
        text = GTEST.replace("is missing", "is missing&#x0A;Google Test trace:&#x0A;a.cc:1: seed 7")
        self.assertEqual(results.count_xml("//t:a", text).skips[0].reason,
                         "no IPv6: ::1 is missing")

    def test_a_binary_that_only_skips_fails(self):
        text = "".join(line for line in GTEST.splitlines(True) if "Good" not in line
                       and "Bad" not in line)
        result = results.count_xml("//t:a", text)
        self.assertEqual(result.closing_line(), "0 passed, 1 failed, 2 skipped")
        self.assertIn("no case ran (1 skipped)", str(vars(result)))

    def test_a_binary_without_cases_fails(self):
        result = results.count_xml("//t:e", EMPTY)
        self.assertEqual(result.failed, 1)
        self.assertIn("no case ran", result.failures[0].why)

    def test_broken_xml_fails(self):
        self.assertEqual(results.count_xml("//t:e", "<testsuites>").failed, 1)


class BazelRunTest(unittest.TestCase):
    def test_shards_and_targets_add_up(self):
        result = count([configured("//t:a"), completed("//t:a"), tested("//t:a", "g", "FAILED"),
                        tested("//t:a", "s", shard=2)], {"g": GTEST, "s": SCRIPT}, 3)
        self.assertEqual(result.closing_line(), "2 passed, 1 failed, 2 skipped")
        self.assertEqual(result.failures[0].log, "/log of")
        self.assertEqual([name for name, _ in result.xmls], ["t/a-1-1.xml", "t/a-1-2.xml"])

    def test_only_the_last_attempt_counts(self):
        result = count([configured("//t:a"), completed("//t:a"),
                        tested("//t:a", "c", "FAILED"), tested("//t:a", "s", "FLAKY", attempt=2)],
                       {"c": CRASH, "s": SCRIPT})
        self.assertEqual(result.closing_line(), "1 passed, 0 failed, 0 skipped")

    def test_a_target_that_did_not_build_fails(self):
        result = count([configured("//t:a"), completed("//t:a", False)], {}, 1)
        self.assertEqual(result.failed, 1)
        self.assertIn("ANALYSIS_FAILURE", result.failures[0].why)

    def test_a_library_that_did_not_build_fails(self):
        result = count([configured("//t:lib", test=False), completed("//t:lib", False),
                        configured("//t:a"), completed("//t:a"), tested("//t:a", "s")],
                       {"s": SCRIPT}, 1)
        self.assertEqual((result.passed, result.failed), (1, 1))

    def test_a_test_that_was_not_reached_fails(self):
        self.assertEqual(count([configured("//t:a")], {}, 8).failed, 1)

    def test_a_test_left_out_by_a_filter_does_not_count(self):
        result = count([configured("//t:a"), completed("//t:a"), tested("//t:a", "s"),
                        configured("//t:b"), completed("//t:b")], {"s": SCRIPT})
        self.assertEqual(result.closing_line(), "1 passed, 0 failed, 0 skipped")

    def test_a_timeout_fails_whatever_its_xml_says(self):
        result = count([configured("//t:a"), completed("//t:a"), tested("//t:a", "s", "TIMEOUT")],
                       {"s": SCRIPT}, 3)
        self.assertEqual(result.failed, 1)

    def test_passed_without_xml_fails(self):
        self.assertEqual(count([configured("//t:a"), tested("//t:a", None)], {}).failed, 1)

    def test_a_run_without_events_fails(self):
        self.assertEqual(count([], {}, 1).failed, 1)
        self.assertEqual(count([], {}, 0).failed, 1)

    def test_a_torn_last_line_is_ignored(self):
        lines = [json.dumps(configured("//t:a")), json.dumps(tested("//t:a", "s"))[:40]]
        self.assertEqual(results.BazelRun(lines).count(8).failed, 1)


class CommandTest(unittest.TestCase):
    def test_its_exit_status_is_one_case(self):
        self.assertEqual(results.count_command("p", "hello\n", 0).passed, 1)
        self.assertEqual(results.count_command("p", "hello\n", 4).failed, 1)

    def test_its_closing_line_counts(self):
        result = results.count_command("p", "skipped: no siw\n7 passed, 2 failed, 3 skipped\n", 1)
        self.assertEqual(result.closing_line(), "7 passed, 2 failed, 3 skipped")
        self.assertEqual(result.skips[0].reason, "no siw")

    def test_a_lying_closing_line_does_not_hide_a_failure(self):
        self.assertEqual(results.count_command("p", "7 passed, 0 failed\n", 1).failed, 1)

    def test_a_command_that_only_skips_did_not_pass(self):
        result = results.count_command("p", "skipped: no mmdebstrap\n", 0)
        self.assertEqual(result.closing_line(), "0 passed, 0 failed, 1 skipped")
        self.assertEqual(results.count_command("p", "skipped: no root\n", 77).failed, 0)
        self.assertEqual(results.count_command("p", "", 77).failed, 1)

    def test_junit_for_a_command(self):
        text = results.command_xml("p", results.count_command("p", "", 3))
        self.assertEqual(results.count_xml("p", text).failed, 1)


class ListingTest(unittest.TestCase):
    def test_many_skips_are_grouped_by_reason(self):
        skips = [results.Skip(f"t{i}", "no IPv6" if i % 4 else "no siw") for i in range(40)]
        lines = results.skip_listing(skips)
        self.assertEqual(len(lines), 2)
        self.assertIn("30 × no IPv6", lines[0])
        self.assertEqual(len(results.skip_listing(skips[:30])), 30)

    def test_seed_lines(self):
        self.assertEqual(results.seed_lines("x\nreplay: --seed=42\n"), ["replay: --seed=42"])


    def test_of_a_gtest_log_only_what_failed_is_told(self):
        log = ("[==========] Running 4 tests\n"
               "[ RUN      ] A.Good\nnoise\n[       OK ] A.Good (1 ms)\n"
               "[ RUN      ] A.Skipped\nnoise\n[  SKIPPED ] A.Skipped (1 ms)\n"
               "[ RUN      ] A.Bad\na.cc:7: Failure\n[  FAILED  ] A.Bad (1 ms)\n"
               "[ RUN      ] A.Dies\nlast words\n")
        self.assertEqual(results.telling_lines(log),
                         ["[==========] Running 4 tests", "[ RUN      ] A.Bad", "a.cc:7: Failure",
                          "[  FAILED  ] A.Bad (1 ms)", "[ RUN      ] A.Dies", "last words"])
        self.assertEqual(results.telling_lines("no gtest\nat all\n"), ["no gtest", "at all"])


class TiersTest(unittest.TestCase):
    TABLE = ("# part\nopt 1 120 bazel test -c opt //...\n"
             "mutations 2 1200 tools/mutate\n  smoke 30 tools/mutate --smoke\n")

    def test_rows_and_smoke(self):
        parts = tiers.parse(self.TABLE)
        self.assertEqual([(p.name, p.tier) for p in parts],
                         [("opt", 1), ("mutations", 2), ("mutations:smoke", 1)])
        self.assertTrue(parts[0].is_bazel_test)
        self.assertEqual([p.deadline_s for p in parts], [1200, 3600, 300])

    def test_selection(self):
        parts = tiers.parse(self.TABLE)
        names = lambda *argv: [p.name for p in run.chosen(run.parse_args(list(argv)), parts)]
        self.assertEqual(names(), ["opt", "mutations:smoke"])
        self.assertEqual(names("--full"), ["opt", "mutations"])
        self.assertEqual(names("--full", "mutations"), ["mutations"])
        self.assertEqual(names("--only", "mutations:smoke"), ["mutations:smoke"])
        self.assertRaises(tiers.TableError, names, "--soak", "opt")
        self.assertEqual(run.parse_args(["--full", "--", "--x"]).bazel_args, ["--x"])

    def test_bad_tables_say_where(self):
        for text in ("opt 1 120\n", "opt 9 1 x\n", "  smoke 1 x\n", "a 1 1 x\n  smoke 1 x\n",
                     "a 1 1 x\na 1 1 x\n"):
            with self.assertRaisesRegex(tiers.TableError, r"^tests/tiers:\d"):
                tiers.parse(text)


class ReportTest(unittest.TestCase):
    def test_rows_survive_and_soak_adds_up(self):
        with tempfile.TemporaryDirectory() as root:
            report.update(root, "opt", "abc", results.Result(passed=5, seconds=10))
            report.update(root, "soak", "abc", results.Result(passed=1, seconds=100), add=True)
            row = report.update(root, "soak", "def", results.Result(passed=2, seconds=50), add=True)
            self.assertEqual((row["commit"], row["seconds"], row["passed"]), ("def", 150, 3))
            with open(os.path.join(root, report.REPORT), encoding="utf-8") as file:
                rows = report.parse(file.read())
            self.assertEqual(rows["opt"]["passed"], 5)
            self.assertEqual(list(rows), ["opt", "soak"])

    def test_memory_is_for_one_clean_commit(self):
        with tempfile.TemporaryDirectory() as root:
            report.Memory(root).set("opt", "abc", results.Result(passed=5))
            self.assertEqual(report.Memory(root).green("opt", "abc")["passed"], 5)
            self.assertIsNone(report.Memory(root).green("opt", "def"))
            report.Memory(root).set("opt", "abc-dirty", results.Result(passed=5))
            self.assertIsNone(report.Memory(root).green("opt", "abc-dirty"))
            self.assertIsNone(report.Memory(root).green("opt", "abc"))

    def test_commit_sees_changes_but_not_the_report(self):
        with tempfile.TemporaryDirectory() as root:
            self.assertEqual(report.commit(root), "unknown")
            git = ["git", "-C", root, "-c", "user.name=t", "-c", "user.email=t@example.org"]
            subprocess.run(git + ["init", "-q"], check=True)
            subprocess.run(git + ["commit", "-q", "--allow-empty", "-m", "one"], check=True)
            os.mkdir(os.path.join(root, "docs"))
            with open(os.path.join(root, report.REPORT), "w", encoding="utf-8") as file:
                file.write("x")
            self.assertRegex(report.commit(root), r"^[0-9a-f]{12}$")
            with open(os.path.join(root, "new"), "w", encoding="utf-8") as file:
                file.write("x")
            self.assertRegex(report.commit(root), r"^[0-9a-f]{12}-dirty$")


class DeadlineTest(unittest.TestCase):
    def test_a_command_is_stopped_with_its_children(self):
        command = ["bash", "-c", "trap 'echo asked; exit 1' INT; read -t 60 <> <(:) & wait"]
        status, output = run.run_command(command, 0.5, True)
        self.assertIsNone(status)
        self.assertIn("asked", output)


if __name__ == "__main__":
    unittest.main()
