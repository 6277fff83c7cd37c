#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`verbena run`: what it starts, what it refuses, and how it ends."""

import os
import signal
import subprocess
import sys
import unittest

VERBENA = os.path.abspath("tools/verbena/verbena")
ENVIRONMENT = dict(os.environ, VERBENA_LIBRARIES=os.path.abspath("dropin"))


def run(*arguments, **environment):
    return subprocess.run([VERBENA, "run", *arguments], env=ENVIRONMENT | environment, text=True,
                          capture_output=True, timeout=30, check=False)


class Run(unittest.TestCase):
    def test_devices(self):
        done = run("--device", "tcp_lo", "--", "ibv_devices")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("tcp_lo ", done.stdout)
        self.assertEqual(len(done.stdout.splitlines()), 3, done.stdout)

    def test_arguments_and_environment(self):
        done = run("--", "sh", "-c", 'echo "$1" "$LD_PRELOAD"', "sh", "--help", LD_PRELOAD="")
        self.assertIn("--help /", done.stdout)
        self.assertIn("libibverbs.so.1:", done.stdout)

    def test_exit_status_and_signals(self):
        self.assertEqual(run("--", "sh", "-c", "exit 7").returncode, 7)
        self.assertEqual(run("--", "sh", "-c", "kill -TERM $$").returncode, -signal.SIGTERM)

    def test_nothing_to_run(self):
        self.assertEqual(run().returncode, 2)
        self.assertEqual(run("--nonsense", "--", "true").returncode, 2)
        self.assertEqual(run("--", "no-such-program").returncode, 127)

    def test_what_cannot_be_preloaded(self):
        # Debian links ldconfig statically; chage belongs to another group and runs as it.
        for program, why in (("/sbin/ldconfig", "statically"), ("/usr/bin/chage", "LD_PRELOAD")):
            done = run("--", program, "--version")
            self.assertEqual(done.returncode, 126, program)
            self.assertIn(why, done.stderr)


if __name__ == "__main__":
    sys.exit(unittest.main())
