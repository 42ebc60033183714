"""The trainer's end of the writer: starts one for two buffers, rings it, notices its death. A process for a local folder; a thread for a
remote storage, where connections and credentials of the trainer's process are used.
"""
from __future__ import annotations

import os
import site
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from mltrain.checkpoint.buffer import Buffer


class Writer(Protocol):
    def ring(self) -> None:
        """Something is sealed: look."""

    def death(self) -> str:
        """Why it is gone; empty while it lives."""
        ...

    def close(self) -> None:
        """No more rings: it finishes what is sealed, and ends."""


class WriterProcess:
    """A writer with a session of its own, no descriptor of ours but the buffers, and no terminal: neither a signal to the trainer's
    group nor a log pipe that is read to its end can tell that it lives on."""

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self._bell, end = socket.socketpair()
        self._bell.setblocking(False)
        trainer = _pidfd()
        fds = [buffer.fd for buffer in buffers]
        command = [sys.executable, "-m", "mltrain.checkpoint.writer", ",".join(map(str, fds)), str(end.fileno()), str(trainer)]
        try:
            self._process = subprocess.Popen(
                command, pass_fds=[*fds, end.fileno(), *([trainer] if trainer >= 0 else [])], start_new_session=True, cwd="/",
                env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        finally:
            end.close()
            if trainer >= 0:
                os.close(trainer)
        self.pid = self._process.pid

    def ring(self) -> None:
        try:
            self._bell.send(b"!")
        except BlockingIOError:
            pass                                                # bells enough are waiting for it
        except OSError:
            pass                                                # dead: death() tells

    def death(self) -> str:
        code = self._process.poll()
        return "" if code is None else f"the writer process ended ({f'signal {-code}' if code < 0 else f'exit code {code}'})"

    def close(self) -> None:
        self._bell.close()
        try:
            self._process.wait(timeout=0.2)                     # idle writers end at once; others finish their work without us
        except subprocess.TimeoutExpired:
            pass


class WriterThread:
    """The same in a thread. The interpreter waits at its exit until what is sealed is written."""

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self._buffers, self._pool, self._last = buffers, ThreadPoolExecutor(1, thread_name_prefix="mltrain-checkpoint"), Future[None]()

    def ring(self) -> None:
        self._last = self._pool.submit(self._look)

    def _look(self) -> None:
        from mltrain.checkpoint.writer import settle
        while pending := [buffer for buffer in self._buffers if not buffer.settled]:
            settle(min(pending, key=lambda buffer: buffer.sequence))

    def death(self) -> str:
        error = self._last.exception() if self._last.done() else None
        return f"the writer thread failed: {error!r}" if error else ""

    def close(self) -> None:
        self._pool.shutdown(wait=False)


def _pidfd() -> int:
    """A descriptor that becomes readable when this process ends; -1 where the kernel has none (the bell's end tells then)."""
    try:
        return os.pidfd_open(os.getpid())
    except (AttributeError, OSError):
        return -1


def _environment() -> dict[str, str]:
    """In a checkout that is not installed the package is found by the trainer's folder or path, which the writer does not share."""
    root = str(Path(__file__).resolve().parents[2])
    if root in site.getsitepackages():
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}
