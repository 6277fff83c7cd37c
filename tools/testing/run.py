#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/test after its set-up: runs parts of tests/tiers and closes with one line of counts."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import report
import results
import tiers

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LOG_LIMIT = 60_000  # characters of what tells in a failing test's log, from its end
STOP_STEPS = ((signal.SIGINT, 30), (signal.SIGTERM, 10), (signal.SIGKILL, 10))

EPILOG = """\
Arguments after -- are given to `bazel test`, e.g. tools/test -- --nocache_test_results.
Options of the set-up: --yes installs missing packages without asking (as CI=true does),
--no-install names them and stops. The last line is `N passed, N failed, N skipped`."""


def say(text=""):
    print(text, flush=True)


def parse_args(argv):
    bazel_args = []
    if "--" in argv:
        at = argv.index("--")
        argv, bazel_args = argv[:at], argv[at + 1:]
    parser = argparse.ArgumentParser(prog="tools/test", epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description="Builds and runs the tests: tier 1 if not told.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="print the parts and stop")
    what.add_argument("--only", metavar="NAME", help="run one part, of any tier")
    what.add_argument("--full", metavar="PART", nargs="?", const="",
                      help="tiers 1 and 2, or one part; not again what is green at this commit")
    what.add_argument("--soak", metavar="PART", help="one part of tier 3; its runs add up")
    parser.add_argument("--junit", metavar="DIR", help="copy the JUnit XML files there")
    args = parser.parse_args(argv)
    args.bazel_args = bazel_args
    return args


def stop(process):
    """Ends the part's process group, asking politely first: Bazel cleans up on SIGINT."""
    for number, patience_s in STOP_STEPS:
        try:
            os.killpg(process.pid, number)
            process.wait(patience_s)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def run_command(command, deadline_s, capture):
    """(exit status or None when stopped, output if captured); output is shown as it comes."""
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE if capture else None,
                               stderr=subprocess.STDOUT if capture else None)
    lines = []

    def pump():
        for raw in process.stdout:
            line = raw.decode("utf-8", "replace")
            lines.append(line)
            sys.stdout.write(line)
            sys.stdout.flush()

    reader = threading.Thread(target=pump, daemon=True) if capture else None
    if reader:
        reader.start()
    try:
        status = process.wait(deadline_s)
    except subprocess.TimeoutExpired:
        stop(process)
        status = None
    except KeyboardInterrupt:
        stop(process)
        raise
    if reader:
        reader.join(10)  # a grandchild may keep the pipe open; do not wait for it for ever
        if not reader.is_alive():
            process.stdout.close()
    return status, "".join(lines)


def run_bazel_part(part, bazel_args, deadline_s):
    handle, events = tempfile.mkstemp(prefix="verbena-events-")
    os.close(handle)
    try:
        command = ["bazel", "test", f"--build_event_json_file={events}", "--keep_going",
                   "--test_output=summary"]
        if not sys.stderr.isatty():
            command.append("--show_progress_rate_limit=5")
        command += [*bazel_args, *part.command[2:]]
        status, _ = run_command(command, deadline_s, False)
        with open(events, encoding="utf-8") as file:
            run = results.BazelRun(file)
    finally:
        os.unlink(events)
    return run.count(status if status is not None else 1), status


def show_failures(result):
    for failure in result.failures:
        say(f"--- {failure.where}: {failure.why}")
        if not failure.log:
            continue
        try:
            with open(failure.log, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError as error:
            say(f"log {failure.log}: cannot be read: {error.strerror}")
            continue
        telling = "\n".join(results.telling_lines(text)).rstrip()
        if len(telling) > LOG_LIMIT:
            say(f"(the first {len(telling) - LOG_LIMIT} characters are left out)")
        say(telling[-LOG_LIMIT:])
        say(f"the whole log: {failure.log}")
        for line in results.seed_lines(text):
            say(f"seed of {failure.where}: {line.strip()}")


def run_part(part, bazel_args, bound_s=None):
    deadline_s = min(part.deadline_s, bound_s or part.deadline_s)
    say(f"=== {part.name}: {' '.join(part.command)}  (about {part.seconds} s, "
        f"stopped after {deadline_s} s)")
    start = time.monotonic()
    if part.is_bazel_test:
        result, status = run_bazel_part(part, bazel_args, deadline_s)
    else:
        try:
            status, output = run_command(part.command, deadline_s, True)
            result = results.count_command(part.name, output, 1 if status is None else status)
        except OSError as error:
            status, result = 127, results.Result()
            result.fail(part.name, f"cannot start {part.command[0]}: {error.strerror}; "
                        "correct its command in tests/tiers")
    result.seconds = time.monotonic() - start
    if status is None:
        result.fail(part.name, f"stopped after {deadline_s} s; if it needs that long, "
                    "raise its seconds in tests/tiers")
    show_failures(result)
    say(f"=== {part.name}: {result.seconds:.0f} s, {result.closing_line()}")
    return result


def copy_junit(directory, part, result):
    base = os.path.join(directory, part.name.replace(":", "-"))
    for name, path in result.xmls:
        target = os.path.join(base, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(path, target)  # bazel's files are read-only, ours need not be
    if not part.is_bazel_test:
        os.makedirs(base, exist_ok=True)
        with open(os.path.join(base, "command.xml"), "w", encoding="utf-8") as file:
            file.write(results.command_xml(part.name, result))


def chosen(args, parts):
    if args.only:
        return [tiers.find(parts, args.only)]
    if args.soak:
        part = tiers.find(parts, args.soak)
        if part.tier != 3:
            raise tiers.TableError(f"part {part.name}: is of tier {part.tier}, not 3; use --only")
        return [part]
    if args.full:
        return [tiers.find(parts, args.full)]
    if args.full is not None:
        return [p for p in parts if p.tier <= 2 and not p.smoke]
    return [p for p in parts if p.tier == 1]


def close(total, red):
    if total.skipped:
        say(f"{total.skipped} skipped:")
        for line in results.skip_listing(total.skips):
            say(line)
    if red:
        say("failed parts: " + ", ".join(red))
        for failure in total.failures:
            say(f"  {failure.where}: {failure.why}")
    say(total.closing_line())
    return 1 if red or total.failed else 0


def main(argv):
    args = parse_args(argv)
    try:
        with open(os.path.join(ROOT, "tests", "tiers"), encoding="utf-8") as file:
            parts = tiers.parse(file.read())
        if args.list:
            say(tiers.listing(parts))
            return 0
        selection = chosen(args, parts)
    except (OSError, tiers.TableError) as error:
        print(f"tools/test: {error}", file=sys.stderr)
        return 2
    full = args.full is not None
    memory = report.Memory(ROOT)
    total, red = results.Result(), []
    for part in selection:
        commit = report.commit(ROOT) if full or args.soak else ""
        green = memory.green(part.name, commit) if full else None
        if green:
            say(f"=== {part.name}: green at {commit} already ({green['passed']} passed, "
                f"{green['skipped']} skipped; counted below), see {report.REPORT}")
            total.add(results.Result(passed=green["passed"], untold_skips=green["skipped"]))
            continue
        result = run_part(part, args.bazel_args, tiers.FULL_BOUND_S if full else None)
        total.add(result)
        if result.failed:
            red.append(part.name)
        if args.junit:
            copy_junit(args.junit, part, result)
        if full:
            memory.set(part.name, commit, result)
        if full or args.soak:
            report.update(ROOT, part.name, commit, result, add=bool(args.soak))
    return close(total, red)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("tools/test: interrupted", file=sys.stderr)
        sys.exit(130)
