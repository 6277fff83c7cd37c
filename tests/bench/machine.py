# SPDX-License-Identifier: Apache-2.0
"""Where the comparisons of tests/bench measure: a network namespace of its own, whose congestion
control they set without touching the machine's, and a second one behind a veth pair."""

import os
import shutil
import subprocess
import sys
import time

MARK = "VERBENA_BENCH_NETNS"  # in the environment of the process that is inside
SYSCTL = "/proc/sys/net/ipv4/tcp_"
DEVICE, SUBNET, MTU = "bench0", "192.0.2.%d", 1500  # RFC 5737: nobody's addresses
CARRIER_S = 10


def unshare():
    """The command that begins a network namespace, or None."""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if shutil.which(command[0]) and subprocess.run(
                command + ["true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return command
    return None


def enter():
    """Starts this program again, inside. Comes back if that is not to be had."""
    command = unshare()
    if command is None or shutil.which("ip") is None:
        print("bench: no network namespace to be had (unshare, ip): the machine's own loopback, "
              "with its own congestion control", file=sys.stderr)
        return
    os.environ[MARK] = "1"
    os.execvp(command[0], command + [sys.executable] + sys.argv)


def read(name):
    try:
        with open(SYSCTL + name, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


class Machine:
    def __init__(self):
        self.inside = os.environ.get(MARK) == "1"
        self.own = read("congestion_control") or "unknown"
        self.now = self.own
        self.far = None  # who keeps the second namespace
        if self.inside:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    def has(self, congestion):
        if congestion in ("", self.now):
            return True
        return self.inside and congestion in read("available_congestion_control").split()

    def choose(self, congestion):
        congestion = congestion or self.own
        if congestion == self.now:
            return
        text = f"echo {congestion} >{SYSCTL}congestion_control"
        subprocess.run(["sh", "-c", text], check=True)
        if self.far is not None:
            subprocess.run(self.there() + ["sh", "-c", text], check=True)
        self.now = congestion

    def there(self):
        return ["nsenter", f"--net=/proc/{self.far.pid}/ns/net"]

    def build_veth(self):
        """The second namespace, and the pair; why not, or None."""
        if not self.inside:
            return "needs network namespaces (unshare(1) and root, or user namespaces)"
        # It lives until its stdin ends, so no longer than this process.
        self.far = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec cat"],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.far.stdout.readline()
        steps = [["ip", "link", "add", DEVICE, "mtu", str(MTU), "type", "veth",
                  "peer", "name", DEVICE, "mtu", str(MTU), "netns", str(self.far.pid)]]
        for number, inside in ((1, []), (2, self.there())):
            steps.append(inside + ["ip", "address", "add", SUBNET % number + "/24", "dev", DEVICE])
            steps.append(inside + ["ip", "link", "set", DEVICE, "up"])
        for step in steps:
            done = subprocess.run(step, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode != 0:
                return f"{' '.join(step)}: {done.stderr.strip()}"
        return self.await_carrier()

    def await_carrier(self):
        """The kernel tells within a second or so that both ends are up, and UCX waits for it."""
        deadline = time.monotonic() + CARRIER_S
        for inside in ([], self.there()):
            state = ""
            while state != "UP":
                if time.monotonic() > deadline:
                    return f"{DEVICE} is {state} after {CARRIER_S} s"
                state = subprocess.run(inside + ["ip", "-br", "link", "show", "dev", DEVICE],
                                       stdout=subprocess.PIPE, text=True,
                                       check=True).stdout.split()[1]
        return None

    def arguments(self, path):
        if path != "veth":
            return []
        return ["--address", SUBNET % 2, "--netns", f"/proc/{self.far.pid}/ns/net"]

    @staticmethod
    def environment(path):
        return dict(os.environ, UCX_NET_DEVICES=DEVICE if path == "veth" else "lo")


def describe():
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {os.cpu_count()} cores, Linux {os.uname().release}"


def load():
    return os.getloadavg()[0]
