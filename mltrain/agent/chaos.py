"""Breaks a live run on purpose, from outside: `mltrain chaos`. Which faults, in what order and on which ranks follows from the seed alone,
so that what they bring to light can be made again. Each kind comes once before any comes twice.

    kill    SIGKILL to a rank        exit    a rank that beats leaves with exit code 1, 3 or 74
    stop    SIGSTOP: a hang          slow    a rank has half of the time for four seconds
"""
from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mltrain.errors import NodeUnfit, UsageError
from mltrain.runs.lease import is_live, read_lease
from mltrain.runs.outcome import last_status
from mltrain.runs.pulse import page_of

KINDS = ("kill", "stop", "exit", "slow")
_LOOK_SECONDS, _SLICE_SECONDS, _SLOW_SECONDS = 0.05, 0.1, 4.0
_EXIT_CODES = (1, 3, 74)


@dataclass(frozen=True, slots=True)
class Fault:
    """place: from 0 to 1, which of the ranks. code: for exit."""

    kind: str
    place: float
    code: int


def plan(seed: int, kinds: Sequence[str]) -> Iterator[Fault]:
    """The faults, without end."""
    draw = random.Random(seed)
    while True:
        for kind in draw.sample(list(kinds), len(kinds)):
            yield Fault(kind, draw.random(), draw.choice(_EXIT_CODES))


def disturb(run: Path, seed: int, kinds: Sequence[str], every: float, count: int | None) -> Iterator[str]:
    """Makes faults while the run lives, `every` seconds after it has taken the last one; a line for each. count: at most so many.
    Raises UsageError (64) for an unknown kind or a run that is not live, NodeUnfit (69) for one on another machine."""
    if unknown := [kind for kind in kinds or [""] if kind not in KINDS]:
        raise UsageError(f"--faults: {unknown[0]!r} is no kind of fault", "one or more of " + ",".join(KINDS))
    holder = read_lease(run)
    if holder is None or not is_live(run):
        raise UsageError(f"{run.name} is not live", "mltrain status shows which runs are")
    if holder.host != socket.gethostname():
        raise NodeUnfit(f"{run.name} runs on {holder.host}, this is {socket.gethostname()}", "make its faults there")
    attempt, faults, made = 0, plan(seed, kinds), 0
    while count is None or made < count:
        attempt = _wait_for_steps(run, attempt, every)
        if not attempt:
            yield f"the run has ended after {made} fault{'s' * (made != 1)}"
            return
        made += 1
        text, ends = _make(run, next(faults))
        attempt += ends                                        # the next one waits for the attempt that this one brings about
        yield f"fault {made}: {text}"


def _wait_for_steps(run: Path, attempt: int, seconds: float) -> int:
    """Until all workers of that attempt or a later one have trained for so long: its number; 0 when the run has ended."""
    since = 0.0
    while is_live(run):
        status, now = last_status(run), time.monotonic()
        trains = status["attempts"] >= max(attempt, 1) and status["ranks"] and all(_trains(each["pid"]) for each in status["ranks"])
        since = (since or now) if trains else 0.0
        if trains and now - since >= seconds:
            return int(status["attempts"])
        time.sleep(_LOOK_SECONDS)
    return 0


def _trains(pid: int) -> bool:
    """Has it begun with its steps? One that never beats has as soon as it is there."""
    if not pid or not os.path.exists(f"/proc/{pid}"):
        return False
    page = page_of(pid)
    if page is None:
        return True
    try:
        return page.begin() is not None or not page.read().beats
    finally:
        page.close()


def _make(run: Path, fault: Fault) -> tuple[str, bool]:
    """Makes one fault; what it was, and whether it ends the attempt. The process is held by a pidfd, and must be a child of the run's
    agent: no other is ever hit."""
    ranks = last_status(run)["ranks"]
    chosen = ranks[int(fault.place * len(ranks))]
    pid, who = chosen["pid"], f"rank {chosen['rank']} (pid {chosen['pid']})"
    holder, gone = read_lease(run), (f"{fault.kind} {who}: it had just ended", False)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return gone
    page = page_of(pid)
    try:
        if holder is None or _parent(pid) != holder.pid:
            return gone
        place = f" at step {page.read().step}" if page and page.read().step >= 0 else ""
        with suppress(ProcessLookupError):
            if fault.kind == "exit":
                if page is None or not page.read().beats:
                    return f"exit {who}: it does not beat, so nothing was done", False
                page.order_exit(fault.code)
                return f"exit {who} with {fault.code}{place}", True
            if fault.kind == "slow":
                _slow(pidfd)
            else:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL if fault.kind == "kill" else signal.SIGSTOP)
        return f"{fault.kind} {who}{place}", fault.kind != "slow"
    finally:
        if page:
            page.close()
        os.close(pidfd)


def _slow(pidfd: int) -> None:
    end = time.monotonic() + _SLOW_SECONDS
    while time.monotonic() < end:
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
            time.sleep(_SLICE_SECONDS)
        finally:
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        time.sleep(_SLICE_SECONDS)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
