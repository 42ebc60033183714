"""Finds ranks that are slower than the others: how long each works before it meets them in a collective. Where a step ends in one, its
slowest rank is what all wait for.

Compared are seconds a step over one interval after another, from the accounts in the pulse pages: no message between workers, nothing in
their loop. A rank is named when it needs `RATIO` times the median of the others, and a tenth of the step more than they, in each of
`INTERVALS` intervals in a row; it is over when that is no longer so for as many. Time in which a runnable rank had no processor is counted
apart, and must last `PATIENCE` times as long: schedulers even it out, unless somebody else's work stays there.

It cannot see a collective that is slow by itself, nor into a forward pass that waits for others in the middle (FSDP's gathers): there all
ranks look alike.
"""
from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import NamedTuple

DEFAULT_SECONDS = 25.0
INTERVALS, PATIENCE = 5, 3
RATIO, SHARE, SPREADS = 1.4, 0.1, 5.0
_STEPS = 10                          # in an interval, at least
PHASES = ("compute", "data", "other", "processor")


class Work(NamedTuple):
    """Of one rank, all since it began to train. step: steps done. busy: seconds in compute, data, other things (callbacks), each outside of
    collectives. starved: seconds in which it could run and no processor was free."""

    step: int
    compute: float
    data: float
    other: float
    starved: float


def work(step: int, seconds: dict[str, float], starved: float) -> list[float]:
    """A Work as JSON. seconds: by phase, of the rank's account."""
    other = seconds["callback"] + seconds["none"]
    return [step, *(round(part, 4) for part in (seconds["compute"], seconds["data"], other, starved))]


@dataclass(frozen=True, slots=True)
class Slow:
    """rank is slow. seconds: what it needs a step before it meets the others; usual: the median of these. phase: in which of PHASES most of
    the difference is."""

    rank: int
    phase: str
    seconds: float
    usual: float

    @property
    def ratio(self) -> float:
        return self.seconds / max(self.usual, 1e-6)

    def describe(self) -> str:
        where = "its processor is taken by other work" if self.phase == "processor" else f"in phase {self.phase}"
        return f"{self.seconds * 1e3:.0f} ms a step where the others need {self.usual * 1e3:.0f} ms ({self.ratio:.1f} times), {where}"


@dataclass
class _Count:
    slow: int = 0                    # intervals in a row in which it was slow
    starved: int = 0                 # the same if time without a processor counts
    calm: int = 0
    named: bool = False


class Change(NamedTuple):
    """slow: a rank to name, or None; over: a rank that no longer is slow, or None."""

    slow: Slow | None = None
    over: int | None = None


@dataclass
class Stragglers:
    """Of one attempt. within: seconds after which a slow rank is named, if the steps are short."""

    within: float = DEFAULT_SECONDS
    _mark: tuple[float, dict[int, Work]] | None = None
    _counts: dict[int, _Count] = field(default_factory=dict)

    def look(self, now: float, works: dict[int, Work]) -> list[Change]:
        """Once a second or so. works: of all ranks that train."""
        if self._mark is None or self._mark[1].keys() != works.keys():
            self._mark = now, works
            return []
        then, before = self._mark
        if now - then < self.within / INTERVALS or any(work.step < before[rank].step + _STEPS for rank, work in works.items()):
            return []
        self._mark = now, works
        spent = {rank: _difference(before[rank], work) for rank, work in works.items()}
        step = statistics.median((now - then) / (work.step - before[rank].step) for rank, work in works.items())
        return [change for rank in works if (change := self._judge(rank, spent, step))]

    def _judge(self, rank: int, spent: dict[int, dict[str, float]], step: float) -> Change | None:
        count = self._counts.setdefault(rank, _Count())
        own, whole = _slow(rank, spent, step, PHASES[:3]), _slow(rank, spent, step, PHASES)
        count.slow = count.slow + 1 if own else 0
        count.starved = count.starved + 1 if whole else 0
        count.calm = 0 if whole else count.calm + 1
        if count.named:
            if count.calm < INTERVALS:
                return None
            count.named = False
            return Change(over=rank)
        found = own if count.slow >= INTERVALS else whole if count.starved >= INTERVALS * PATIENCE else None
        count.named = found is not None
        return Change(slow=found) if found else None


def _difference(before: Work, now: Work) -> dict[str, float]:
    """Seconds a step, by phase. What a rank waited for a processor is taken off its computing."""
    steps = now.step - before.step
    starved = max(0.0, now.starved - before.starved)
    compute = max(0.0, now.compute - before.compute)
    parts = (max(0.0, compute - starved), now.data - before.data, now.other - before.other, min(starved, compute))
    return {name: max(0.0, part) / steps for name, part in zip(PHASES, parts, strict=True)}


def _slow(rank: int, spent: dict[int, dict[str, float]], step: float, phases: tuple[str, ...]) -> Slow | None:
    """Is it slow in this interval? step: seconds of a whole step."""
    totals = {each: sum(parts[phase] for phase in phases) for each, parts in spent.items()}
    others = [total for each, total in totals.items() if each != rank]
    if not others:
        return None
    usual = statistics.median(others)
    spread = statistics.median(abs(total - usual) for total in others)
    excess = totals[rank] - usual
    if totals[rank] < RATIO * usual or excess < max(SHARE * step, SPREADS * spread):
        return None
    phase = max(phases, key=lambda name: spent[rank][name] - statistics.median(spent[each][name] for each in spent if each != rank))
    return Slow(rank, phase, totals[rank], usual)
