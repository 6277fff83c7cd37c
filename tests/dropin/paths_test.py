#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What programs find under `verbena run` that look for devices as files."""

import os
import subprocess
import sys
import tempfile
import unittest

VERBENA = os.path.abspath("tools/verbena/verbena")
DEVICE = "/sys/class/infiniband/tcp_lo"


class Paths(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.environment = {k: v for k, v in os.environ.items() if k != "XDG_RUNTIME_DIR"}
        self.environment |= {"VERBENA_LIBRARIES": os.path.abspath("dropin"),
                             "TMPDIR": self.folder.name}

    def run_under(self, *command):
        return subprocess.run([VERBENA, "run", "--device", "tcp_lo", "--", *command], text=True,
                              env=self.environment, capture_output=True, timeout=30, check=False)

    def node(self):
        """uverbs0, or another one if the machine has other addresses too."""
        found = self.run_under("ls", "/sys/class/infiniband_verbs").stdout.split()
        self.assertEqual(found[0], "abi_version")
        self.assertRegex(found[1], "^uverbs[0-9]+$")
        return found[1]

    def test_lists(self):
        # ls asks with statx(2) and opendir(3).
        node = self.node()
        done = self.run_under("ls", "-d", "/sys/class/infiniband", f"/dev/infiniband/{node}")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = self.run_under("ls", "/sys/class/infiniband")
        self.assertEqual(done.stdout, "tcp_lo\n", done.stderr)
        self.assertEqual(self.run_under("ls", "/dev/infiniband").stdout, f"rdma_cm\n{node}\n")

    def test_texts(self):
        for path, text in ((f"{DEVICE}/ports/1/state", "4: ACTIVE"),
                           (f"{DEVICE}/ports/1/link_layer", "Ethernet"),
                           (f"{DEVICE}/ports/1/gids/0", "0000:0000:0000:0000:0000:ffff:7f00:0001"),
                           (f"{DEVICE}/ports/1/gid_attrs/ndevs/0", "lo"),
                           (f"{DEVICE}/node_guid", "0200:ffff:7f00:0001"),
                           (f"/sys/class/infiniband_verbs/{self.node()}/ibdev", "tcp_lo")):
            self.assertEqual(self.run_under("cat", path).stdout, text + "\n", path)

    def test_nodes(self):
        # What UCX asks before it opens a device.
        look = (f"import os, stat; p = '/dev/infiniband/{self.node()}';"
                "print(stat.S_ISCHR(os.stat(p).st_mode), os.access(p, os.R_OK | os.W_OK),"
                "os.open(p, os.O_RDWR) > 2)")
        done = self.run_under("python3", "-c", look)
        self.assertEqual(done.stdout, "True True True\n", done.stderr)

    def test_other_paths_are_left_alone(self):
        done = self.run_under("sh", "-c", "echo word > $TMPDIR/file; cat $TMPDIR/file; "
                              "ls /sys/class/infinibandx /dev/infiniband_")
        self.assertEqual(done.stdout, "word\n")
        self.assertIn("/sys/class/infinibandx", done.stderr)
        self.assertIn("/dev/infiniband_", done.stderr)
        self.assertNotEqual(done.returncode, 0)

    def test_one_folder_of_this_user(self):
        for _ in range(2):
            self.run_under("ls", "/dev/infiniband")
        made = [n for n in os.listdir(self.folder.name) if n.startswith("verbena-")]
        self.assertEqual(len(made), 1, made)
        mode = os.stat(os.path.join(self.folder.name, made[0])).st_mode
        self.assertEqual(mode & 0o777, 0o700)

    def test_a_folder_of_others_is_not_taken(self):
        self.run_under("ls", "/dev/infiniband")
        made, = (n for n in os.listdir(self.folder.name) if n.startswith("verbena-"))
        self.folder.cleanup()
        os.mkdir(self.folder.name)
        os.mkdir(os.path.join(self.folder.name, made), 0o777)
        os.chmod(os.path.join(self.folder.name, made), 0o777)
        self.run_under("ls", "/dev/infiniband")
        self.assertEqual(os.listdir(os.path.join(self.folder.name, made)), [])


if __name__ == "__main__":
    sys.exit(unittest.main())
