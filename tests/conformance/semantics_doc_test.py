#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/semantics.md: every rule has a source and a case, and every case that it names exists."""

import glob
import os
import re
import unittest

# The checkout: this file's real place, also when Bazel runs a link to it.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
CASE = re.compile(r"TEST_P\(\s*(\w+),\s*(\w+)\s*\)")
NAMED = re.compile(r"`(\w+)\.(\w+)`")
SOURCE = re.compile(r"IBTA \d|RFC \d{4}|\w+\(3\)|\bAPI\b")


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def rules():
    """(line number, [rule, source, case]) of each table row but the heads."""
    for number, line in enumerate(read("docs/semantics.md").splitlines(), 1):
        if line.startswith("| ") and not line.startswith(("| Rule", "| ---")):
            yield number, [cell.strip() for cell in line.strip("|").split("|")]


def cases():
    found = set()
    for path in glob.glob(os.path.join(ROOT, "tests/conformance/*_test.cc")):
        found.update(CASE.findall(read(os.path.relpath(path, ROOT))))
    return found


class SemanticsTest(unittest.TestCase):
    def test_there_are_rules_and_cases(self):
        self.assertGreater(len(list(rules())), 80)
        self.assertGreater(len(cases()), 200)

    def test_every_row_is_complete(self):
        for number, row in rules():
            with self.subTest(line=number):
                self.assertEqual(len(row), 3)
                self.assertTrue(row[0].endswith("."), "a rule is a sentence")
                self.assertRegex(row[1], SOURCE)
                self.assertEqual(len(NAMED.findall(row[2])), 1)

    def test_every_named_case_exists(self):
        known = cases()
        for number, row in rules():
            for name in NAMED.findall(row[2]):
                with self.subTest(line=number):
                    self.assertIn(name, known)

    def test_no_rule_is_stated_twice(self):
        texts = [row[0] for _, row in rules()]
        self.assertEqual(len(texts), len(set(texts)))

    def test_every_suite_backs_a_rule(self):
        named = {NAMED.findall(row[2])[0][0] for _, row in rules()}
        # Of what these hold, the rules are about other objects' suites.
        # Grounds is about the suite itself.
        plain = {"LocalKeys", "OneSidedEntries", "Grounds"}
        self.assertEqual({suite for suite, _ in cases()} - named - plain, set())


if __name__ == "__main__":
    unittest.main()
