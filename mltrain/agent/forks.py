"""The agent's side of the template process: when it is started, what is ordered from it, who is told the pid.

    off  ──start()──>  importing  ──ready──>  ready  ──(its socket ends)──>  off, started again

Processes that will be needed are forked ahead (`keep_ready`): a fork of a process with torch in it takes tens of milliseconds, and a
restart needs one a worker, one after another. Those that wait hold about a megabyte each, have done nothing yet, and take any order.

A template that cannot serve (more than one thread after its imports, or an import that kills it) is given up: what was ordered is then
spawned.
"""
from __future__ import annotations

import functools
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mltrain.agent.loop import Loop
from mltrain.agent.template import environment

_AHEAD = "ahead/"
Born = Callable[[int, list[int]], None]
_ROOT = str(Path(__file__).resolve().parents[2])
# As `python -m`, but with neither this folder nor the current one before the standard library: a script's neighbours must not shadow
# torch's imports.
START = (f"import sys; sys.path.pop(0); sys.path.append({_ROOT!r}); from mltrain.agent.template import main; "
          f"sys.path.pop(); sys.path.insert(0, ''); sys.exit(main())")


class Forks:
    """early: modules imported before the first order is served. late: when told to warm() up. patient: a worker ordered while the
    template still imports waits for it; otherwise it is spawned."""

    def __init__(self, loop: Loop, early: list[str], late: list[str], patient: bool, note: Callable[[str], None]) -> None:
        self._loop, self._early, self._late, self.patient, self._note = loop, early, late, patient, note
        self._control: socket.socket | None = None
        self._ready, self._given_up, self._warm, self._warmed = False, False, False, False
        self._waiting: list[tuple[str, bytes, list[int]]] = []             # not yet sent: a socket's queue is short
        self.pending: dict[str, Born] = {}
        self._ahead: list[tuple[int, socket.socket]] = []      # pid and control of those forked ahead
        self._numbers = itertools.count()

    @property
    def wanted(self) -> bool:
        """Should the next worker be forked?"""
        return not self._given_up and self._control is not None and (self._ready or self.patient)

    @property
    def settled(self) -> bool:
        """It serves, or never will: there is nothing to wait for."""
        return self._ready or self._given_up

    def start(self, quiet: bool = False) -> None:
        """quiet: it holds nothing of where we print, for an agent that is yet to be told where that will be."""
        if self._control is not None or self._given_up:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-c", START, str(theirs.fileno()), ",".join(self._early), ",".join(self._late)]
        where = subprocess.DEVNULL if quiet else None
        subprocess.Popen(command, env=environment(), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=where, stderr=where,
                         start_new_session=True)
        theirs.close()
        self._control, self._ready = ours, False
        self._loop.watch(ours.fileno(), self._answer)

    def order(self, key: str, fds: list[int], born: Born, **fields: object) -> None:
        """Ask for a process; the descriptors go with the order. born(pid, []) is called once; born(0, fds) if it could not be ordered
        (start it in another way, then close them), born(0, []) if the template died over it."""
        self.start()
        if self._given_up:
            born(0, fds)
            return
        data = json.dumps({"key": key, "agent": os.getpid(), **fields}).encode()
        while self._ahead:
            pid, control = self._ahead.pop(0)
            try:
                with control:
                    socket.send_fds(control, [data], fds)
            except OSError:                                    # it has died: the next one
                continue
            for fd in fds:
                os.close(fd)
            born(pid, [])
            return
        self.pending[key] = born
        self._waiting.append((key, data, fds))
        self._flush()

    def keep_ready(self, count: int) -> None:
        """Fork ahead, up to so many. Not before everything is imported that they will need."""
        if not self._ready or (self._late and not self._warmed):
            return
        coming = sum(key.startswith(_AHEAD) for key in self.pending)
        for _ in range(count - len(self._ahead) - coming):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.pending[key := f"{_AHEAD}{next(self._numbers)}"] = functools.partial(self._ready_one, ours)
            self._waiting.append((key, json.dumps({"key": key, "agent": os.getpid(), "kind": "ahead"}).encode(), [theirs.detach()]))
        self._flush()

    def _ready_one(self, control: socket.socket, pid: int, unsent: list[int]) -> None:
        for fd in unsent:
            os.close(fd)
        if pid:
            self._ahead.append((pid, control))
        else:
            control.close()

    def adopt(self, pid: int, control: socket.socket) -> None:
        """A worker that has come out of its attempt: the first to get an order."""
        self._ahead.insert(0, (pid, control))

    def forget(self, key: str) -> None:
        """An order is not wanted any more: born is not called."""
        self.pending.pop(key, None)
        for waiting in [waiting for waiting in self._waiting if waiting[0] == key]:
            self._waiting.remove(waiting)
            for fd in waiting[2]:
                os.close(fd)

    def warm(self) -> None:
        """Let it import what later attempts need too."""
        if self._late and not self._warm and self._control is not None:
            self._warm = True
            self._waiting.append(("", b'{"kind": "warm"}', []))
            self._flush()

    def _flush(self) -> None:
        while self._ready and self._waiting and self._control:
            key, data, fds = self._waiting[0]
            try:
                socket.send_fds(self._control, [data], fds)
            except OSError:                                    # it has died: its socket's end is the next event
                return
            self._waiting.pop(0)
            for fd in fds:
                os.close(fd)

    def _answer(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._ended()
            return
        message = json.loads(data)
        if message.get("threads", 1) > 1:
            self._note(f"the template has {message['threads']} threads after its imports: workers are spawned instead")
            self._given_up = True
            self._ended()
        elif "ready" in message:
            self._ready = True
            self._flush()
        elif "warm" in message:
            self._warmed = True
        elif "pid" in message:
            born = self.pending.pop(message["key"], None)
            if born:
                born(message["pid"], [])
            elif message["pid"]:
                os.kill(message["pid"], signal.SIGKILL)        # forgotten while it was being forked

    def _ended(self) -> None:
        """It died, or is of no use: those that wait for it must not wait for ever."""
        assert self._control is not None
        if not self._ready and not self._given_up:
            self._note("the template process died while importing: workers are spawned, not forked")
            self._given_up = True
        self._loop.forget(self._control.fileno())
        self._control.close()
        self._control, self._ready, self._warm, self._warmed = None, False, False, False
        unsent, self._waiting = {key: fds for key, _, fds in self._waiting}, []
        lost, self.pending = self.pending, {}
        for key, born in lost.items():
            born(0, unsent.get(key, []))
        self.start()
