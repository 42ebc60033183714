"""Turns what a step did and how long it took into a train record: totals, throughput, times a step, memory, time left.

Rates are those of the interval since the record before, so that a slow hour shows and is not averaged away.
"""
from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from mltrain.metrics.sink import Value
from mltrain.progress import Progress

if TYPE_CHECKING:
    from mltrain.task import StepResult


class Meter:
    """steps: the run's last step, if known (then records carry `steps` and `eta_seconds`). start: where this attempt begins."""

    def __init__(self, steps: int | None = None, start: Progress | None = None) -> None:
        self.steps, self._last = steps, start or Progress()
        self._phases: dict[str, float] = {}

    def count(self, result: StepResult) -> None:
        """Each step, recorded or not: where its time went."""
        for phase, seconds in result.seconds.items():
            self._phases[phase] = self._phases.get(phase, 0.0) + seconds

    def record(self, result: StepResult, progress: Progress, seconds: float, data_seconds: float) -> dict[str, Value]:
        """progress: after the step. seconds: on the wall, since the record before (since the start for the first). data_seconds: of these,
        waited for data. The record's step_seconds and data_seconds are means over the steps in between, and so are those of the phases of
        a step (compute_seconds, …); samples and tokens are totals."""
        steps = max(1, progress.step - self._last.step)
        samples, tokens = progress.samples - self._last.samples, progress.tokens - self._last.tokens
        self._last = progress
        seconds = max(seconds, 1e-9)
        record: dict[str, Value] = {
            "kind": "train", "step": progress.step, "time": time.time(),
            "loss": result.loss, "norm": result.norm, "lr": result.lr, "weight": result.weight,
            "samples": progress.samples, "tokens": progress.tokens,
            "samples_per_second": samples / seconds, "tokens_per_second": tokens / seconds,
            "step_seconds": seconds / steps, "data_seconds": data_seconds / steps, "memory_bytes": memory_bytes(),
        }
        record |= {f"{phase}_seconds": spent / steps for phase, spent in self._phases.items()}
        self._phases = {}
        if result.skipped:
            record["skipped"] = True
        if self.steps is not None:
            record |= {"steps": self.steps, "eta_seconds": max(0, self.steps - progress.step) * seconds / steps}
        return record


def memory_bytes() -> int:
    """The accelerator's peak of allocated bytes; without an accelerator this process's resident bytes (of now)."""
    torch = sys.modules.get("torch")          # a process that has not imported it has nothing on an accelerator
    if torch is not None and torch.accelerator.is_available():
        return int(torch.accelerator.max_memory_allocated())
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
