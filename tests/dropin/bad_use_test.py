#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Programs that use devices badly: `bad_use_test.py LIBRARIES PROGRAM EXPECTED`."""

import difflib
import os
import subprocess
import sys

libraries, program, expected = sys.argv[1:]
launcher = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "on_dropin")
try:
    done = subprocess.run([launcher, libraries, os.path.abspath(program), "tcp_lo"], text=True,
                          stdout=subprocess.PIPE, timeout=100, check=False)
except subprocess.TimeoutExpired as e:
    sys.exit(f"does not end; it printed\n{(e.stdout or b'').decode()}")
with open(expected, encoding="utf-8") as f:
    wanted = [line for line in f.read().splitlines() if not line.startswith("#")]
got = done.stdout.splitlines()
differences = list(difflib.unified_diff(wanted, got, expected, "this run", lineterm=""))
print("\n".join(differences) or f"{len(got)} answers as expected")
sys.exit(1 if differences or done.returncode != 0 else 0)
