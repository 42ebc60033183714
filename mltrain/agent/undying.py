"""Processes that SIGKILL does not end: one that waits uninterruptibly in the kernel (a file system or a driver that does not answer) dies
only when that wait ends, perhaps never. No attempt waits for it: after a limit it is given up. It cannot do anything any more: should the
kernel ever wake it, the signal comes before its next instruction.

A process at its own end is another matter: giving back a terabyte, or a device, takes its time, and the next attempt needs both. While it
uses processor time it is left to it.
"""
from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mltrain.agent.loop import Loop
from mltrain.agent.processes import look, waits_in

LOOK_SECONDS = 0.25
STUCK_SECONDS = 2.0      # without processor time, in a system call that SIGKILL does not break off
ENDING_SECONDS = 10.0    # without processor time, and on its way out (or not where we can see why)
LONGEST_SECONDS = 60.0   # in all
_EXITING = 0x4           # PF_EXITING of the kernel's task flags


@dataclass
class _Killed:
    cpu: float
    looked: float
    waited: float = 0.0                                        # seconds since the signal
    still: float = 0.0                                         # of these, since it last used processor time


class Undying:
    """expect() a death after SIGKILL, forget() it when it came. given_up(pid, why): it will not be waited for any longer."""

    def __init__(self, loop: Loop, given_up: Callable[[int, str], None]) -> None:
        self._loop, self._given_up = loop, given_up
        self._killed: dict[int, _Killed] = {}
        self._looking = False

    def expect(self, pid: int) -> None:
        self._killed.setdefault(pid, _Killed(-1.0, time.monotonic()))
        if not self._looking:
            self._looking = True
            self._loop.after(LOOK_SECONDS, self._look)

    def forget(self, pid: int) -> None:
        self._killed.pop(pid, None)

    def _look(self) -> None:
        self._looking = bool(self._killed)
        if not self._looking:
            return
        self._loop.after(LOOK_SECONDS, self._look)
        now = time.monotonic()
        for pid, killed in list(self._killed.items()):
            passed = min(now - killed.looked, 2 * LOOK_SECONDS)            # no more: we may have been stopped ourselves
            process = look(pid)
            if process is None:                                # dead: its event is on its way
                continue
            killed.looked, killed.waited = now, killed.waited + passed
            killed.still = killed.still + passed if process.own == killed.cpu else 0.0
            killed.cpu = process.own
            where = stuck(pid)
            if killed.still >= (STUCK_SECONDS if where else ENDING_SECONDS) or killed.waited >= LONGEST_SECONDS:
                self.forget(pid)
                self._given_up(pid, f"SIGKILL has not ended it within {killed.waited:.1f} s: " + (where or f"state {process.state}"))


def stuck(pid: int) -> str:
    """Where a thread of it waits uninterruptibly; "" if none does, or if it is at its end already."""
    with suppress(OSError):
        for thread in sorted(os.listdir(f"/proc/{pid}/task"), key=int):
            fields = Path(f"/proc/{pid}/task/{thread}/stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] == b"D" and not int(fields[6]) & _EXITING:
                place = waits_in(int(thread))
                return "in an uninterruptible wait of the kernel (state D)" + (f" in {place}" if place else "")
    return ""
