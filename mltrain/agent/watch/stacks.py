"""Takes the stacks of silent workers within a second or two: by faulthandler into their pulse pages where they listen, by py-spy where
that is installed. Kept in attempts/NNNN/stack-rank-R.txt, or shown where there is no run directory."""
from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from mltrain.agent.journal import say
from mltrain.agent.loop import Loop
from mltrain.agent.workers import Worker
from mltrain.runs.layout import attempt_folder, make_folder
from mltrain.runs.pulse import STACK_SIGNAL

SECONDS = 1.0            # the longest that faulthandler may delay a kill
SPY_SECONDS = 2.0        # and py-spy
_LOOK_SECONDS = 0.02
_SHOWN_LINES = 30
# Where threads sit that wait for other ranks: a collective, or a backward pass whose hooks are collectives.
_WAITING = re.compile(r"/torch/distributed/|in _engine_run_backward")
_FRAME = re.compile(r'^\s*File "', re.MULTILINE)


class Stacks:
    """One round. done({rank: stack or ""}) is called once, soon."""

    def __init__(self, loop: Loop, workers: Sequence[Worker], done: Callable[[dict[int, str]], None]) -> None:
        self._loop, self._done = loop, done
        self._workers = [worker for worker in workers if worker.pid]
        self._texts = {worker.rank: "" for worker in self._workers}
        self._spies: dict[int, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
        for worker in self._workers:
            if worker.page.dumps_stack():
                worker.page.clear_stack()
                for number in (STACK_SIGNAL, signal.SIGCONT):  # a stopped process writes its stack on the way to its next instruction
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.pid, number)
            elif spy := shutil.which("py-spy"):
                self._spy(worker, spy)
        listening = any(worker.page.dumps_stack() for worker in self._workers)
        self._give_up = time.monotonic() + (SPY_SECONDS if self._spies else SECONDS if listening else 0.0)
        loop.after(_LOOK_SECONDS, self._look)

    def _spy(self, worker: Worker, program: str) -> None:
        out = tempfile.TemporaryFile()
        command = [program, "dump", "--nonblocking", "--pid", str(worker.pid)]      # without it a stopped process cannot be read
        with contextlib.suppress(OSError):
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL)
            self._spies[worker.rank] = process, out

    def _look(self) -> None:
        """Two equal readings are a whole stack."""
        complete = True
        for worker in self._workers:
            if worker.pidfd < 0 or worker.page.memory.closed:         # died meanwhile
                continue
            if worker.rank in self._spies:
                complete &= self._spies[worker.rank][0].poll() is not None
            elif worker.page.dumps_stack():
                text = worker.page.stack()
                complete &= bool(text) and text == self._texts[worker.rank]
                self._texts[worker.rank] = text
        if not complete and time.monotonic() < self._give_up:
            self._loop.after(_LOOK_SECONDS, self._look)
            return
        for rank, (process, out) in self._spies.items():
            process.kill()
            process.wait()
            out.seek(0)
            self._texts[rank] = out.read().decode(errors="replace")
            out.close()
        self._done(self._texts)


def waits_for_others(stack: str) -> bool:
    """Does the main thread, the last of a faulthandler dump, sit in a collective?"""
    main = re.split(r"^(?:Current )?[Tt]hread ", stack, flags=re.MULTILINE)[-1]
    innermost = next((line for line in main.splitlines() if _FRAME.match(line)), "")
    return bool(_WAITING.search(innermost))


def keep(run: Path | None, attempt: int, rank: int, stack: str) -> str:
    """Writes a stack where it is kept; returns the file's name within the run directory, "" without one (then it is shown)."""
    if not stack:
        return ""
    if run is None:
        say(f"rank {rank} was here:\n" + "\n".join(stack.splitlines()[-_SHOWN_LINES:]))
        return ""
    path = attempt_folder(run, attempt) / f"stack-rank-{rank}.txt"
    try:
        make_folder(path.parent)
        path.write_text(stack)
    except OSError as error:                                   # a full disk must not keep a hung rank alive
        say(f"{path}: {error.strerror}")
        return ""
    return str(path.relative_to(run))
