"""Breaks things on purpose, for tests of whatever runs under the agent: start a command, find its workers, kill them, wait for what
follows.

    with start("agent", "--workers", "2", "--run-dir", run, "--", "python", "train.py") as job:
        wait_for(lambda: step(run) >= 3, 60)
        kill(worker_pids(run)[1])
        assert job.wait(60) == 0

Inside a script, `kill_at(rank=1, step=7, attempt=1)` called once a step reads as the sentence it is; `slow_from` holds a rank
up, `corrupt_at` flips a bit.
"""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltrain.runs.lease import is_live, read_lease
from mltrain.runs.outcome import last_status, pid_lives

if TYPE_CHECKING:
    import torch

_LOOK_SECONDS = 0.01


def wait_for(predicate: Callable[[], object], limit: float, what: str = "") -> None:
    """Until predicate() is true. Raises TimeoutError after `limit` seconds."""
    give_up = time.monotonic() + limit
    while not predicate():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what or getattr(predicate, '__name__', 'it')} did not happen within {limit} s")
        time.sleep(_LOOK_SECONDS)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal; a process that is gone already is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_at(rank: int, step: int, attempt: int = 1, number: int = signal.SIGKILL) -> Callable[[int], None]:
    """A function to call with the current step: sends the signal to its own process when rank, step and attempt are these."""
    here = int(os.environ.get("RANK", 0)) == rank and int(os.environ.get("MLTRAIN_ATTEMPT", 1)) == attempt

    def at(current: int) -> None:
        if here and current == step:
            os.kill(os.getpid(), number)
    return at


def slow_from(rank: int, step: int, seconds: float, until: int | None = None) -> Callable[[int], None]:
    """A function to call with the current step: this rank sleeps for so long in each step from `step` on, up to `until` (None: to the
    end), as one on a throttled machine would."""
    here = int(os.environ.get("RANK", 0)) == rank

    def at(current: int) -> None:
        if here and step <= current and (until is None or current < until):
            time.sleep(seconds)
    return at


def corrupt_at(rank: int, step: int, attempt: int = 1, bit: int = 20) -> Callable[[int, torch.Tensor], None]:
    """A function to call with the current step and a float32 tensor (a weight, a reduced gradient): flips one bit of its first element when
    rank, step and attempt are these, as a bad memory would."""
    here = int(os.environ.get("RANK", 0)) == rank and int(os.environ.get("MLTRAIN_ATTEMPT", 1)) == attempt

    def at(current: int, tensor: torch.Tensor) -> None:
        if here and current == step:
            import torch
            with torch.no_grad():
                first = (tensor.to_local() if hasattr(tensor, "to_local") else tensor).view(-1)[:1]
                first.copy_((first.view(torch.int32) ^ (1 << bit)).view(torch.float32))
    return at


def worker_pids(run: Path) -> dict[int, int]:
    """rank -> pid of the workers that live now, from status.json."""
    ranks: list[dict[str, Any]] = last_status(run).get("ranks", []) if run.is_dir() else []
    return {each["rank"]: each["pid"] for each in ranks if each["pid"] and pid_lives(each["pid"])}


def agent_pid(run: Path) -> int:
    """Of the agent that holds the run. Raises LookupError if none does."""
    holder = read_lease(run)
    if holder is None or not is_live(run):
        raise LookupError(f"no agent holds {run}")
    return holder.pid


def step(run: Path) -> int:
    """The last step that the run's status names; 0 before it has one."""
    return int(last_status(run)["step"]) if run.is_dir() else 0


class Job:
    """A started `mltrain ...` in a process group of its own. output: everything it printed so far."""

    def __init__(self, process: subprocess.Popen[bytes], file: Path) -> None:
        self.process, self._file = process, file

    @property
    def output(self) -> str:
        return self._file.read_text(errors="replace")

    def wait(self, limit: float) -> int:
        """Its exit code, -N for signal N. Raises TimeoutError with the output so far."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"still running after {limit} s:\n{self.output}") from None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill_group(self) -> None:
        """SIGKILL to the command and to all that shares its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@contextlib.contextmanager
def start(*arguments: str | Path, cwd: Path | None = None, environment: dict[str, str] | None = None) -> Iterator[Job]:
    """Start `mltrain ARGUMENTS...`; at the end of the block it is killed if it still lives, and its workers with it."""
    with tempfile.TemporaryDirectory(prefix="mltrain-job-") as folder:
        file = Path(folder) / "output"
        with file.open("wb") as out:
            command = [sys.executable, "-m", "mltrain", *map(str, arguments)]
            process = subprocess.Popen(command, cwd=cwd, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=out, start_new_session=True)
        job = Job(process, file)
        try:
            yield job
        finally:
            job.kill_group()
            process.wait(30)
