# SPDX-License-Identifier: Apache-2.0
"""What tests/bench/compare_storage loads: fio on nbdkit, which gets the blocks of one file from
another process over TCP; by our plugin from a volume_server, or by nbdkit's own two plugins."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zlib

from rows import CHAIN, VOLUME

FILE_BYTES = 256 << 20
PATIENCE_S = 30
THREADS = "16"  # of nbdkit, for each connection; its own default
PROBE = bytes(1 << 20)


def lacks():
    """What is missing, or None."""
    missing = [c for c in ("nbdkit", "fio", "taskset") if shutil.which(c) is None]
    return f"{', '.join(missing)} missing: tools/setup --full" if missing else None


def probe(core):
    """ns of a piece of work whose only variable is the machine."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    best = min(timed(lambda: zlib.crc32(PROBE)) for _ in range(5))
    os.sched_setaffinity(0, before)
    return best


def timed(work):
    begin = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - begin


class Stack:
    """The processes between fio and the file: one beside fio, one beside the file."""

    def __init__(self, folder, name, near, far, core):
        self.uri = f"nbd+unix:///?socket={folder}/{name}"
        self.core = core
        self.near, self.far = near, far

    def cpu_ns(self):
        return [cpu_ns(self.near.pid), cpu_ns(self.far.pid)]

    def fio(self, rw, block, depth, seconds):
        """fio's account of its reads."""
        done = subprocess.run(
            ["taskset", "-c", str(self.core), "fio", "--name=load", "--ioengine=nbd",
             f"--uri={self.uri}", "--thread=1", f"--rw={rw}", f"--bs={block}",
             f"--iodepth={depth}", "--time_based", f"--runtime={round(seconds * 1000)}ms",
             "--lat_percentiles=1", "--output-format=json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
            timeout=PATIENCE_S)
        if done.returncode != 0:
            raise RuntimeError(f"fio: {(done.stderr.strip().splitlines() or [''])[-1]}")
        return json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]["read"]

    def system_calls(self, load):
        """[near, far] while `load` runs, or None: strace cannot watch."""
        if shutil.which("strace") is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            files = [os.path.join(folder, name) for name in ("near", "far")]
            watchers = []
            for file, process in zip(files, (self.near, self.far)):
                watchers.append(subprocess.Popen(
                    ["strace", "-f", "-c", "-o", file, "-p", str(process.pid)],
                    stderr=subprocess.PIPE, text=True))
                # It says so when it has attached; else why it cannot, and ends.
                watchers[-1].stderr.readline()
            done = load()
            counts = []
            for file, watcher in zip(files, watchers):
                watcher.send_signal(signal.SIGINT)
                watcher.communicate()
                found = re.search(r"^\S+\s+\S+\s+\S+\s+(\d+)\s.*total$", read(file), re.MULTILINE)
                counts.append(int(found.group(1)) if found else None)
        return None if None in counts else [count / done for count in counts]


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def cpu_ns(pid):
    """Of all its threads, also those that have ended."""
    fields = read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1e9 / os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Stacks:
    def __init__(self, programs, cores):
        self.folder = tempfile.mkdtemp(prefix="vs", dir="/tmp")
        self.processes = []
        try:
            self.start_all(programs, cores)
        except BaseException:
            self.end()
            raise

    def start_all(self, programs, cores):
        volumes = os.path.join(self.folder, "volumes")
        os.mkdir(volumes)
        disk = os.path.join(volumes, "disk")
        with open(disk, "wb") as file:
            for _ in range(FILE_BYTES >> 20):
                file.write(os.urandom(1 << 20))
        near, far = cores
        server = self.start(far, [f"{programs}/volume_server", "--buffered", "--listen",
                                  "127.0.0.1:0", volumes], stdout=subprocess.PIPE)
        port = None
        for line in server.stdout:
            if "on port" in line:
                port = line.split()[-1]
                break
        ours = self.nbdkit(near, "own", [f"{programs}/nbdkit-verbena-plugin.so",
                                         f"server=127.0.0.1:{port}", "disk"])
        # Both of nbdkit's are on the same file, through the same page cache.
        port = str(free_port())
        file_side = self.start(far, ["nbdkit", "-f", "-t", THREADS, "-i", "127.0.0.1", "-p", port,
                                     "-P", self.folder + "/pid", "file", disk])
        self.await_file(self.folder + "/pid", file_side)
        theirs = self.nbdkit(near, "chain", ["nbd", "hostname=127.0.0.1", f"port={port}"])
        self.by_name = {VOLUME: Stack(self.folder, "own", ours, server, near),
                        CHAIN: Stack(self.folder, "chain", theirs, file_side, near)}

    def start(self, core, words, **options):
        self.processes.append(subprocess.Popen(["taskset", "-c", str(core)] + words,
                                               stdin=subprocess.DEVNULL, text=True, **options))
        return self.processes[-1]

    def nbdkit(self, core, name, words):
        path = os.path.join(self.folder, name)
        process = self.start(core, ["nbdkit", "-f", "-t", THREADS, "-U", path] + words)
        self.await_file(path, process)
        return process

    @staticmethod
    def await_file(path, process):
        end = time.monotonic() + PATIENCE_S
        while not os.path.exists(path):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{process.args[3]} does not serve")
            os.sched_yield()

    def end(self):
        for process in self.processes:
            process.terminate()
            process.wait()
        shutil.rmtree(self.folder)
