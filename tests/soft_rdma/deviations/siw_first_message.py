#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""siw leaves a peer's first message unread until the second comes; without us.

siw_accept() (drivers/infiniband/sw/siw/siw_cm.c, Linux 6.1) sends the MPA reply and only
then installs its upcall for data. What arrives in between stays in the socket until one
more segment wakes it. Here a plain socket speaks to a stock `rping -s -P` on siw: request,
then the ready-to-receive frame and a first Send in one write, at once. If no Read Request
comes, the bytes are in siw's socket; one more empty RDMA Write is sent, and then it does come.

In the guest `show siw` runs it (CASE "pairs/first_message"), until it has seen one such
connection, and prints a row of its table. There all is on one CPU of a kernel that preempts, and
the socket's program comes before rping's: so it answers before siw_accept() goes on. From this
machine, where one connection in three is such by itself, it prints how many of COUNT were:

  tests/soft_rdma/run --siw --forward 17174:7174 -- rping -s -P -a 10.0.2.15
  tests/soft_rdma/deviations/siw_first_message.py 17174 [COUNT]
"""
import collections
import os
import socket
import struct
import subprocess
import sys
import time

REQUEST = b"MPA ID Req Frame" + struct.pack(">HHHH", 0x1002, 4, 0x8001, 0xC001)
# FPDU: length, DDP and RDMAP control, headers, payload, padding, CRC (not negotiated: 0).
EMPTY_WRITE = struct.pack(">HBB12x4x", 14, 0xC1, 0x40)
SEND = struct.pack(">HBB4xIII", 34, 0x41, 0x43, 0, 1, 0) + struct.pack(">QII", 0x1000, 7, 64)
SEND += bytes(4)

PORT = 7198
MOST = 40


def answered(stream, seconds):
    stream.settimeout(seconds)
    try:
        return bool(stream.recv(256))
    except socket.timeout:
        return False


def unread(stream):
    """What siw has not taken out of its end of this connection; it is in the same kernel."""
    address, port = stream.getsockname()[:2]
    shown = subprocess.run(["ss", "-Htn", "state", "established", "dst", address, "and", "dport",
                            "=", f":{port}"], capture_output=True, text=True, check=True).stdout
    return int(shown.split()[0]) if shown else 0


def attempt(address, port, waiting):
    with socket.create_connection((address, port), timeout=30) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.sendall(REQUEST)
        reply = stream.recv(256)
        if not reply.startswith(b"MPA ID Rep Frame"):
            sys.exit(f"no MPA reply but {reply!r}")
        stream.sendall(EMPTY_WRITE + SEND)
        if answered(stream, 2):
            return "answered"
        waiting(stream)
        stream.sendall(EMPTY_WRITE)
        return "answered after one more segment" if answered(stream, 5) else "silent"


def listens():
    shown = subprocess.run(["rdma", "resource", "show", "cm_id"], capture_output=True, text=True,
                           check=True).stdout
    return any("LISTEN" in line and f":{PORT}" in line for line in shown.splitlines())


def come_first():
    """Whoever has something to do here, this program has it before rping."""
    debug = "/sys/kernel/debug"
    if not os.path.exists(debug + "/sched"):
        subprocess.run(["mount", "-t", "debugfs", "none", debug], check=False)
    try:
        with open(debug + "/sched/preempt", "w", encoding="ascii") as file:
            file.write("full")
    except OSError as error:
        print(f"the kernel does not preempt: {error}", file=sys.stderr)
    os.sched_setaffinity(0, {0})  # and rping inherits it


def show_row():
    address = os.environ["VERBENA_SOFT_RDMA_ADDRESS"]
    come_first()
    server = subprocess.Popen(["rping", "-s", "-P", "-a", address, "-p", str(PORT)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while not listens():
            if server.poll() is not None or time.monotonic() > until:
                sys.exit("rping does not listen")
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        left = []
        for number in range(1, MOST + 1):
            result = attempt(address, PORT, lambda stream: left.append(unread(stream)))
            if result != "answered":
                how = "confirmed" if left[0] > 0 and result != "silent" else "other"
                print(f"answered | {result}, {left[0]} B unread till then (no. {number}) | {how}")
                return
        print(f"answered | {MOST} times answered | gone")
    finally:
        server.kill()


def count(port, attempts):
    tally = collections.Counter(attempt("127.0.0.1", port, lambda _: None)
                                for _ in range(attempts))
    print(dict(tally))
    sys.exit(0 if "answered after one more segment" in tally else 1)


if sys.argv[1] == "pairs/first_message":
    show_row()
else:
    count(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20)
