# SPDX-License-Identifier: Apache-2.0
"""What the comparisons of tests/bench make of their runs: medians, verdicts, a table."""

import dataclasses
import os
import re
import statistics
import subprocess

import rows

SLOW = 1.6  # × the fastest probe of all: a slow phase
BUSY = 0.20  # of the time a side was ready to run and did not: others are at work
ENOUGH = 3  # runs that count, without which there is no verdict
IDLE_S = 60


@dataclasses.dataclass
class Run:
    value: float
    unit: str
    probe_ns: tuple
    delayed: float
    more: dict

    def trusted(self, fastest_ns):
        return max(self.probe_ns) <= SLOW * fastest_ns and self.delayed <= BUSY


class Series:
    """The runs of one row."""

    def __init__(self):
        self.runs = []
        self.lacks = ""  # why it cannot run here
        self.failed = ""  # how it failed

    def add(self, line):
        more = {k: v for k, v in line.items() if k in ("p99", "client", "server")}
        self.runs.append(Run(line["value"], line["unit"], tuple(line["probe_ns"]),
                             line["delayed"], more))

    @property
    def unusable(self):
        return self.lacks or self.failed

    def trusted(self, fastest_ns):
        return [r for r in self.runs if r.trusted(fastest_ns)]

    def values(self, fastest_ns):
        """Of the runs that count; of all if none does."""
        return [r.value for r in self.trusted(fastest_ns) or self.runs]

    def median(self, fastest_ns):
        return statistics.median(self.values(fastest_ns)) if self.runs else None

    def json(self, fastest_ns):
        return {
            "median": self.median(fastest_ns), "lacks": self.lacks, "failed": self.failed,
            "runs": [dict(value=r.value, probe_ns=r.probe_ns, delayed=r.delayed,
                          trusted=r.trusted(fastest_ns), **r.more) for r in self.runs],
        }


def verdict(claim, ours, other, fastest, rounds):
    """(ratio or value, met: True, False or None, why there is no verdict)."""
    for series, fatal in ((ours, True), (other, claim.against is not None and
                                         claim.against.program not in rows.PEERS)):
        if series is None:
            continue
        if series.failed and fatal:
            return None, False, series.failed
        if series.unusable or not series.runs:
            return None, None, series.unusable or "out of time"
    value = ours.median(fastest)
    if other is not None:
        value /= other.median(fastest)
    needed = min(ENOUGH, rounds)
    for series in (ours, other):
        if series is not None and len(series.trusted(fastest)) < needed:
            return value, None, "the machine was not quiet"
    if claim.bound("")[1] is None:  # only to be seen
        return value, None, ""
    return value, claim.met(ours.runs[0].unit, value), ""


def results(works, bench, rounds, judged):
    fastest = bench.fastest_ns
    out = []
    for work in works:
        ours = bench.series[work.ours]
        unit = ours.runs[0].unit if ours.runs else ""
        claims = []
        for claim in work.claims:
            other = bench.series[claim.against] if claim.against is not None else None
            value, met, why = verdict(claim, ours, other, fastest, rounds if judged else 0)
            if not judged and met is not None and not why:
                met = None
            claims.append({
                "against": dataclasses.asdict(claim.against) if claim.against else None,
                "figure": other.median(fastest) if other is not None else None,
                "value": value, "target": target(claim, unit),
                "met": met, "skipped": why if met is None else "",
                "failed": why if met is False else "",
            })
        out.append({
            "work": work.what, "unit": unit, "ours": ours.median(fastest), "claims": claims,
            "series": [dict(dataclasses.asdict(s), **bench.series[s].json(fastest))
                       for s in work.sources()],
        })
    return out


def target(claim, unit):
    if claim.bound(unit)[1] is None:
        return f"(x {claim.called})"
    return claim.text(unit)


