# SPDX-License-Identifier: Apache-2.0
"""What a part's run amounts to: cases counted from JUnit XML and Bazel's event file."""

import dataclasses
import json
import re
import urllib.parse
import xml.etree.ElementTree as ElementTree

GROUP_SKIPS_ABOVE = 30
SKIP_STATUS = 77  # of a command that cannot run here; it must print `skipped: REASON` too
CLOSING_LINE = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$")


@dataclasses.dataclass
class Skip:
    where: str
    reason: str


@dataclasses.dataclass
class Failure:
    where: str
    why: str
    log: str = ""  # path of a log to print, if there is one


@dataclasses.dataclass
class Result:
    passed: int = 0
    failed: int = 0
    skips: list = dataclasses.field(default_factory=list)
    failures: list = dataclasses.field(default_factory=list)
    xmls: list = dataclasses.field(default_factory=list)  # (name below --junit DIR, path)
    untold_skips: int = 0  # counted by a command that gave no reason
    seconds: float = 0

    @property
    def skipped(self):
        return len(self.skips) + self.untold_skips

    def fail(self, where, why, log="", cases=1):
        self.failed += cases
        self.failures.append(Failure(where, why, log))

    def add(self, other):
        for field in ("passed", "failed", "untold_skips", "seconds"):
            setattr(self, field, getattr(self, field) + getattr(other, field))
        for field in ("skips", "failures", "xmls"):
            getattr(self, field).extend(getattr(other, field))

    def closing_line(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def _skip_reason(case):
    """gtest writes `file:line\\nreason`; the place is dropped, so that equal reasons group."""
    skipped = case.find("skipped")
    if skipped is None:
        return "no reason given"
    lines = (skipped.get("message") or skipped.text or "").strip().splitlines()
    if lines and re.fullmatch(r".+:\d+|\(null\)|unknown file", lines[0].strip()):
        lines = lines[1:]
    said = " ".join(line.strip() for line in lines if line.strip())
    # What gtest adds of traces differs from case to case, and hides that reasons are the same.
    return said.split(" Google Test trace:")[0] or "no reason given"


def count_xml(label, text, log=""):
    """The cases of one test.xml; a gtest binary in which no case ran is a failure."""
    result = Result()
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        result.fail(label, f"its test.xml cannot be read: {error}", log)
        return result
    failed_cases = []
    ran = 0
    for case in root.iter("testcase"):
        name = ".".join(n for n in (case.get("classname"), case.get("name")) if n)
        if case.get("status") == "notrun":
            result.skips.append(Skip(f"{label} {name}", "disabled in its source"))
            continue
        ran += 1
        if case.find("failure") is not None or case.find("error") is not None:
            failed_cases.append(name)
        elif case.get("result") == "skipped" or case.find("skipped") is not None:
            result.skips.append(Skip(f"{label} {name}", _skip_reason(case)))
        else:
            result.passed += 1
    if failed_cases:
        shown = ", ".join(failed_cases[:8]) + (", …" if len(failed_cases) > 8 else "")
        result.fail(label, f"failed: {shown}", log, len(failed_cases))
    elif result.passed == 0:
        skipped = f" ({ran} skipped)" if ran else ""
        result.fail(label, f"no case ran{skipped}; a test that tests nothing must not pass", log)
    return result


def _path(uri):
    parsed = urllib.parse.urlparse(uri)
    return urllib.parse.unquote(parsed.path) if parsed.scheme == "file" else ""


class BazelRun:
    """What one `bazel test` did, read from its --build_event_json_file."""

    def __init__(self, lines):
        self.tests = set()  # labels of test targets
        self.built = {}  # label -> True, or why it was not built
        self.results = {}  # (label, run, shard) -> (attempt, status, {output name: path})
        for line in lines:
            try:
                self._read(json.loads(line))
            except json.JSONDecodeError:
                continue  # the last line of a run that was stopped

    def _read(self, event):
        kind, ident = next(iter(event["id"].items()))
        if kind == "targetConfigured" and "testSize" in event.get("configured", {}):
            self.tests.add(ident["label"])
        elif kind == "targetCompleted" and "aspect" not in ident:
            if event.get("completed", {}).get("success"):
                self.built.setdefault(ident["label"], True)
            else:
                aborted = event.get("aborted", {})
                why = aborted.get("description") or aborted.get("reason") or "did not build"
                self.built[ident["label"]] = why
        elif kind == "testResult" and "testResult" in event:
            outcome = event["testResult"]
            outputs = {output["name"]: _path(output.get("uri", ""))
                       for output in outcome.get("testActionOutput", [])}
            key = (ident["label"], ident.get("run", 1), ident.get("shard", 1))
            attempt = ident.get("attempt", 1)
            if attempt >= self.results.get(key, (0,))[0]:
                self.results[key] = (attempt, outcome.get("status", "NO_STATUS"), outputs)

    def count(self, exit_status, read=lambda path: open(path, encoding="utf-8").read()):
        """The Result; nothing that was asked for and did not pass is left out of it."""
        total = Result()
        for (label, run, shard), (_, status, outputs) in sorted(self.results.items()):
            log = outputs.get("test.log", "")
            one = Result()
            try:
                one = count_xml(label, read(outputs["test.xml"]), log)
                name = label.lstrip("/").replace(":", "/") + f"-{run}-{shard}.xml"
                one.xmls.append((name, outputs["test.xml"]))
            except (KeyError, OSError, UnicodeDecodeError) as error:
                if status == "PASSED":
                    one.fail(label, f"passed without a readable test.xml: {error}", log)
            if status not in ("PASSED", "FLAKY") and not one.failed:
                one.fail(label, f"ended as {status}", log)
            total.add(one)
        told = {label for label, _, _ in self.results}
        for label, built in sorted(self.built.items()):
            if built is not True and label not in told:
                total.fail(label, f"did not build: {built}")
                told.add(label)
        # Built, but no result: a tag filter left it out. Neither: Bazel gave up before it.
        for label in sorted(self.tests - told - set(self.built)):
            total.fail(label, "was not run: Bazel stopped before it")
        if exit_status != 0 and not total.failed:
            total.fail("bazel", f"ended with status {exit_status}; its messages are above")
        if exit_status == 0 and not total.passed and not total.failed and not total.skips:
            total.fail("bazel", "no test ran; check the part's target patterns in tests/tiers")
        return total


def count_command(name, output, exit_status):
    """A command that is not `bazel test`: one case, or as its own closing line says."""
    result = Result()
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    result.skips = [Skip(name, line[len("skipped:"):].strip() or "no reason given")
                    for line in lines if line.startswith("skipped:")]
    closing = CLOSING_LINE.match(lines[-1]) if lines else None
    if closing:
        passed, failed, skipped = (int(n or 0) for n in closing.groups())
        result.passed = passed
        result.untold_skips = max(0, skipped - len(result.skips))
        if failed:
            result.fail(name, f"{failed} cases failed; its output is above", cases=failed)
    elif exit_status == 0 and not result.skips:
        result.passed = 1
    told_that_it_skips = exit_status == SKIP_STATUS and result.skips
    if exit_status != 0 and not result.failed and not told_that_it_skips:
        result.fail(name, f"ended with status {exit_status}; its output is above")
    return result


def command_xml(name, result):
    """A JUnit file for a part that leaves none of its own."""
    cases = result.passed + result.failed + result.skipped
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", name=name, tests=str(cases),
                                   failures=str(result.failed), skipped=str(result.skipped))
    case = ElementTree.SubElement(suite, "testcase", classname=name, name="command",
                                  time=f"{result.seconds:.1f}")
    for failure in result.failures:
        ElementTree.SubElement(case, "failure", message=failure.why)
    if not result.failures and not result.passed:
        for skip in result.skips[:1]:
            ElementTree.SubElement(case, "skipped", message=skip.reason)
    return ElementTree.tostring(root, encoding="unicode")


def skip_listing(skips):
    """One line for each skipped case, or one for each reason when they are many."""
    if len(skips) <= GROUP_SKIPS_ABOVE:
        return [f"  {skip.where}: {skip.reason}" for skip in skips]
    groups = {}
    for skip in skips:
        groups.setdefault(skip.reason, []).append(skip.where)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [f"  {len(where):5} × {reason} (e.g. {where[0]})" for reason, where in ordered]


def seed_lines(log_text):
    return [line for line in log_text.splitlines() if re.search("seed", line, re.IGNORECASE)]


def telling_lines(log_text):
    """Of a gtest log, the cases that failed and the one that never ended; of any other, all."""
    kept, case, whole = [], [], True
    for line in log_text.splitlines():
        if line.startswith("[ RUN      ]"):
            case, whole = [line], False
        elif whole:
            if line and not line.startswith("[----------]"):
                kept.append(line)
        elif line.startswith(("[       OK ]", "[  SKIPPED ]")):
            case, whole = [], True
        else:
            case.append(line)
            if line.startswith("[  FAILED  ]"):
                kept, case, whole = kept + case, [], True
    return kept + case
