"""The stores of one attempt, new for each: nothing of a dead attempt can be read, so a restarted script cannot meet stale addresses.

A TCPStore for scripts that call init_process_group themselves: the agent binds a port (loopback) and listens; the process that serves it
is started when the first worker connects, so whoever needs none costs none. A file (MLTRAIN_STORE) for our own workers, which need no port.
"""
from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from mltrain.agent.forks import START, Forks
from mltrain.agent.loop import Loop
from mltrain.agent.template import environment
from mltrain.errors import NodeUnfit
from mltrain.runs.outcome import pid_lives

STORE_VARIABLE = "MLTRAIN_STORE"


class Stores:
    """serve() where the controller is, names() on every node, at the beginning of an attempt; clean() and close() at its end."""

    def __init__(self, loop: Loop, forks: Forks) -> None:
        self._loop, self._forks = loop, forks
        self._listener: socket.socket | None = None
        self._pid, self._key, self._folder, self._host = 0, "", "", ""
        sweep()

    def serve(self, attempt: int, host: str, port: int) -> tuple[str, int]:
        """The address of a new store; port 0: any. Raises NodeUnfit (69) if a port that was asked for is taken."""
        self.stop_serving()
        try:
            self._listener = socket.create_server((host, port), backlog=4096)
        except OSError as error:
            raise NodeUnfit(f"{host}:{port}: cannot listen there: {error.strerror}",
                            "leave --master-addr and --master-port away: each attempt then has a free port of its own") from None
        self._host, found = host, self._listener.getsockname()[1]
        self._loop.watch(self._listener.fileno(), lambda: self._serve(attempt, found))
        return host, found

    def names(self, master: tuple[str, int], *, alone: bool) -> Callable[[int], dict[str, str]]:
        """rank -> the environment variables that lead it there. alone: no other node takes part, so that a file will do for ours."""
        self.clean()
        self._folder = tempfile.mkdtemp(prefix=f"{_mark()}{os.getpid()}-")
        names = {"MASTER_ADDR": master[0], "MASTER_PORT": str(master[1])}
        if alone:
            names[STORE_VARIABLE] = os.path.join(self._folder, "store")
        return lambda rank: {**names, "TORCHELASTIC_ERROR_FILE": os.path.join(self._folder, f"error-{rank}.json")}

    def _serve(self, attempt: int, port: int) -> None:
        """Somebody has connected: now a process has to serve it. The connection waits in the backlog."""
        assert self._listener is not None
        self._loop.forget(self._listener.fileno())
        fd, self._listener = self._listener.detach(), None
        self._key = f"store/{attempt}"
        key = self._key

        def born(pid: int, unsent: list[int]) -> None:
            if unsent:
                pid = _spawn(unsent[0], self._host, port)
                os.close(unsent[0])
            if self._key == key:
                self._pid = pid
            elif pid:
                os.kill(pid, signal.SIGKILL)                   # the attempt has ended meanwhile

        if self._forks.wanted:
            self._forks.order(key, [fd], born, kind="store", host=self._host, port=port)
        else:
            born(0, [fd])

    def stop_serving(self) -> None:
        self._key = ""
        if self._listener:
            self._loop.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._pid = 0

    def clean(self) -> None:
        """Of this node's part: its files."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""

    def close(self) -> None:
        self.stop_serving()
        self.clean()


def _mark() -> str:
    """How our folders begin. With the process namespace: another container that shares /tmp has other processes under the same numbers."""
    return f"mltrain-store-{os.readlink('/proc/self/ns/pid')[5:-1]}-"


def sweep() -> None:
    """Remove the folders of agents that were killed before they could."""
    for path in Path(tempfile.gettempdir()).glob(f"{_mark()}*"):
        pid = path.name.removeprefix(_mark()).partition("-")[0]
        if pid.isdigit() and not pid_lives(int(pid)):
            shutil.rmtree(path, ignore_errors=True)            # another user's stays: that is not ours to remove


def _spawn(fd: int, host: str, port: int) -> int:
    order = json.dumps({"agent": os.getpid(), "host": host, "port": port, "fd": fd})
    process = subprocess.Popen([sys.executable, "-c", START, "store", order], env=environment(), pass_fds=[fd], stdin=subprocess.DEVNULL)
    process.returncode = 0                                     # reaped with the orphans
    return process.pid
