"""In-process restart: a worker whose attempt has failed elsewhere comes out of its script and waits for its next order, in the same
process, with torch, a device's context and compiled code as they are. Only dead ranks are forked anew.

    agent  ──"leave"──>  a thread of the worker shuts its TCP connections, so that a collective that waits for a dead rank ends with an
                         error; the script ends as it would for any error
    worker ──"out"────>  the script is over, the process group gone; now it is like a process forked ahead

A worker whose own connection broke before anybody told it waits a moment for that word; one with another error leaves at once. Whoever is
not out in time gets SIGKILL: hung ranks, ones in a long computation, and (until somebody has tried it) ones in a kernel of NCCL.
"""
from __future__ import annotations

import faulthandler
import gc
import json
import os
import socket
import sys
import threading
from contextlib import suppress
from typing import Any

from mltrain.agent import sockets
from mltrain.agent.cause import is_broken_connection
from mltrain.runs.pulse import STACK_SIGNAL, Page

LEAVE, OUT = b"leave", b"out"
OUT_SECONDS = 2.0        # the agent waits so long
_ECHO_SECONDS = 1.0      # a broken connection waits so long to be called an echo


class Retreat:
    """One attempt's way out. fd: the worker's end of a SOCK_SEQPACKET pair whose other end the agent has."""

    def __init__(self, fd: int) -> None:
        self._control, self._called = socket.socket(fileno=fd), threading.Event()
        self._thread = threading.Thread(target=self._listen, name="mltrain-retreat", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with suppress(OSError):
            if self._control.recv(len(LEAVE)) == LEAVE:
                self._called.set()
                sockets.shut_own()

    def out(self, page: Page) -> bool:
        """The script has ended. Is the process wanted for the next attempt?"""
        broken = is_broken_connection(page.record().get("message", ""))
        if not self._called.wait(_ECHO_SECONDS if broken else 0):
            return False
        self._thread.join()                                    # it must not shut what the next attempt opens
        if distributed := sys.modules.get("torch.distributed"):
            with suppress(Exception):                          # noqa: BLE001  of a group whose connections are gone
                distributed.destroy_process_group()
        gc.collect()
        faulthandler.unregister(STACK_SIGNAL)
        self._control.send(OUT)
        return True

    def next_order(self) -> tuple[dict[str, Any], list[int]] | None:
        """None when the agent needs it no longer."""
        with self._control:
            data, fds, _, _ = socket.recv_fds(self._control, 1 << 18, 8)
        return (json.loads(data), fds) if data else None


def close(fds: list[int]) -> None:
    """Page and reports of an attempt that is over."""
    for fd in fds[2:4]:
        os.close(fd)
