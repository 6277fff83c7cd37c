#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""House rules that no compiler checks: see RULES below. `tools/tidy/tidy.py [ROOT]`."""

import fnmatch
import os
import re
import subprocess
import sys

CXX = (".cc", ".h")
TEXT = CXX + (".py", ".sh", ".bzl", ".bazel", ".md", ".proto", ".txt", ".cmake", ".in", ".yml")
LIBRARY = ("transport/", "connect/", "verbs/", "fallback/", "rpc/", "dropin/")
SKIPPED_FOLDERS = (".git", ".verbena-cache", "__pycache__", "bazel-*", "shims")
MAX_FILE, MAX_TEST_FILE, MAX_FUNCTION, MAX_LINE = 500, 800, 80, 100
ALLOW_FILE = "tools/tidy/allow.txt"

BANNED = (  # (pattern, folders it is banned in, rule, what to do)
    (r"(?<![\w.:>])(?:std::|::)?_?exit\s*\(", LIBRARY, "exit", "return an error instead"),
    (r"(?<![\w.:>])(?:std::|::)?abort\s*\(", LIBRARY, "abort", "return an error instead"),
    (r"\b(?:strcpy|strcat|sprintf|gets)\s*\(", ("",), "strcpy", "use a std::string or snprintf"),
    (r"\bstd::(?:shared_ptr|make_shared)\b", ("",), "shared_ptr", "give the object one owner"),
)
SLEEP = re.compile(r"\bsleep_for\b|\busleep\b|\bnanosleep\b|\bsleep\s*\(|^\s*sleep\s+[0-9.]|"
                   r"[;&|]\s*sleep\s+[0-9.]|\btime\.sleep\b")
NOTE = re.compile(r"\b(?:TODO|FIXME|XXX)\b(?!\(#\d+\))")
FUNCTION_HEAD = re.compile(r"^[A-Za-z_~\[][^;{}#]*\)[^;{}]*\{\s*$|^\s*[A-Za-z_~][^;{}#]*\) "
                           r"(?:const |noexcept |override |final )*\{\s*$")
NOT_A_FUNCTION = re.compile(r"^\s*(?:namespace|class|struct|enum|union|if|for|while|switch|do|else|"
                            r"extern|return|case|default|\}|try|catch)\b")


def is_test(path):
    return path.startswith("tests/") or re.search(r"_test\.(cc|py|sh)$", path) is not None


def function_lengths(lines):
    """(first line, length) of each C++ function, by its opening line and its closing brace.

    Sources are formatted, so a body ends at the first `}` that is indented like its head.
    """
    number = 0
    while number < len(lines):
        line = lines[number]
        if FUNCTION_HEAD.match(line) and not NOT_A_FUNCTION.match(line):
            # A head over several lines starts further left than its last line.
            first = number
            while first > 0 and lines[first].startswith("    ") and lines[first - 1].rstrip() and \
                    not lines[first - 1].rstrip().endswith((";", "}", "{", ":")):
                first -= 1
            close = re.match(r"\s*", lines[first]).group() + "}"
            for end in range(number + 1, len(lines)):
                if lines[end].startswith(close):
                    yield first + 1, end - first + 1
                    break
        number += 1


def strip_comment(line):
    return re.sub(r"//.*", "", line)


