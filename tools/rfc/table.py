#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/rfc: reads them, counts them, says what is wrong with them.

    tools/rfc/table.py            prints the coverage
    tools/rfc/table.py --write    and puts it into docs/rfc/README.md
"""

import argparse
import collections
import os
import re
import sys

# The checkout: this file's real place, also when Bazel runs a link to it.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
HEAD = "| id | level | what | where | proof |"
RULE = re.compile(r"^([\dA-Z.]+) #(\d+)(?:-(\d+))?$")
# `path` Name: a function, type or constant of the file; or a test's Suite.Case, or Suite.Case/Row
# of one that has a table.
CITE = re.compile(r"`([\w./-]+)` ([A-Za-z_]\w*(?:\.\w+(?:/\w+)?)?)")
CASE = re.compile(r"\bTEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\s*\)")
COMMENT = re.compile(r"//[^\n]*")
LEVELS = {"M": "MUST", "S": "SHOULD"}
BEGIN, END = "<!-- coverage: tools/rfc/table.py --write -->", "<!-- /coverage -->"

Row = collections.namedtuple("Row", "rfc line section first last level what where proof")


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def wanted():
    """{(rfc, section): "MMS"}: what docs/rfc/sentences.txt found in the text."""
    lines = (line.split() for line in read("docs/rfc/sentences.txt").splitlines())
    return {(words[0], words[1]): words[2] for words in lines if words and words[0] != "#"}


def rfcs():
    return sorted({rfc for rfc, _ in wanted()})


def rows(rfc):
    """(rows, complaints) of one table."""
    found, wrong = [], []
    for number, line in enumerate(read(f"docs/rfc/{rfc}.md").splitlines(), 1):
        if not line.startswith("|") or line == HEAD or line.startswith("| ---"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rule = RULE.match(cells[0])
        if len(cells) != 5 or not rule:
            wrong.append(f"{rfc}.md:{number}: no row of `{HEAD}`: {line[:60]}")
            continue
        section, first, last = rule.groups()
        found.append(Row(rfc, number, section, int(first), int(last or first), *cells[1:]))
    return found, wrong


def path_of(name):
    """A cited path: from the root, or for short from fallback/."""
    for path in (name, f"fallback/{name}"):
        if os.path.isfile(os.path.join(ROOT, path)):
            return path
    return None


def cite_errors(cell, test):
    """What is wrong with the citations of a cell; `test`: they must be test cases."""
    for name, what in CITE.findall(cell):
        path = path_of(name)
        if path is None:
            yield f"no file {name}"
        elif test or "." in what:
            text = read(path)
            case, _, row = what.partition("/")
            if tuple(case.split(".")) not in CASE.findall(text):
                yield f"no test case {case} in {path}"
            if row and f'"{row}"' not in text:
                yield f"no row {row} in {path}"
        elif not re.search(rf"\b{what}\b", COMMENT.sub("", read(path))):
            yield f"no {what} in {path}"


def kind(row):
    for excuse in ("exception", "n/a"):
        if row.proof.startswith(f"{excuse}: "):
            return excuse
    return "tested"


def row_errors(row, levels):
    span = levels[row.first - 1 : row.last]
    if len(span) != row.last - row.first + 1 or row.first < 1:
        yield "the RFC has no such sentence"
    elif row.level != "/".join(LEVELS[each] for each in sorted(set(span))):
        yield f"level {row.level}, the RFC says {span}"
    if not row.what.endswith("."):
        yield "a requirement is a sentence"
    if kind(row) == "tested":
        rest = CITE.sub("", row.proof)
        if not CITE.search(row.proof) or rest.strip(", "):
            yield "the proof is neither test cases nor an exception nor n/a"
        if not CITE.search(row.where):
            yield "where is it implemented?"
    elif len(row.proof.split(": ", 1)[1]) < 10:
        yield "an excuse without a reason"
    yield from cite_errors(row.where, False)
    # An excuse may name a test that pins what is done instead.
    yield from cite_errors(row.proof, kind(row) == "tested")


def errors():
    """Everything that is wrong with the tables, one line each."""
    levels = wanted()
    seen = collections.Counter()
    for rfc in rfcs():
        table, wrong = rows(rfc)
        yield from wrong
        for row in table:
            where = f"{rfc}.md:{row.line}: {row.section} #{row.first}"
            for why in row_errors(row, levels.get((rfc, row.section), "")):
                yield f"{where}: {why}"
            for number in range(row.first, row.last + 1):
                seen[rfc, row.section, number] += 1
    for (rfc, section), found in levels.items():
        for number in range(1, len(found) + 1):
            if seen[rfc, section, number] != 1:
                yield f"{rfc}.md: {section} #{number} has {seen[rfc, section, number]} rows"


def coverage():
    """The table of docs/rfc/README.md."""
    levels = wanted()
    out = ["| RFC | MUST | tested | exception | n/a | SHOULD | tested | exception | n/a |",
           "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    total = collections.Counter()
    for rfc in rfcs() + ["all"]:
        count = collections.Counter() if rfc != "all" else total
        for row in rows(rfc)[0] if rfc != "all" else ():
            for level in levels.get((rfc, row.section), "")[row.first - 1 : row.last]:
                count[level, kind(row)] += 1
        cells = []
        for level in "MS":
            parts = [count[level, each] for each in ("tested", "exception", "n/a")]
            cells += [sum(parts), *parts]
        if rfc != "all":
            total += count
        name = f"[{rfc}]({rfc}.md)" if rfc != "all" else rfc
        out.append(f"| {name} | " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(out)


def with_coverage(text):
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{coverage()}\n\n{END}{rest.split(END)[1]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="renew docs/rfc/README.md")
    arguments = parser.parse_args()
    print(coverage())
    if arguments.write:
        text = with_coverage(read("docs/rfc/README.md"))
        with open(os.path.join(ROOT, "docs/rfc/README.md"), "w", encoding="utf-8") as file:
            file.write(text)
    wrong = list(errors())
    for each in wrong:
        print(each, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
