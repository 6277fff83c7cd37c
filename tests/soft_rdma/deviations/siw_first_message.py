#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""siw leaves a peer's first message unread until the second comes; without us.

siw_accept() (drivers/infiniband/sw/siw/siw_cm.c, Linux 6.1) sends the MPA reply and only
then installs its upcall for data. What arrives in between stays in the socket until one
more segment wakes it. Here a plain socket speaks to a stock `rping -s -P` on siw:
request, then the ready-to-receive frame and a first Send in one write, at once. If no
Read Request comes, one more empty RDMA Write is sent, and then it does come.

  tests/soft_rdma/run --siw --forward 17174:7174 -- rping -s -P -a 10.0.2.15
  tests/soft_rdma/deviations/siw_first_message.py 17174
"""
import socket
import struct
import sys

REQUEST = b"MPA ID Req Frame" + struct.pack(">HHHH", 0x1002, 4, 0x8001, 0xC001)
# FPDU: length, DDP and RDMAP control, headers, payload, padding, CRC (not negotiated: 0).
EMPTY_WRITE = struct.pack(">HBB12x4x", 14, 0xC1, 0x40)
SEND = struct.pack(">HBB4xIII", 34, 0x41, 0x43, 0, 1, 0) + struct.pack(">QII", 0x1000, 7, 64)
SEND += bytes(4)


def answered(stream, seconds):
    stream.settimeout(seconds)
    try:
        return bool(stream.recv(256))
    except socket.timeout:
        return False


def attempt(port):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.sendall(REQUEST)
        reply = stream.recv(256)
        if not reply.startswith(b"MPA ID Rep Frame"):
            sys.exit(f"no MPA reply but {reply!r}")
        stream.sendall(EMPTY_WRITE + SEND)
        if answered(stream, 2):
            return "answered"
        stream.sendall(EMPTY_WRITE)
        return "answered after one more segment" if answered(stream, 5) else "silent"


def main():
    tally = {}
    for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 20):
        result = attempt(int(sys.argv[1]))
        tally[result] = tally.get(result, 0) + 1
    print(tally)
    sys.exit(0 if "answered after one more segment" in tally else 1)


main()
