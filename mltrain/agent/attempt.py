"""What a controller learns of one attempt from its nodes' reports, until all of their workers are gone."""
from __future__ import annotations

import signal
import time
from typing import Any

from mltrain.agent.cause import HUNG, LOST, End, lost_node
from mltrain.agent.hosts.members import Member
from mltrain.runs.account import Account, with_detection


class Attempt:
    """nodes: in the order of their ranks. None: before the first attempt."""

    def __init__(self, nodes: list[Member] | None = None) -> None:
        self.nodes = {node.id: node for node in nodes or []}
        self.running = set(self.nodes)                         # who still has workers
        self.failing = False                                   # all are told to stop
        self.growing = False                                   # all are told to leave, for more to come
        self.ends: list[End] = []
        self.codes: set[int] = set()                           # other than 0
        self.trained, self.step, self.stopped_early = 0, -1, False
        self.started = time.monotonic()

    @property
    def ranks(self) -> int:
        return sum(node.workers for node in self.nodes.values())

    def take(self, node: Member, ends: list[dict[str, Any]]) -> None:
        """How workers of that node ended; a second word on the same rank adds nothing."""
        known, now = {end.rank for end in self.ends}, time.monotonic()
        host = node.name if len(self.nodes) > 1 else ""
        self.ends += [End.unpacked({**values, "host": host}, now) for values in ends if values["rank"] not in known]

    def pulse(self, node: Member, message: dict[str, Any]) -> None:
        """Where its workers are."""
        begun = message["begun"]
        node.ranks, node.begun = message["ranks"], (begun[0], time.monotonic() - begun[1]) if begun else None
        node.parts = message["parts"]

    def stopped(self, node: Member, message: dict[str, Any]) -> None:
        """All workers there are gone."""
        self.take(node, message["ends"])
        self.pulse(node, message)
        node.silent = message["silent"][0], message["silent"][1]
        self.codes |= set(message["codes"])
        self.trained, self.step = max(self.trained, message["trained"]), max(self.step, message["step"])
        self.stopped_early |= message["early"]
        self.running.discard(node.id)

    def lost(self, node: Member, why: str) -> None:
        """Whatever its workers do, they do it no longer for this attempt."""
        self.ends.append(lost_node(node.name, why, max((row["step"] for row in node.ranks), default=-1)))
        self.running.discard(node.id)

    @property
    def left_to_grow(self) -> bool:
        """They were asked to leave for more nodes to come, and nothing else happened."""
        return self.growing and all(end.code == -signal.SIGTERM for end in self.ends)

    @property
    def begun(self) -> tuple[int, float] | None:
        """(step, time.monotonic) at which it began to train."""
        return min((node.begun for node in self.nodes.values() if node.begun), key=lambda each: each[1], default=None)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Of all ranks, for status.json."""
        return [row for node in self.nodes.values() for row in node.ranks]

    def parts(self, cause: End | None = None) -> dict[str, float]:
        """Where the attempt's time went, by its first node that told of the end, else that knows. Silence before a rank was found to hang,
        or a node to be lost, was the time to notice it."""
        known = sorted((node for node in self.nodes.values() if node.parts), key=lambda node: not node.silent[0])
        if not known:
            return {}
        if cause is None or cause.type not in (HUNG, LOST):
            return known[0].parts
        return with_detection(Account(known[0].parts, known[0].silent), cause.silent)
