"""A cable on which every frame takes a while, in both directions: two virtual network cards (TAP), and a process that carries frames from
one to the other. Kernels without netem have nothing else.

usage: python slow_wire.py CARD CARD SECONDS        the cards are file descriptors; ends when it is killed
"""
from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

_SET, _TAP, _PLAIN = 0x400454CA, 0x0002, 0x1000        # TUNSETIFF, IFF_TAP, IFF_NO_PI
_MOST = 1 << 16


def card(name: str) -> int:
    """Makes a network card of that name; what is sent through it is read from the descriptor, and the other way round. Needs root."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _SET, struct.pack("16sH22x", name.encode(), _TAP | _PLAIN))
    return fd


def carry(first: int, second: int, seconds: float) -> None:
    other, late = {first: second, second: first}, deque[tuple[float, int, bytes]]()
    while True:
        wait = max(0.0, late[0][0] - time.monotonic()) if late else None
        for fd in select.select([first, second], [], [], wait)[0]:
            with contextlib.suppress(OSError):                 # a card that is down
                while True:
                    late.append((time.monotonic() + seconds, other[fd], os.read(fd, _MOST)))
        while late and late[0][0] <= time.monotonic():
            _, to, frame = late.popleft()
            with contextlib.suppress(OSError):
                os.write(to, frame)


if __name__ == "__main__":
    carry(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
