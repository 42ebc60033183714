"""Goodput: the share of a run's time that went into steps which were kept; and where the rest went. From the ledger alone, plus what the
live attempt has done so far.

Each second from the run's first row to its end is of exactly one class (`CLASSES`). An attempt's steps are kept in the proportion of those
that the next attempt did not have to make again. What is apart (a queue, a stop until somebody resumed) does not count against goodput.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from mltrain.runs.ledger import Row

CLASSES = {
    "kept": "steps that count", "data": "waiting for data", "evaluation": "evaluation", "saving": "saving", "callbacks": "callbacks",
    "starting": "starting up", "first_step": "first step", "redone": "steps lost to a failure", "detection": "hanging until noticed",
    "restart": "starting again", "backoff": "waiting before a restart", "nodes": "waiting for nodes", "ending": "ending",
    "unknown": "not accounted for", "queued": "before the first attempt", "idle": "stopped until resumed"}
APART = ("queued", "idle")
LOST, WAITING = "attempt lost", "waiting for nodes"      # events: an agent was killed with its attempt; nodes are missing
_ENDS = ("done", "failed", "cancelled", "stopped")
_AT_ONCE_SECONDS = 60.0  # what starts a killed agent again does so within this; later, somebody came by


@dataclass(slots=True)
class Attempt:
    """started, ended: seconds since 1970. outcome: as in the ledger; "" of one that runs, or of which nobody has told the end.
    first, last: steps done when it began and ended to train (-1: it never did). parts: of `account.account`. wait: seconds of backoff after
    it. nodes: since when the next one waited for nodes (0: it did not)."""

    started: float
    ended: float
    outcome: str = ""
    first: int = -1
    last: int = -1
    parts: dict[str, float] = field(default_factory=dict)
    wait: float = 0.0
    nodes: float = 0.0


def attempts(rows: Iterable[Row], live: Row | None = None) -> list[Attempt]:
    """live: what status.json has of the one that runs now (`account`), {} or None: nothing."""
    found: list[Attempt] = []
    for row in rows:
        if row["event"] == "attempt started":
            found.append(Attempt(row["time"], row["time"]))
        elif found and row["event"] in ("attempt ended", LOST):
            last = found[-1]
            _fill(last, row)
            last.outcome, last.wait = row.get("outcome", "lost"), row.get("wait", 0.0)
        elif found and row["event"] == WAITING and not found[-1].nodes:
            found[-1].nodes = row["time"]
    if found and live and not found[-1].outcome:
        _fill(found[-1], live)
    return found


def _fill(attempt: Attempt, row: Row) -> None:
    attempt.ended = max(attempt.started, row.get("until") or row["time"])
    attempt.first, attempt.last = row.get("first_step", -1), row.get("step", -1)
    seconds, training = attempt.ended - attempt.started, row.get("training_seconds", 0.0)
    # rows of before there were parts say only how long it trained
    attempt.parts = row.get("parts") or {"steps": min(training, seconds), "starting": max(0.0, seconds - training)}


def seconds(rows: Sequence[Row], live: Row | None = None) -> dict[str, float]:
    """Class -> seconds, those of 0 left out. They add up to the time from the first row to the end of the run, or to `live`."""
    if not rows:
        return {}
    spent = dict.fromkeys(CLASSES, 0.0)
    for name, amount in _pieces(rows, attempts(rows, live)):
        spent[name] += max(0.0, amount)
    return {name: round(amount, 3) for name, amount in spent.items() if amount >= 0.0005}


def goodput(spent: dict[str, float]) -> float | None:
    """Kept seconds / seconds that are not apart; None if no step has been made."""
    total = sum(amount for name, amount in spent.items() if name not in APART)
    return round(spent.get("kept", 0.0) / total, 4) if spent.get("kept") or spent.get("redone") else None


def summary(spent: dict[str, float]) -> str:
    """goodput 87.3 % of 12m03s; starting up 41s, steps lost to a failure 22s, saving 8s: for people, losses of a thousandth or more."""
    total = sum(amount for name, amount in spent.items() if name not in APART)
    losses = sorted(((amount, CLASSES[name]) for name, amount in spent.items() if name not in ("kept", *APART)), reverse=True)
    told = [f"{words} {lasted(amount)}" for amount, words in losses if amount >= total / 1000]
    told += [f"({CLASSES[name]}: {lasted(spent[name])})" for name in APART if spent.get(name, 0.0) >= 1]
    return f"goodput {100 * (goodput(spent) or 0.0):.1f} % of {lasted(total)}" + ("; " if told else "") + ", ".join(told)


def lasted(seconds: float) -> str:
    """0.4s, 12s, 3m05s, 7h30m"""
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest}s"
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def _pieces(rows: Sequence[Row], made: list[Attempt]) -> Iterator[tuple[str, float]]:
    """(class, seconds) of one stretch of time after another, without a gap."""
    at, before = rows[0]["time"], None
    for index, attempt in enumerate(made):
        yield from _between(before, at, attempt.started)
        known = attempt.outcome or index == len(made) - 1
        yield from _inside(attempt, made[index + 1:], again=before is not None and _restarted(before, attempt.started))
        at, before = attempt.ended, attempt if known else None
        if not known:                                          # its agent was killed, and nothing of it was found
            yield "unknown", made[index + 1].started - at
            at = made[index + 1].started
    last = next((row["time"] for row in reversed(rows) if row["event"] in _ENDS), at)
    yield "queued" if not made else "ending" if last - at < _AT_ONCE_SECONDS else "idle", last - at


def _restarted(before: Attempt, next_start: float) -> bool:
    """Did it go on at once?"""
    return before.outcome == "restarted" or (before.outcome == "lost" and next_start - before.ended < _AT_ONCE_SECONDS)


def _between(before: Attempt | None, at: float, start: float) -> Iterator[tuple[str, float]]:
    """What is between the end of one attempt and the start of the next."""
    if before is None or not _restarted(before, start):
        yield "queued" if before is None else "idle", start - at
        return
    backoff = min(before.wait, start - at)
    nodes = min(max(0.0, start - max(before.nodes, at + backoff)), start - at - backoff) if before.nodes else 0.0
    yield from (("backoff", backoff), ("nodes", nodes), ("restart", start - at - backoff - nodes))


def _inside(attempt: Attempt, later: list[Attempt], again: bool) -> Iterator[tuple[str, float]]:
    """What an attempt's own time was. again: it follows a failure."""
    total, whole = sum(attempt.parts.values()), attempt.ended - attempt.started
    scale = min(1.0, whole / total) if total > 0 else 1.0      # a clock that was set back
    kept = _kept(attempt, later)
    for part, amount in attempt.parts.items():
        amount *= scale
        if part in ("steps", "data"):
            yield "kept" if part == "steps" else "data", amount * kept
            yield "redone", amount * (1 - kept)
        elif part == "starting" and again:
            yield "restart", amount
        else:
            yield {"lost": "redone"}.get(part, part if part in CLASSES else "unknown"), amount
    yield "unknown", whole - total * scale


def _kept(attempt: Attempt, later: list[Attempt]) -> float:
    """The share of its steps that no later attempt made again. The first one has a class of its own."""
    resumed = min((each.first for each in later if each.first >= 0), default=attempt.last)
    begin = attempt.first + 1 if "first_step" in attempt.parts else attempt.first
    steps = attempt.last - begin
    if attempt.first < 0 or steps <= 0:
        return 1.0 if resumed >= attempt.last >= 0 else 0.0
    return min(1.0, max(0, min(resumed, attempt.last) - begin) / steps)
