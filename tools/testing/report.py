# SPDX-License-Identifier: Apache-2.0
"""docs/test-report.md, and the memory of what was green at which commit."""

import json
import os
import subprocess

REPORT = "docs/test-report.md"
CACHE_DIR = ".verbena-cache"
COLUMNS = ("part", "commit", "seconds", "passed", "failed", "skipped")
HEAD = """# Test report

Written by `tools/test --full` and `tools/test --soak PART`: each part's last run, on the commit
that the row names. A part of tier 3 adds up its runs. `-dirty`: with changes not in the commit.

"""


def commit(root):
    """The commit's short name; "unknown" outside git. The report itself may differ."""
    def git(*args):
        done = subprocess.run(["git", "-C", root, *args], capture_output=True, text=True,
                              check=False)
        return done.stdout.strip() if done.returncode == 0 else None
    try:
        name = git("rev-parse", "--short=12", "HEAD")
        changes = git("status", "--porcelain", "--", ".", f":!{REPORT}")
    except OSError:  # no git on this machine
        return "unknown"
    if not name or changes is None:
        return "unknown"
    return name + ("-dirty" if changes else "")


def names_a_tree(name):
    """Whether the name says exactly what was tested, so that a result may be remembered."""
    return name != "unknown" and not name.endswith("-dirty")


def parse(text):
    """The rows of a report, by part."""
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or len(cells) != len(COLUMNS) or not cells[2].isdigit():
            continue
        rows[cells[0]] = dict(zip(COLUMNS, cells[:2] + [int(cell) for cell in cells[2:]]))
    return rows


def render(rows):
    table = [COLUMNS] + [tuple(str(row[c]) for c in COLUMNS) for row in rows.values()]
    widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |" for row in table]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return HEAD + "\n".join(lines) + "\n"


def update(root, part, commit_name, result, add=False):
    """Writes the part's row; `add` sums it up with what the row had before."""
    path = os.path.join(root, REPORT)
    try:
        with open(path, encoding="utf-8") as file:
            rows = parse(file.read())
    except FileNotFoundError:
        rows = {}
    row = dict(part=part, commit=commit_name, seconds=round(result.seconds), passed=result.passed,
               failed=result.failed, skipped=result.skipped)
    if add and part in rows:
        for column in COLUMNS[2:]:
            row[column] += rows[part][column]
    rows[part] = row
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(render(rows))
    return row


class Memory:
    """Which parts were green at which commit, with their counts: a file below .verbena-cache/."""

    def __init__(self, root):
        self._path = os.path.join(root, CACHE_DIR, "green.json")
        try:
            with open(self._path, encoding="utf-8") as file:
                self._green = json.load(file)
        except (FileNotFoundError, json.JSONDecodeError):
            self._green = {}

    def green(self, part, commit_name):
        """{passed, skipped} of the part if it was green at this commit, else None."""
        counts = self._green.get(part)
        if names_a_tree(commit_name) and counts and counts["commit"] == commit_name:
            return counts
        return None

    def set(self, part, commit_name, result):
        if not result.failed and names_a_tree(commit_name):
            self._green[part] = dict(commit=commit_name, passed=result.passed,
                                     skipped=result.skipped)
        else:
            self._green.pop(part, None)
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        with open(self._path + ".new", "w", encoding="utf-8") as file:
            json.dump(self._green, file, indent=1, sort_keys=True)
        os.replace(self._path + ".new", self._path)
