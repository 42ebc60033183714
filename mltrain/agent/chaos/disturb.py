"""Breaks a live run on purpose, from outside: `mltrain chaos`. Which faults (`harm.py`), on which ranks and after how many steps follows
from the seed alone, so that what they bring to light can be made again. Each kind comes once before any comes twice.

Moments are steps that the run has made, counted from where chaos began (or from `start`); a run that goes back for a failure comes to the
next one when it is beyond it. For a script that does not say its steps they are seconds in which its ranks were all there.
"""
from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mltrain.agent.chaos import harm
from mltrain.agent.chaos.harm import KINDS, Checkpoints, Victim
from mltrain.errors import NodeUnfit, StorageError, UsageError
from mltrain.runs import ledger
from mltrain.runs.layout import config_file, ledger_file
from mltrain.runs.lease import is_live, read_lease
from mltrain.runs.outcome import last_status, pid_lives
from mltrain.runs.pulse import Page, page_of

_LOOK_SECONDS = 0.02
_SILENT_SECONDS = 5.0    # a script that has not said its step by then does not say any


@dataclass(frozen=True, slots=True)
class Fault:
    """place: from 0 to 1, which of the ranks. code: for exit. at: not before so many steps (or seconds) from the beginning."""

    kind: str
    place: float
    code: int
    at: int


def plan(seed: int, kinds: Sequence[str], every: int) -> Iterator[Fault]:
    """The faults, without end. every: steps between two of them, half of it more or less."""
    draw, at = random.Random(seed), 0
    while True:
        for kind in draw.sample(list(kinds), len(kinds)):
            at += draw.randint(max(1, every - every // 2), max(1, every + every // 2))
            yield Fault(kind, draw.random(), draw.choice(harm.EXIT_CODES), at)


def disturb(run: Path, seed: int, kinds: Sequence[str], every: int, count: int | None = None, start: int | None = None,
            checkpoints: Checkpoints | None = None) -> Iterator[str]:
    """Makes faults while the run lives; a line for each. count: at most so many. start: the step from which moments are counted (default:
    where the run is now). Raises UsageError (64) for an unknown kind, a run that is not live or has not what a kind takes, NodeUnfit (69)
    for one on another machine or what this one lacks."""
    if unknown := [kind for kind in kinds or [""] if kind not in KINDS]:
        raise UsageError(f"--faults: {unknown[0]!r} is no kind of fault", "one or more of " + ",".join(KINDS))
    holder = read_lease(run)
    if holder is None or not is_live(run):
        raise UsageError(f"{run.name} is not live", "mltrain status shows which runs are")
    if holder.host != socket.gethostname():
        raise NodeUnfit(f"{run.name} runs on {holder.host}, this is {socket.gethostname()}", "make its faults there")
    eye, made = Eye(run), 0
    if eye.wait(0):
        harm.check(kinds, _victim(eye, run, next(plan(seed, kinds, every)), random.Random(), checkpoints))
    begin = eye.position if start is None else start
    for number, fault in enumerate(plan(seed, kinds, every), 1):
        if made == count:
            return
        if not _due(eye, run, fault, begin + fault.at, checkpoints):
            yield f"the run has ended after {made} fault{'s' * (made != 1)}"
            return
        victim = _victim(eye, run, fault, random.Random(f"{seed} {number}"), checkpoints)
        where = f"at {eye.unit} {eye.position} (due at {begin + fault.at})"
        with suppress(StorageError):                           # before a full disk, not in it
            ledger.Ledger(ledger_file(run)).append("disturbed", fault=fault.kind, rank=victim.rank, step=eye.step, seed=seed, number=number)
        text = harm.make(fault.kind, victim)
        made += bool(text)
        eye.after += bool(text) and fault.kind in harm.ENDS    # the next one waits for the attempt that this one brings about
        yield f"fault {number}: {text or fault.kind + ': the process had just ended'} {where}"


def _due(eye: Eye, run: Path, fault: Fault, at: int, checkpoints: Checkpoints | None) -> bool:
    """When it is; False if the run ends before."""
    return eye.wait(at, lambda: harm.wanting(fault.kind, _victim(eye, run, fault, random.Random(), checkpoints)))


def _victim(eye: Eye, run: Path, fault: Fault, draw: random.Random, checkpoints: Checkpoints | None) -> Victim:
    rank = sorted(eye.ranks)[int(fault.place * len(eye.ranks))]
    return Victim(run, rank, eye.ranks[rank], eye.ranks, checkpoints, draw, fault.code)


class Eye:
    """What can be seen of a run's ranks from outside: status.json says who they are, their pages where they are.

    after: attempts before this one are not waited for. ranks: rank -> pid. position: how far the run is, in `unit` (step or second).
    step: -1 where no rank says it."""

    def __init__(self, run: Path) -> None:
        self.after, self.ranks, self.position, self.unit, self.step = 1, dict[int, int](), 0, "step", -1
        self._run, self._own, self._pages = run, config_file(run).exists(), dict[int, Page]()
        self._there, self._looked, self._seconds = 0.0, 0.0, 0.0

    def wait(self, at: int, held: Callable[[], bool] = lambda: False) -> bool:
        """Until every rank has made a step in its attempt, the run is at `at`, and nothing holds us. False when the run has ended."""
        while is_live(self._run):
            if self._all_at_work() and self.position >= at and not held():
                return True
            time.sleep(_LOOK_SECONDS)
        return False

    def _all_at_work(self) -> bool:
        status, now = last_status(self._run), time.monotonic()
        before, self._looked = self._looked, now
        ranks = {each["rank"]: each["pid"] for each in status["ranks"] if each["pid"]}
        if status["attempts"] < self.after or not ranks or len(ranks) < len(status["ranks"]) or not all(map(pid_lives, ranks.values())):
            self._there = 0.0
            return False
        if ranks != self.ranks:
            self._forget()
        self.after, self.ranks, self._there = int(status["attempts"]), ranks, self._there or now
        beats = [(page.read(), page.begin()) for page in self._open()]
        if len(beats) == len(ranks) and all(beat.step >= 0 for beat, _ in beats):
            self.unit, self.step = "step", min(beat.step for beat, _ in beats)
            self.position = self.step
            return all(begin is not None and beat.step > begin[0] for beat, begin in beats)
        if self._own or now - self._there < _SILENT_SECONDS:
            return False
        self._seconds += now - max(before, self._there)
        self.unit, self.position = "second", int(self._seconds)
        return True

    def _open(self) -> list[Page]:
        for pid in self.ranks.values():
            if pid not in self._pages and (found := page_of(pid)):
                self._pages[pid] = found
        return [*self._pages.values()]

    def _forget(self) -> None:
        for each in self._pages.values():
            each.close()
        self._pages = {}