class Tidy:
    def __init__(self, root):
        self.root = root
        self.findings = []
        self.files = 0
        self.allowed = {}  # (rule, path) -> reason
        self.used = set()
        self._read_allowed()

    def _read_allowed(self):
        try:
            with open(os.path.join(self.root, ALLOW_FILE), encoding="utf-8") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            fields = line.split(None, 2)
            if len(fields) < 3:
                self.findings.append(f"{ALLOW_FILE}:{number}: allow: needs `rule path reason`; "
                                     "add the reason")
                continue
            self.allowed[(fields[0], fields[1])] = fields[2]

    def report(self, path, number, rule, text):
        for (allowed_rule, pattern) in self.allowed:
            if allowed_rule == rule and fnmatch.fnmatch(path, pattern):
                self.used.add((allowed_rule, pattern))
                return
        self.findings.append(f"{path}:{number}: {rule}: {text}")

    def paths(self):
        for folder, subfolders, names in os.walk(self.root):
            subfolders[:] = sorted(name for name in subfolders if not any(
                fnmatch.fnmatch(name, pattern) for pattern in SKIPPED_FOLDERS))
            for name in sorted(names):
                path = os.path.join(folder, name)
                if not os.path.islink(path):
                    yield os.path.relpath(path, self.root)

    def run(self):
        for path in self.paths():
            with open(os.path.join(self.root, path), "rb") as file:
                data = file.read()
            is_script = data.startswith(b"#!")
            if not (path.endswith(TEXT) or is_script):
                continue
            self.files += 1
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError:
                self.report(path, 1, "utf8", "is not UTF-8; save it as UTF-8")
                continue
            self.check(path, text, is_script)
        for rule, pattern in sorted(set(self.allowed) - self.used):
            self.findings.append(f"{ALLOW_FILE}:1: allow: row `{rule} {pattern}` allows nothing "
                                 "any more; remove it")
        return self.findings

    def check(self, path, text, is_script):
        lines = text.splitlines()
        if text and not text.endswith("\n"):
            self.report(path, len(lines), "newline", "the last line does not end; add a newline")
        code = path.endswith(CXX + (".py", ".sh", ".bzl")) or is_script
        if code and path != "tools/tidy/tidy_test.py":
            self.check_code(path, lines)
        if path.endswith(CXX):
            self.check_cxx(path, lines)
        if re.match(r"#!.*\b(bash|sh)\b", lines[0] if lines else ""):
            done = subprocess.run(["bash", "-n", os.path.join(self.root, path)],
                                  capture_output=True, text=True, check=False)
            if done.returncode:
                self.report(path, 1, "shell", done.stderr.strip())

    def check_code(self, path, lines):
        limit = MAX_TEST_FILE if is_test(path) else MAX_FILE
        if len(lines) > limit:
            self.report(path, len(lines), "file-length", f"{len(lines)} lines, at most {limit}; "
                        "split it by what its parts are for")
        for number, line in enumerate(lines, 1):
            if len(line) > MAX_LINE and "http" not in line and not path.endswith(".bzl"):
                self.report(path, number, "line-length", f"{len(line)} columns, at most {MAX_LINE}")
            if path != "tools/tidy/tidy.py":
                if NOTE.search(line):
                    self.report(path, number, "todo", "a note without a number; write it as "
                                "a note with (#123) of its issue, or do it")
                if is_test(path) and SLEEP.search(strip_comment(line)):
                    self.report(path, number, "sleep", "a test that sleeps is slow or flaky; "
                                "wait for the event")

    def check_cxx(self, path, lines):
        if not lines or lines[0] != "// SPDX-License-Identifier: Apache-2.0":
            self.report(path, 1, "licence", "the first line must be "
                        "`// SPDX-License-Identifier: Apache-2.0`")
        for number, line in enumerate(lines, 1):
            code = re.sub(r'"(?:[^"\\]|\\.)*"', '""', strip_comment(line))
            for pattern, folders, rule, remedy in BANNED:
                if path.startswith(folders) and not (folders == LIBRARY and is_test(path)) \
                        and re.search(pattern, code):
                    self.report(path, number, rule, f"`{line.strip()}`; {remedy}, or add the file "
                                f"and the reason to {ALLOW_FILE}")
        for first, length in function_lengths(lines):
            if length > MAX_FUNCTION:
                self.report(path, first, "function-length", f"{length} lines, at most "
                            f"{MAX_FUNCTION}; give its steps names of their own")


def workspace():
    """The checkout: this file's real place, also when Bazel runs a link to it."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    if not os.path.exists(os.path.join(root, "WORKSPACE")):
        sys.exit(f"tidy: no WORKSPACE in {root}; the test needs the tag `local`, or name the root")
    return root


def main(argv):
    tidy = Tidy(os.path.abspath(argv[0]) if argv else workspace())
    findings = tidy.run()
    for finding in findings:
        print(finding)
    print(f"tidy: {tidy.files} files, {len(findings)} findings")
    # A walk that saw next to nothing is a broken walk, not a clean tree.
    return 1 if findings or tidy.files < 3 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
