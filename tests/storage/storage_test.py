#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Programs that nobody here wrote on volumes of a volume_server, through nbdkit and our plugin:
nbdcopy, qemu-img, qemu-io, fio. A server that is killed while they write; a disk that is full.

VERBENA_STORAGE=long makes it longer."""

import filecmp
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

LONG = os.environ.get("VERBENA_STORAGE") == "long"
MIB = 1 << 20
PATIENCE_S = 60


def program(name):
    path = "examples/volume/" + name
    return os.path.abspath(path if os.path.exists(path) else "bazel-bin/" + path)


def needs(*commands):
    missing = [c for c in commands if shutil.which(c) is None]
    return unittest.skipIf(missing, f"{', '.join(missing)} missing; tools/setup --full has them")


def run(*words, **options):
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, timeout=PATIENCE_S * (4 if LONG else 1), **options)


class Server:
    def __init__(self, folder, *options, around=(), port=0):
        words = [*around, program("volume_server"), "--listen", f"127.0.0.1:{port}", *options]
        self.words, self.folder = words, folder
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.words + [self.folder], stdout=subprocess.PIPE,
                                        text=True)
        for line in self.process.stdout:
            found = re.search(r"on port (\d+)", line)
            if found:
                self.port = int(found.group(1))
                at = self.words.index("--listen") + 1
                self.words[at] = f"127.0.0.1:{self.port}"
                return
        raise AssertionError("the server does not serve")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


class Nbdkit:
    def __init__(self, folder, port, *words):
        self.socket = os.path.join(folder, "nbd.sock")
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        self.uri = f"nbd+unix:///?socket={self.socket}"
        self.process = subprocess.Popen(
            ["nbdkit", "-f", "-U", self.socket, program("nbdkit-verbena-plugin.so"),
             f"server=127.0.0.1:{port}", *words], stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + PATIENCE_S
        while not os.path.exists(self.socket):
            if time.monotonic() > end or self.process.poll() is not None:
                raise AssertionError("nbdkit does not serve: " + self.process.stderr.read())
            os.sched_yield()

    def end(self):
        self.process.terminate()
        _, said = self.process.communicate()
        return said


class Storage(unittest.TestCase):
    def setUp(self):
        # Short: the path of a socket has at most 107 characters.
        self.folder = tempfile.mkdtemp(prefix="vb", dir="/tmp")
        self.volumes = os.path.join(self.folder, "volumes")
        os.mkdir(self.volumes)
        self.addCleanup(shutil.rmtree, self.folder)

    def serve(self, *options, **more):
        server = Server(self.volumes, *options, **more)
        self.addCleanup(server.kill)
        return server

    def nbdkit(self, port, *words):
        kit = Nbdkit(self.folder, port, *words)
        self.addCleanup(lambda: kit.process.poll() is None and kit.end())
        return kit

    def volume(self, server, *words):
        done = run(program("volume"), "--server", f"127.0.0.1:{server.port}", *words)
        return done.returncode, done.stdout

    def path(self, name):
        return os.path.join(self.folder, name)

    def random_file(self, name, size):
        with open(self.path(name), "wb") as file:
            file.write(os.urandom(size))
        return self.path(name)

    def ok(self, done):
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    @needs("nbdkit", "nbdcopy", "nbdinfo")
    def test_copied_in_and_out(self):
        size = (256 if LONG else 24) * MIB
        source = self.random_file("source", size)
        server = self.serve()
        self.assertEqual(self.volume(server, "create", "disk", str(size))[0], 0)
        kit = self.nbdkit(server.port, "volume=disk")
        self.ok(run("nbdcopy", source, kit.uri))
        self.ok(run("nbdcopy", kit.uri, self.path("copy")))
        self.assertTrue(filecmp.cmp(source, self.path("copy"), shallow=False))
        self.assertIn("can_multi_conn: true", self.ok(run("nbdinfo", kit.uri)))

    @needs("nbdkit", "nbdinfo")
    def test_export_names_and_those_that_are_not_there(self):
        server = self.serve()
        self.volume(server, "create", "first", "1M")
        self.volume(server, "create", "second", "2M")
        kit = self.nbdkit(server.port)
        listed = self.ok(run("nbdinfo", "--list", kit.uri))
        self.assertIn('export="first"', listed)
        second = kit.uri.replace("///", "///second")
        self.assertEqual(self.ok(run("nbdinfo", "--size", second)).strip(), str(2 * MIB))
        self.assertNotEqual(run("nbdinfo", kit.uri.replace("///", "///third")).returncode, 0)
        self.assertIn("there is no volume third", kit.end())

    @needs("nbdkit", "qemu-img", "qemu-io")
    def test_qemu(self):
        source = self.random_file("source", 16 * MIB)
        server = self.serve()
        self.volume(server, "copy", source, ":disk")
        kit = self.nbdkit(server.port, "volume=disk")

        def compare():
            return run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, kit.uri)

        self.assertIn("identical", self.ok(compare()))
        # Each to both: data, zeros, zeros that may be holes, less than a block, a trim.
        steps = ("write -P 0x5a 1M 128k", "write -z 2M 64k", "write -z -u 3M 64k",
                 "write -P 1 4000 512", "write -P 7 8191k 2k", "flush")
        for target in (source, kit.uri):
            words = [word for step in steps for word in ("-c", step)]
            self.ok(run("qemu-io", "-f", "raw", *words, target))
        self.assertIn("identical", self.ok(compare()))
        self.ok(run("qemu-io", "-f", "raw", "-d", "unmap", "-c", "discard 8M 1M", "-c",
                    "read -P 0 8M 1M", kit.uri))
        self.assertEqual(compare().returncode, 1)
        self.assertIn("mismatch", compare().stdout)

    @needs("nbdkit", "fio")
    def test_killed_while_fio_writes_and_verifies(self):
        """Expect: fio sees no error, and reads all that it wrote."""
        size = (256 if LONG else 32) * MIB
        server = self.serve()
        self.volume(server, "create", "disk", str(size))
        kit = self.nbdkit(server.port, "volume=disk")
        fio = subprocess.Popen(
            ["fio", "--name=verify", "--ioengine=nbd", f"--uri={kit.uri}", "--thread=1",
             "--rw=randwrite", "--bs=16k", "--iodepth=16", "--fsync=64",
             f"--size={size}", f"--io_size={size * 2}", "--verify=crc32c", "--do_verify=1",
             "--verify_state_save=0",  # a file in the current folder
             "--verify_fatal=1", "--randseed=7", "--rate=40m,40m"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        kills = 0
        while kills < (8 if LONG else 2):
            try:  # the event that ends the wait early is that fio has ended
                fio.wait(0.5)
                break
            except subprocess.TimeoutExpired:
                server.kill()
                server.start()
                kills += 1
        said, _ = fio.communicate(timeout=300 if LONG else PATIENCE_S)
        self.assertEqual(fio.returncode, 0, said)
        self.assertRegex(said, r"err= 0")
        self.assertGreaterEqual(kills, 2, "fio was too fast to be disturbed")

    @needs("nbdkit", "nbdcopy")
    def test_what_was_flushed_outlives_everybody(self):
        """nbdcopy flushes, then client and server are killed. Expect: it is all there."""
        source = self.random_file("source", 8 * MIB)
        server = self.serve()
        self.volume(server, "create", "disk", str(8 * MIB))
        kit = self.nbdkit(server.port, "volume=disk")
        self.ok(run("nbdcopy", "--flush", source, kit.uri))
        kit.process.kill()
        kit.process.communicate()
        server.kill()
        server.start()
        self.assertEqual(self.volume(server, "copy", ":disk", self.path("copy"))[0], 0)
        self.assertTrue(filecmp.cmp(source, self.path("copy"), shallow=False))

    @needs("nbdkit", "nbdcopy", "unshare")
    def test_a_full_disk(self):
        """Expect: the writer is told, what was written stays whole, and room that was freed is
        used."""
        if run("unshare", "--user", "--map-root-user", "--mount", "true").returncode != 0:
            self.skipTest("no mount namespace to be had: unshare --user --mount")
        mount = f"mount -t tmpfs -o size=12m none {self.volumes} && exec \"$0\" \"$@\""
        server = self.serve(around=("unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
                                    mount))
        self.assertEqual(self.volume(server, "create", "disk", "64M")[0], 0)
        self.assertIn("No space left", self.volume(server, "create", "huge", "1T")[1])
        kit = self.nbdkit(server.port, "volume=disk")
        small = self.random_file("small", 6 * MIB)
        large = self.random_file("large", 24 * MIB)
        self.ok(run("nbdcopy", small, kit.uri))
        self.assertIn("No space left on device", run("nbdcopy", large, kit.uri).stdout)
        status, said = self.volume(server, "read", "disk", "32M", "4M")
        self.assertEqual(status, 0, said)
        with open(os.devnull, "wb") as nowhere:  # each block verifies, before and after trimming
            for _ in range(2):
                read = subprocess.run(
                    [program("volume"), "--server", f"127.0.0.1:{server.port}", "read", "disk"],
                    stdout=nowhere, stderr=subprocess.PIPE, check=False)
                self.assertEqual(read.returncode, 0, read.stderr)
                self.assertEqual(self.volume(server, "trim", "disk", "0", "64M")[0], 0)
        self.ok(run("nbdcopy", small, kit.uri))

    @needs("nbdkit", "nbdcopy")
    def test_a_flipped_byte_reaches_nobody(self):
        source = self.random_file("source", 4 * MIB)
        server = self.serve("--buffered")
        self.volume(server, "copy", source, ":disk")
        with open(os.path.join(self.volumes, "disk"), "r+b") as file:
            file.seek(MIB + 5)
            byte = file.read(1)
            file.seek(MIB + 5)
            file.write(bytes([byte[0] ^ 1]))
        kit = self.nbdkit(server.port, "volume=disk")
        self.assertIn("Input/output error", run("nbdcopy", kit.uri, self.path("copy")).stdout)
        self.assertIn("the block at byte 1048576 has CRC32C", kit.end())


if __name__ == "__main__":
    if not shutil.which("nbdkit"):
        print("skipped: nbdkit is missing; tools/setup --full installs it")
        sys.exit(77 if LONG else 0)
    unittest.main()
