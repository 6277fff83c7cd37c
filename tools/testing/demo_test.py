#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/demo's runner against stand-ins for the programs: readiness, bounds, the table."""

import contextlib
import io
import os
import tempfile
import unittest

import demo

STAND_IN = r"""#!/usr/bin/env python3
import socket, sys
args = sys.argv[1:]
behaviour = "BEHAVIOUR"
if args[0] == "devices":
    print("tcp   usable  iWARP over kernel TCP")
elif "-s" in args or args[0] == "serve":
    if behaviour == "dies":
        sys.exit("address in use")
    listener = socket.create_server(("127.0.0.1", 0))
    print("listening on 127.0.0.1 port", listener.getsockname()[1], flush=True)
    connection, _ = listener.accept()
    with connection.makefile("rb") as stream:
        data = stream.read()
    if args[0] == "serve":
        data = data[:-1] + b"?" if behaviour == "corrupts" else data
        open(args[args.index("--out") + 1], "wb").write(data)
else:
    port = args[1].split(":")[1] if args[0] == "send" else args[args.index("-p") + 1]
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        if args[0] == "send":
            connection.sendall(open(args[2], "rb").read())
    if args[0] == "ping":
        print("connected to 127.0.0.1:1 over tcp (no other)")
        print("10 round trips, min 20.1 us, avg 24.5 us")
    if "--json" in args:
        print('{"results": [{"bytes_per_second": 2.5e9}]}')
"""


class DemoTest(unittest.TestCase):
    def run_demo(self, behaviour=""):
        with tempfile.TemporaryDirectory() as folder:
            program = os.path.join(folder, "program")
            with open(program, "w", encoding="utf-8") as file:
                file.write(STAND_IN.replace("BEHAVIOUR", behaviour))
            os.chmod(program, 0o755)
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = demo.main(["--verbena", program, "--file-copy", program, "--size", "1"])
            return status, out.getvalue(), err.getvalue()

    def test_table(self):
        status, out, err = self.run_demo()
        self.assertEqual((status, err), (0, ""))
        for row in ("device      tcp (", "file        1 MiB", "checksums   match",
                    "ping        24.5 us", "RDMA write  2.50 GB/s"):
            self.assertIn(row, out)

    def test_a_server_that_dies_is_not_waited_for(self):
        status, _, err = self.run_demo("dies")
        self.assertEqual(status, 1)
        self.assertIn("address in use", err)

    def test_a_wrong_file_fails(self):
        status, out, err = self.run_demo("corrupts")
        self.assertEqual(status, 1)
        self.assertIn("DIFFER", out)
        self.assertIn("not the file", err)


if __name__ == "__main__":
    unittest.main()
