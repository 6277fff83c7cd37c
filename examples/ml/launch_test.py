#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ranks as processes: started by the launcher, killed and stopped; meeting in a folder, in etcd."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
LAUNCH = os.path.join(HERE, "launch")
ALL_REDUCE = os.path.join(HERE, "all_reduce")
PATIENCE = 50


def launch(*args):
    return subprocess.run([sys.executable, LAUNCH, *args], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE)


class LauncherTest(unittest.TestCase):
    def test_ranks_of_any_number_and_kind(self):
        for ranks, mib, dtype in ((1, 1, "float32"), (2, 3, "float32"), (3, 0.7, "float16"),
                                  (5, 0.001, "bfloat16")):
            done = launch("-n", str(ranks), "--", ALL_REDUCE, str(mib), "3", dtype)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"{dtype} over {ranks} ranks", done.stdout)
            self.assertIn("all right", done.stdout)

    def test_a_rank_that_fails_is_the_jobs_failure(self):
        program = 'test $VERBENA_ML_RANK != 1 || exit 3; exec sleep 100'
        done = launch("-n", "3", "--patience", "0.1", "--", "sh", "-c", program)
        self.assertEqual(done.returncode, 3)
        self.assertIn("rank 1 ended with 3", done.stderr)
        self.assertIn("rank 2 is killed", done.stderr)

    def test_without_the_launcher(self):
        done = subprocess.run([ALL_REDUCE], stderr=subprocess.PIPE, text=True, check=False,
                              timeout=PATIENCE)
        self.assertEqual(done.returncode, 1)
        self.assertIn("VERBENA_ML_RANK", done.stderr)


class DeathTest(unittest.TestCase):
    """One of four ranks dies while all are in the middle of adding up."""

    RANKS = 4

    def start(self, folder, deadline):
        ranks = []
        for rank in range(self.RANKS):
            environment = dict(os.environ, VERBENA_ML_RANK=str(rank),
                               VERBENA_ML_SIZE=str(self.RANKS), VERBENA_ML_BOARD=f"folder:{folder}",
                               VERBENA_ML_DEADLINE=str(deadline))
            ranks.append(subprocess.Popen([ALL_REDUCE, "16", "1000000"], env=environment, text=True,
                                          stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        for rank in ranks:
            self.assertIn("is ready", rank.stdout.readline())
        return ranks

    def die(self, with_signal, deadline, within, says):
        with tempfile.TemporaryDirectory() as folder:
            ranks = self.start(folder, deadline)
            try:
                begin = time.monotonic()
                ranks[2].send_signal(with_signal)
                for rank in ranks[:2] + ranks[3:]:
                    _, errors = rank.communicate(timeout=PATIENCE)
                    self.assertEqual(rank.returncode, 1, errors)
                    self.assertRegex(errors, says)
                self.assertLess(time.monotonic() - begin, within)
            finally:
                for rank in ranks:
                    rank.kill()
                    rank.communicate()

    def test_killed(self):
        # Its connections break: nobody waits for the deadline.
        self.die(signal.SIGKILL, 40, 40, "is gone")

    def test_stopped(self):
        # Nothing but silence: the deadline of who waits for it, whose end is then everybody's.
        self.die(signal.SIGSTOP, 3, 40, "is gone|nothing came from rank")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@unittest.skipIf(shutil.which("etcd") is None, "etcd is missing; tools/setup installs it")
class EtcdTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder, True)
        self.address = f"127.0.0.1:{free_port()}"
        peers = f"http://127.0.0.1:{free_port()}"
        etcd = subprocess.Popen(
            ["etcd", "--data-dir", folder, "--listen-client-urls", "http://" + self.address,
             "--advertise-client-urls", "http://" + self.address, "--listen-peer-urls", peers,
             "--initial-advertise-peer-urls", peers, "--initial-cluster", "default=" + peers],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(etcd.communicate)
        self.addCleanup(etcd.kill)
        for line in etcd.stderr:
            if "ready to serve client requests" in line:
                return
        self.fail("etcd has ended")

    def test_ranks_meet_in_etcd(self):
        board = f"etcd:{self.address}/job1"
        done = launch("-n", "3", "--board", board, "--", ALL_REDUCE, "1", "3")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("all right", done.stdout)
        again = launch("-n", "3", "--board", board, "--patience", "1", "--", ALL_REDUCE, "1", "3")
        self.assertNotEqual(again.returncode, 0)
        self.assertIn("there already", again.stderr)


if __name__ == "__main__":
    unittest.main()
