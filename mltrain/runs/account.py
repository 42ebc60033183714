"""Where one attempt's time went, worked out by the agent from the pulse page of its first rank: what the ledger's row says of it.

    started ── starting ──> begun ── first_step ──> first ── steps, data, evaluation, saving, callbacks ──> last beat ──> left ──> ended

What was under way when a failure came is lost. Silence before a hang was seen is detection. All parts add up to the time from `started`
to `ended`.
"""
from __future__ import annotations

from typing import NamedTuple

from mltrain.runs.pulse import Spent

_PARTS = {"none": "steps", "load": "starting", "data": "data", "compute": "steps", "collective": "steps", "save": "saving",
          "evaluate": "evaluation", "callback": "callbacks"}
_OF_STEPS = ("steps", "data")


class Account(NamedTuple):
    """parts: seconds by part, those of 0 left out. silent: (part, seconds) of these since the last beat."""

    parts: dict[str, float]
    silent: tuple[str, float]


def account(spent: Spent, started: float, left: float, ended: float, failed: bool) -> Account:
    """Moments are time.monotonic. left: the failure, or when the last worker was gone. ended: when that had been dealt with. failed: the
    attempt did not end in order."""
    left = max(left, spent.last, started)                      # a culprit notes its failure, and the first rank beats once more
    parts: dict[str, float] = {}

    def add(part: str, seconds: float) -> None:
        parts[part] = parts.get(part, 0.0) + max(0.0, seconds)

    add("starting", (spent.begun or left) - started)
    if spent.begun:
        add("first_step", (spent.first or left) - spent.begun)
    if spent.first:
        for phase, seconds in spent.seconds.items():
            done = spent.stepped.get(phase, 0.0) if failed and _PARTS[phase] in _OF_STEPS else seconds
            add(_PARTS[phase], done)
            add("lost", seconds - done)
    part = _last(spent, failed)
    if spent.first:
        add(part, left - spent.last)
    add("restart" if failed else "ending", ended - left)
    return Account(_rounded(parts), (part, round(left - max(spent.last, started), 3)))


def running(spent: Spent, started: float, now: float) -> dict[str, float]:
    """The parts of an attempt that goes on: what is under way counts to the phase it is in."""
    last = max(spent.last, started)
    parts = account(spent, started, last, last, failed=False).parts
    part = _PARTS[spent.phase] if spent.first else "first_step" if spent.begun else "starting"
    return _rounded({**parts, part: parts.get(part, 0.0) + max(0.0, now - last)})


def with_detection(made: Account, silent: float = 0.0) -> dict[str, float]:
    """The parts of an attempt that somebody's silence ended: it was the time until that was noticed. silent: seconds of whom that was. The
    first rank may have been heard since, when a stopped one was woken to write its stack: then it had waited in its steps."""
    part, seconds = made.silent
    parts, left = dict(made.parts), max(seconds, silent)
    for name in (part, "lost", "steps"):
        moved = min(left, parts.get(name, 0.0))
        parts[name], left = parts.get(name, 0.0) - moved, left - moved
    return _rounded({**parts, "detection": max(seconds, silent) - left})


def _last(spent: Spent, failed: bool) -> str:
    """What the time since the last beat was, if it was no hang."""
    if not spent.first:
        return "first_step" if spent.begun else "starting"
    if not failed:
        return "ending"
    return "lost" if _PARTS[spent.phase] in _OF_STEPS else _PARTS[spent.phase]


def _rounded(parts: dict[str, float]) -> dict[str, float]:
    return {part: round(seconds, 3) for part, seconds in parts.items() if seconds >= 0.0005}
