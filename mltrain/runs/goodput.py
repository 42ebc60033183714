"""Goodput: the share of a run's time that was spent on steps which were kept. From the ledger alone, plus what the live attempt has done
so far.

An attempt's training time is kept in the proportion of its steps that the next attempt did not have to make again. The time counted is
that of attempts and of the waits between them; a pause in which a stopped run lay still is not counted.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mltrain.runs.ledger import Row


@dataclass(slots=True)
class Span:
    """One attempt. started, ended: seconds since 1970. first, last: steps done when it began and ended to train (-1: it never did).
    training: seconds between those. paused: was it stopped in order, or cut off with nobody to restart it?"""

    started: float
    ended: float
    first: int = -1
    last: int = -1
    training: float = 0.0
    paused: bool = False


def spans(rows: Iterable[Row], live: Span | None = None) -> list[Span]:
    """The attempts of a ledger. live: the one that runs now (its row has not been written yet)."""
    found: list[Span] = []
    for row in rows:
        if row["event"] == "attempt started":
            found.append(Span(row["time"], row["time"], paused=True))
        elif row["event"] == "attempt ended" and found:
            last = found[-1]
            last.ended, last.paused = row["time"], row.get("outcome") != "restarted"
            last.first, last.last, last.training = row.get("first_step", -1), row.get("step", -1), row.get("training_seconds", 0.0)
    if live and found:
        found[-1] = live
    return found


def goodput(attempts: list[Span]) -> float | None:
    """Kept training seconds / seconds; None when no attempt has said which steps it made."""
    if not any(span.first >= 0 and span.last > span.first for span in attempts):
        return None
    spent = times(attempts)
    total = sum(spent.values())
    return round(min(1.0, spent["kept"] / total), 4) if total > 0 else None


def times(attempts: list[Span]) -> dict[str, float]:
    """Where the time went, in seconds. kept: training whose steps counted. redone: training whose steps the next attempt made again.
    starting: of attempts, before their first step and after their last. waiting: between attempts."""
    spent = dict.fromkeys(("kept", "redone", "starting", "waiting"), 0.0)
    for index, span in enumerate(attempts):
        following = attempts[index + 1] if index + 1 < len(attempts) else None
        if following and not span.paused:
            spent["waiting"] += max(0.0, following.started - span.ended)
        seconds, steps = max(0.0, span.ended - span.started), span.last - span.first
        if span.first < 0 or steps <= 0:
            spent["starting"] += seconds
            continue
        training = min(span.training, seconds)
        resumed = next((later.first for later in attempts[index + 1:] if later.first >= 0), span.last)
        kept = training * min(1.0, max(0, min(resumed, span.last) - span.first) / steps)
        spent["kept"] += kept
        spent["redone"] += training - kept
        spent["starting"] += seconds - training
    return spent
