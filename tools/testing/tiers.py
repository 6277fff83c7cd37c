# SPDX-License-Identifier: Apache-2.0
"""Reads tests/tiers: the parts of tools/test and what each one runs."""

import dataclasses
import shlex

FULL_BOUND_S = 3600  # with --full no part may take longer than an hour


class TableError(Exception):
    pass


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    tier: int
    seconds: int
    command: tuple
    smoke: bool = False

    @property
    def is_bazel_test(self):
        return self.command[:2] == ("bazel", "test")

    @property
    def deadline_s(self):
        bound = max(10 * self.seconds, 300)
        return bound if self.tier == 1 else min(bound, FULL_BOUND_S)


def parse(text, where="tests/tiers"):
    """The parts in the order of the table; a smoke row becomes the tier 1 part NAME:smoke."""
    parts = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        at = f"{where}:{number}"
        fields = line.split(None, 2 if line[0].isspace() else 3)
        if line[0].isspace():
            if len(fields) != 3 or fields[0] != "smoke":
                raise TableError(f"{at}: an indented line is `smoke SECONDS COMMAND`: {line!r}")
            if not parts or parts[-1].tier == 1:
                raise TableError(f"{at}: a smoke line must follow a part of tier 2 or 3")
            name, tier, seconds, command = parts[-1].name + ":smoke", "1", fields[1], fields[2]
        elif len(fields) != 4:
            raise TableError(f"{at}: a part has four columns, part tier seconds command: {line!r}")
        else:
            name, tier, seconds, command = fields
        if tier not in ("1", "2", "3") or not seconds.isdigit():
            raise TableError(f"{at}: tier must be 1, 2 or 3 and seconds a number: {line!r}")
        if name in [p.name for p in parts]:
            raise TableError(f"{at}: part {name} stands in the table twice; rename one")
        smoke = name.endswith(":smoke")
        parts.append(Part(name, int(tier), int(seconds), tuple(shlex.split(command)), smoke))
    return parts


def find(parts, name):
    for part in parts:
        if part.name == name:
            return part
    known = ", ".join(p.name for p in parts)
    raise TableError(f"part {name}: not in tests/tiers; it has {known}")


def listing(parts):
    rows = [("part", "tier", "seconds", "command")]
    rows += [(p.name, str(p.tier), str(p.seconds), shlex.join(p.command)) for p in parts]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([c.ljust(w) for c, w in zip(row, widths)] + [row[3]])
                     for row in rows)
