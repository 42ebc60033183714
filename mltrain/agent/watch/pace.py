"""Says who holds the others up: looks at the ranks of an attempt about once a second, and writes what `stragglers.py` finds into the
ledger, the status and the console. On request a rank on a node of several is told to leave as unfit, so that another node takes its place.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mltrain.agent.hosts.members import Member
from mltrain.agent.journal import Journal, say
from mltrain.agent.options import Options
from mltrain.agent.watch.stragglers import DEFAULT_SECONDS, Slow, Stragglers, Work


class Pace:
    """Of one run. Without a limit nobody is looked at."""

    def __init__(self, options: Options, journal: Journal) -> None:
        self._journal, self._exclude = journal, options.exclude_stragglers
        self._within = DEFAULT_SECONDS if options.straggler_seconds is None else options.straggler_seconds
        self._attempt = 0                                      # the one that is looked at
        self._stragglers = Stragglers(self._within)
        self._slow: dict[int, dict[str, Any]] = {}             # as in status.json

    def look(self, nodes: dict[str, Member], attempt: int, tell: Callable[..., None]) -> None:
        """nodes: all that take part in the attempt. tell(node, kind, **fields): an order for one of them."""
        if attempt != self._attempt:
            self._attempt, self._stragglers, self._slow = attempt, Stragglers(self._within), {}
            self._journal.stragglers([])
        works = {row["rank"]: Work(*row["work"]) for node in nodes.values() for row in node.ranks if "work" in row}
        if not self._within or len(works) < max(2, sum(node.workers for node in nodes.values())):
            return
        changes = self._stragglers.look(time.monotonic(), works)
        for change in changes:
            if change.slow:
                self._name(change.slow, nodes, tell)
            elif change.over is not None:
                self._slow.pop(change.over, None)
                self._journal.row("straggler over", rank=change.over)
                say(f"rank {change.over} is as fast as the others again")
        if changes:
            self._journal.stragglers(list(self._slow.values()))

    def _name(self, slow: Slow, nodes: dict[str, Member], tell: Callable[..., None]) -> None:
        node, row = next((node, row) for node in nodes.values() for row in node.ranks if row["rank"] == slow.rank)
        excluded = self._exclude and len(nodes) > 1
        self._slow[slow.rank] = {"rank": slow.rank, "host": row["host"], "phase": slow.phase, "ratio": round(slow.ratio, 2)}
        self._journal.row("straggler", **self._slow[slow.rank], seconds=round(slow.seconds, 6), usual=round(slow.usual, 6),
                          step=row["step"], excluded=excluded)
        say(f"rank {slow.rank} on {row['host']} is slow: {slow.describe()}" + ("; its node is excluded" if excluded else ""))
        if excluded:
            tell(node, "exclude", rank=slow.rank)
