#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The symbols of the drop-in libraries and those of rdma-core: `symbols_test.py OURS THEIRS...`.

Ours must define every name and version that theirs (the system's library of that name)
defines, and nothing else: of other names only versions that another rdma-core gave to a
private one, which theirs has under its own.
"""

import os
import re
import subprocess
import sys

PRIVATE = re.compile(r"IBVERBS_PRIVATE_\d+")
# What rdma-core 34 to 65 had among their private symbols, and Debian 12's has not.
OTHERS = {"ibv_get_fw_ver", "ibv_cmd_query_device", "ibv_cmd_query_device_ex"}


def symbols(library):
    """{(name, version, is it the default)} of what `library` defines."""
    text = subprocess.run(["objdump", "-T", library], check=True, capture_output=True,
                          text=True).stdout
    found = set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 6 or fields[3] == ".tbss" or "*UND*" in fields or "*ABS*" in fields:
            continue
        found.add((fields[-1], fields[-2].strip("()"), not fields[-2].startswith("(")))
    return found


def system_library(name):
    text = subprocess.run(["/sbin/ldconfig", "-p"], check=True, capture_output=True, text=True)
    for line in text.stdout.splitlines():
        if line.strip().startswith(name + " "):
            return line.split()[-1]
    sys.exit(f"{name} is not installed; run tools/setup")


def soname(library):
    text = subprocess.run(["readelf", "-d", library], check=True, capture_output=True, text=True)
    return re.search(r"SONAME.*\[(.*)\]", text.stdout).group(1)


def stays(library):
    """Whether `library` is mapped when it was closed."""
    program = ("import ctypes, _ctypes, os, sys; path = os.path.realpath(sys.argv[1]); "
               "_ctypes.dlclose(ctypes.CDLL(path)._handle); "
               "sys.exit(0 if path in open('/proc/self/maps').read() else 1)")
    folder = os.path.dirname(os.path.abspath(library))
    return subprocess.run([sys.executable, "-c", program, library], check=False,
                          env=dict(os.environ, LD_LIBRARY_PATH=folder)).returncode == 0


def check(ours_path):
    name = os.path.basename(ours_path)
    ours, theirs = symbols(ours_path), symbols(system_library(name))
    findings = []
    if soname(ours_path) != name:
        findings.append(f"SONAME {soname(ours_path)}")
    if not stays(ours_path):
        findings.append("dlclose unmaps it, with the service running in it")
    findings += [f"missing: {s}" for s in sorted(theirs - ours)]
    private = {n for n, v, _ in theirs if PRIVATE.fullmatch(v)} | OTHERS
    findings += [f"too much: {s}" for s in sorted(ours - theirs)
                 if not (PRIVATE.fullmatch(s[1]) and s[0] in private)]
    print(f"{name}: {len(theirs)} symbols of rdma-core, {len(ours)} of ours, "
          f"{len(findings)} findings")
    for finding in findings:
        print("  " + finding)
    return not findings and len(theirs) > 50


if __name__ == "__main__":
    sys.exit(0 if all([check(path) for path in sys.argv[1:]]) else 1)
