"""Where the output of workers goes. With a run directory: one pipe a worker, appended to attempts/NNNN/rank-R.log and, for the relayed
ranks, shown on the terminal. Without: the workers write to the agent's own stdout and stderr, as under torchrun, unless redirected (-r)
or teed (-t)."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mltrain.agent.console import Console, Lines
from mltrain.agent.loop import Loop
from mltrain.runs.atomic import FILE_MODE
from mltrain.runs.layout import log_file, make_folder

_PIECE = 1 << 16
STDOUT, STDERR = 1, 2    # bits of torchrun's -r and -t


@dataclass(frozen=True, slots=True)
class Plan:
    """run: the run directory, or None. shown: ranks relayed to the terminal (None: all). prefixed: with [rank N] before each line.
    folder, redirect, tee: torchrun's --log-dir, -r and -t; local rank -> bits."""

    run: Path | None = None
    shown: frozenset[int] | None = None
    prefixed: bool = False
    folder: Path | None = None
    redirect: dict[int, int] = field(default_factory=dict)
    tee: dict[int, int] = field(default_factory=dict)


class Pipe:
    """The reading end of one worker's output: into a log, and perhaps to the terminal."""

    def __init__(self, fd: int, log: int, show: Callable[[bytes], None] | None, lines: Lines | None) -> None:
        self.fd, self._log, self._show, self._lines = fd, log, show, lines

    def move(self) -> bool:
        """Pass on what is there; False at the end of the stream."""
        try:
            data = os.read(self.fd, _PIECE)
        except BlockingIOError:
            return True
        if data:
            with contextlib.suppress(OSError):                 # a full disk loses log lines, not the run
                os.write(self._log, data)
            if self._show:
                self._show(self._lines.feed(data) if self._lines else data)
        return bool(data)

    def close(self) -> None:
        """Take what a dead worker has left, then let go: a grandchild may hold the other end for ever."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.fd, _PIECE):
                with contextlib.suppress(OSError):
                    os.write(self._log, data)
                if self._show:
                    self._show(self._lines.feed(data) if self._lines else data)
        if self._show and self._lines:
            self._show(self._lines.end())
        os.close(self.fd)
        os.close(self._log)


class Output:
    """Gives each worker its stdout and stderr, and moves what comes through."""

    def __init__(self, loop: Loop, plan: Plan) -> None:
        self._loop, self._plan, self._console = loop, plan, Console()
        self._pipes: dict[int, list[Pipe]] = {}

    def open(self, rank: int, local_rank: int, attempt: int) -> tuple[int, int]:
        """(stdout, stderr) for one worker; the caller closes them once the worker has them."""
        plan = self._plan
        if plan.run is not None:
            path = log_file(plan.run, attempt, rank)
            make_folder(path.parent)
            shown = plan.shown is None or rank in plan.shown
            end = self._pipe(rank, path, shown, f"[rank {rank}] " if plan.prefixed else "")
            return end, os.dup(end)
        fds = []
        for fd, bit, name in ((1, STDOUT, "stdout"), (2, STDERR, "stderr")):
            redirect, tee = (bits.get(local_rank, bits.get(-1, 0)) & bit for bits in (plan.redirect, plan.tee))
            if plan.folder is None or not (redirect or tee):
                fds.append(os.dup(fd))
                continue
            path = plan.folder / f"attempt_{attempt - 1}" / str(local_rank) / f"{name}.log"
            make_folder(path.parent)
            fds.append(self._pipe(rank, path, True, f"[default{local_rank}]:") if tee else _append(path))
        return fds[0], fds[1]

    def _pipe(self, rank: int, path: Path, shown: bool, prefix: str) -> int:
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        pipe = Pipe(ours, _append(path), self._console.write if shown else None, Lines(prefix) if prefix and shown else None)
        self._pipes.setdefault(rank, []).append(pipe)
        self._loop.watch(ours, lambda: self._moved(pipe))
        return theirs

    def _moved(self, pipe: Pipe) -> None:
        if not pipe.move():
            self._loop.forget(pipe.fd)                         # closed by close(), with the worker's exit

    def close(self, rank: int) -> None:
        """The worker is gone."""
        for pipe in self._pipes.pop(rank, []):
            with contextlib.suppress(KeyError):                # ended, so no longer watched
                self._loop.forget(pipe.fd)
            pipe.close()

    def finish(self) -> None:
        self._console.close()


def _append(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)


def parse_streams(text: str) -> dict[int, int]:
    """torchrun's -r/-t: "3" is both streams of all ranks (key -1); "0:1,1:2" stdout of local rank 0 and stderr of local rank 1."""
    if text.isdigit() and int(text) <= 3:
        return {-1: int(text)}
    values = {}
    for item in text.split(","):
        rank, colon, bits = item.partition(":")
        if not colon or not rank.isdigit() or bits not in ("0", "1", "2", "3"):
            raise ValueError(f"{text!r} is not of the form 3, or 0:1,1:2")
        values[int(rank)] = int(bits)
    return values
