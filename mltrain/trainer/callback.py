"""What hangs on a run's moments: seven hooks, each given (progress, result), never the trainer.

Hooks run on every rank, in list order, after what they are named for. A callback that needs the task, the data or a folder says so in its
constructor (`task`, `data`, `directory`, `seed` are handed in). Its state, if any, is a small plain dict that goes into each
checkpoint.
What a hook returns, if anything, is a sentence for people: rank 0's is printed and kept with the metrics. An exception in a hook ends
the run like any other in user code.
"""
from __future__ import annotations

from typing import Any

from mltrain.progress import Progress
from mltrain.task import StepResult


class Callback:
    """Override what you need."""

    def start(self, progress: Progress, result: StepResult | None) -> str | None:
        """Before the first step of this attempt; progress is where it goes on. result is None."""

    def step(self, progress: Progress, result: StepResult) -> str | None:
        """After each optimizer step."""

    def evaluated(self, progress: Progress, result: StepResult) -> str | None:
        """After an evaluation; its numbers are in result.metrics."""

    def saved(self, progress: Progress, result: StepResult) -> str | None:
        """After the state was copied for a checkpoint (it becomes durable while training goes on)."""

    def stop(self, progress: Progress, result: StepResult | None) -> str | None:
        """After the last step of this attempt, done or not."""

    def error(self, progress: Progress, result: StepResult | None) -> str | None:
        """An exception is on its way out; result is of the last whole step."""

    def close(self, progress: Progress, result: StepResult | None) -> str | None:
        """Always last."""

    def state(self) -> dict[str, Any]:
        """JSON-able; empty if there is nothing to keep."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Takes back what state() gave."""
