"""Evaluation: sums over the whole held-out set, divided once."""
from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mltrain.parallel.strategy import Strategy
from mltrain.task import Batch


class Evaluation(Protocol):
    """Held-out data in order, cut into micro-batches (the last may be smaller)."""

    def __len__(self) -> int: ...

    @property
    def fetch(self) -> Callable[[int], Batch]: ...


def evaluate(strategy: Strategy, data: Evaluation) -> dict[str, float]:
    """Name -> mean over all targets, the same on every rank. A metric without a target is left out."""
    sums = strategy.evaluate(len(data), data.fetch)
    return {name: total / weight for name, (total, weight) in sums.items() if weight}
