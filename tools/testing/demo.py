#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/demo after its build: runs the programs, and closes with a table.

A server is ready when it says so: each prints a line that ends in its port. Nothing
waits by the clock, and each step has a bound.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

STEP_BOUND_S = 120
READY = re.compile(r"listening on .*?(\d+)\s*$")


class DemoError(Exception):
    pass


def say(text=""):
    print(text, flush=True)


class Server:
    """A server process; ready when its `listening on … PORT` line has come."""

    def __init__(self, command):
        self.name = os.path.basename(command[0]) + " " + command[1]
        self.lines = []
        self.port = None
        self._ready = threading.Event()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        stdin=subprocess.DEVNULL, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            match = READY.search(line)
            if match and self.port is None:
                self.port = int(match.group(1))
                self._ready.set()
        self._ready.set()  # it ended: waiting longer is of no use

    def __enter__(self):
        if not self._ready.wait(STEP_BOUND_S) or self.port is None:
            self.stop()
            raise DemoError(f"{self.name}: never said `listening on … PORT`; it said:\n  " +
                            "\n  ".join(self.lines or ["nothing"]))
        return self

    def finish(self):
        try:
            status = self.process.wait(STEP_BOUND_S)
        except subprocess.TimeoutExpired:
            raise DemoError(f"{self.name}: still runs {STEP_BOUND_S} s after its client "
                            "ended") from None
        self._reader.join()
        if status:
            raise DemoError(f"{self.name}: ended with status {status}:\n  " +
                            "\n  ".join(self.lines))

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __exit__(self, *_):
        self.stop()


def client(command):
    name = os.path.basename(command[0]) + " " + command[1]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_BOUND_S,
                              stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        raise DemoError(f"{name}: did not end within {STEP_BOUND_S} s") from None
    if done.returncode:
        raise DemoError(f"{name}: ended with status {done.returncode}:\n"
                        f"{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def find_number(report, *names):
    """The first of these keys anywhere in a report of `verbena perf --json`."""
    stack = [report]
    while stack:
        node = stack.pop(0)
        if isinstance(node, dict):
            for name in names:
                if isinstance(node.get(name), (int, float)):
                    return node[name]
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return None


def perf_report(text):
    """The last JSON object in the output: one document, or one per line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    for line in reversed(text.splitlines()):
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            continue
    raise DemoError(f"verbena perf: printed no JSON:\n{text}")


def show_devices(verbena):
    say(client([verbena, "devices"]).rstrip())


def ping(verbena):
    """The device that the connection got, and why; and the latency."""
    say("== verbena ping: 10 round trips, contents checked")
    with Server([verbena, "ping", "-s", "-a", "127.0.0.1", "-p", "0", "-C", "10", "-V"]) as server:
        output = client([verbena, "ping", "-c", "-a", "127.0.0.1", "-p", str(server.port),
                         "-C", "10", "-v", "-V"])
        server.finish()
    say(output.rstrip())
    latency = re.search(r"(?:avg|median|p50|mean)\D*([\d.]+)\s*(us|µs|ms)", output)
    over = re.search(r"^connected to \S+ over (.*)$", output, re.M)
    return (over.group(1) if over else "not printed",
            f"{latency.group(1)} {latency.group(2)}" if latency else "not printed")


def perf(verbena):
    say("== verbena perf: RDMA writes of 64 KiB")
    with Server([verbena, "perf", "-s", "-a", "127.0.0.1", "-p", "0"]) as server:
        output = client([verbena, "perf", "-c", "-a", "127.0.0.1", "-p", str(server.port),
                         "--op", "write", "--size", "65536", "--json"])
    report = perf_report(output)
    gigabytes = find_number(report, "gigabytes_per_second", "gb_per_s", "GB_per_s")
    if gigabytes is None:
        bytes_per_s = find_number(report, "bytes_per_second", "bytes_per_s")
        gigabytes = bytes_per_s / 1e9 if bytes_per_s is not None else None
    if gigabytes is None:
        raise DemoError(f"verbena perf --json: has no bytes_per_second: {report}")
    return f"{gigabytes:.2f} GB/s"


def copy_file(file_copy, size_mib, folder):
    say(f"== file_copy: {size_mib} MiB from one process to another")
    source, target = os.path.join(folder, "source"), os.path.join(folder, "target")
    with open(source, "wb") as file:
        for _ in range(size_mib):
            file.write(os.urandom(1 << 20))
    with Server([file_copy, "serve", "--port", "0", "--out", target]) as server:
        start = time.monotonic()
        client([file_copy, "send", f"127.0.0.1:{server.port}", source])
        seconds = time.monotonic() - start
        server.finish()
    return seconds, sha256(source) == sha256(target)


def main(argv):
    parser = argparse.ArgumentParser(prog="tools/demo")
    parser.add_argument("--verbena", required=True)
    parser.add_argument("--file-copy", required=True)
    parser.add_argument("--size", type=int, required=True)
    args = parser.parse_args(argv)
    try:
        say("== verbena devices")
        show_devices(args.verbena)
        device, latency = ping(args.verbena)
        bandwidth = perf(args.verbena)
        with tempfile.TemporaryDirectory(prefix="verbena-demo-") as folder:
            seconds, same = copy_file(args.file_copy, args.size, folder)
    except DemoError as error:
        print(f"tools/demo: {error}", file=sys.stderr)
        return 1
    rows = (("device", device),
            ("file", f"{args.size} MiB"),
            ("seconds", f"{seconds:.2f}"),
            ("rate", f"{args.size * (1 << 20) / seconds / 1e9:.2f} GB/s"),
            ("checksums", "match (SHA-256)" if same else "DIFFER"),
            ("ping", latency),
            ("RDMA write", bandwidth))
    say()
    for name, value in rows:
        say(f"  {name:<12}{value}")
    if not same:
        print("tools/demo: the file that arrived is not the file that was sent", file=sys.stderr)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