def idle(folder):
    """tests/idle for a minute, as a row."""
    program = os.path.join(folder, "..", "idle", "idle_test")
    met, why = None, ""
    if not os.access(program, os.X_OK):
        why = "not built: bazel build -c opt //tests/idle/..."
    else:
        done = subprocess.run([program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, check=False, timeout=4 * IDLE_S,
                              env=dict(os.environ, VERBENA_IDLE_SECONDS=str(IDLE_S)))
        skipped = re.search(r"^.*strace cannot watch.*$", done.stdout, re.MULTILINE)
        if skipped and done.returncode == 0:
            why = skipped.group().strip()
        else:
            met, why = done.returncode == 0, "" if done.returncode == 0 else done.stdout[-2000:]
    claim = {"against": None, "figure": None, "value": None, "target": "no system call",
             "met": met, "skipped": why if met is None else "",
             "failed": why if met is False else ""}
    return {"work": f"100 idle connections, {IDLE_S} s", "unit": "", "ours": None, "series": [],
            "claims": [claim]}


def figure(value, unit=""):
    if value is None:
        return "-"
    text = f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return f"{text} {unit}".strip()


def lines(row, columns):
    """One for each claim; the first has all peers' figures, the others only what they are about."""
    peers = {}
    for each in row["series"]:
        peers.setdefault(each["program"], each["median"])
    for number, claim in enumerate(row["claims"]):
        first = number == 0
        shown = dict(peers) if first else {}
        if claim["against"]:
            shown[claim["against"]["program"]] = claim["figure"]
        ratio = figure(claim["value"]) if claim["against"] and claim["value"] else ""
        met = {True: "yes", False: "NO", None: "skipped" if claim["skipped"] else "-"}
        # The same row of another of our own rows stands in the target, not in a column.
        yield (row["work"] if first else "", figure(row["ours"], row["unit"]) if first else "",
               *(figure(shown.get(p)) if p in shown else "" for p in
                 columns),
               ratio, claim["target"], met[claim["met"]])


def table(sections, columns):
    heads = ("work", "ours", *(rows.NAMES[c] for c in columns), "ratio", "target", "met?")
    all_lines = [heads]
    for title, rows_of in sections:
        all_lines.append((f"-- {title}",) + ("",) * (len(heads) - 1))
        for row in rows_of:
            all_lines.extend(lines(row, columns))
    return aligned(all_lines)


def aligned(all_lines):
    widths = [max(len(line[i]) for line in all_lines if not line[0].startswith("--"))
              for i in range(len(all_lines[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip()
                     for line in all_lines)


def cost(runs):
    """What a call costs both sides of some runs in the middle: CPU µs, system calls, bytes copied
    above the socket; None: not counted."""
    found = {"cpu_ns": [], "system_calls": [], "bytes_copied": []}
    for run in runs:
        client, server = run.get("client", {}), run.get("server", {})
        calls = client.get("calls", 0)
        for what, values in found.items():
            if calls > 0 and what in client:
                values.append((client[what] + server.get(what, 0)) / calls)
    if not found["cpu_ns"]:
        return None
    middle = {what: statistics.median(values) if values else None
              for what, values in found.items()}
    return (middle["cpu_ns"] / 1000, middle["system_calls"], middle["bytes_copied"])


def costs(sections):
    """A table of what each source that counts calls spends on one."""
    all_lines = [("a call costs", "program", "row", "CPU us", "system calls", "bytes copied")]
    for _, rows_of in sections:
        for row in rows_of:
            what = row["work"]
            for each in row["series"]:
                spent = cost([r for r in each["runs"] if r["trusted"]] or each["runs"])
                if spent is not None:
                    all_lines.append((what, rows.NAMES[each["program"]], each["row"],
                                      *(figure(value) for value in spent)))
                    what = ""
    return "" if len(all_lines) == 1 else "\n" + aligned(all_lines) + "\n\n"


def show(facts, sections, columns, lacks, smoke):
    """Prints it all; the exit status."""
    print(f"{facts['machine']}; cores {facts['cores'][0]} and {facts['cores'][1]}; "
          f"{facts['congestion_control']}; load {facts['load'][0]:.1f} to {facts['load'][1]:.1f}\n"
          f"medians of runs of {facts['seconds']:g} s, {facts['minutes']:.1f} minutes, fastest "
          f"probe {facts['fastest_probe_ns']:.0f} ns")
    print(table(sections, columns))
    print(costs(sections), end="")
    claims = [(row, c) for _, part in sections for row in part for c in row["claims"]]
    if facts["too_late"]:
        lacks = lacks + ["the time was over before all rows had their runs"]
    reasons = {}
    for row, claim in claims:
        if claim["skipped"]:
            reasons.setdefault(claim["skipped"], []).append(f"{row['work']} {claim['target']}")
        if claim["failed"]:
            print(f"failed: {row['work']}: {claim['failed']}")
    for why, what in reasons.items():
        print(f"skipped: {why}: {'; '.join(what)}")
    for lack in lacks:
        print(f"skipped: {lack}")
    if smoke:
        failed = sum(bool(each["failed"]) for _, part in sections for row in part
                     for each in row["series"])
        ran = sum(bool(each["runs"]) for _, part in sections for row in part
                  for each in row["series"])
        passed = ran
    else:
        passed = sum(c["met"] is True for _, c in claims)
        failed = sum(c["met"] is False for _, c in claims)
    skipped = sum(bool(c["skipped"]) for _, c in claims) + len(lacks)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0
