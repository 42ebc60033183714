"""The contract of a strategy: where parameters live and how a step is computed. `native` is ours, engines are adaptors."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from mltrain.errors import TaskError
from mltrain.progress import Progress
from mltrain.task import Batch, StepResult, Task

State = dict[str, Tensor]                                   # parameters/NAME, buffers/NAME, optimizer/NAME/KEY; values may be DTensors
Factory = Callable[[], Task]
OptimizerFactory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Schedule = Callable[[int], float]                           # optimizer steps done -> factor of the base learning rate
Judge = Callable[[int, float, float, float], bool]          # step, loss, gradient norm, weight -> is the update made?
T = TypeVar("T")


class Strategy(Protocol):
    warning: str            # what a person should know about how it was set up, or ""
    phase: Callable[[str], None]         # set by the Trainer; train_step says "collective" before it waits for other ranks, then "compute"
    judge: Judge            # set by the Trainer; train_step asks it before the update, with numbers that are the same on every rank

    def setup(self, task: Factory | Task, optimizer: OptimizerFactory, schedule: Schedule, micro_batches: int) -> Task:
        """Called once, first. Builds (or takes) the task, places it and makes the optimizer. Returns the task as it is placed."""

    def share(self) -> list[int]:
        """Indices of the micro-batches of a global batch that this rank computes, in order; the same number on every rank."""

    def train_step(self, progress: Progress, micro_batches: list[tuple[int, Batch]], stop: int = 0) -> StepResult:
        """One optimizer step on this rank's micro-batches. stop: this rank's wish; the result holds the greatest of all ranks."""

    def evaluate(self, count: int, fetch: Callable[[int], Batch]) -> dict[str, tuple[float, float]]:
        """Sums (total, weight) over evaluation micro-batches 0..count-1, the same on every rank."""

    def state_dict(self) -> State:
        """Canonical name -> tensor or DTensor: the live ones, the same names under every strategy."""

    def restore(self, read: Callable[[State], T | None]) -> T | None:
        """Lets `read` fill the state in place (optimizer state included) and takes it over. None from it: a fresh start of the optimizer,
        with the parameters as they are now (`read` may have filled them with weights to begin with)."""


def finite(step: int, loss: float, norm: float, weight: float) -> bool:
    """The judge of a strategy without a Trainer. Raises TaskError for numbers that are none; no update without targets."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TaskError(f"step {step}: loss {loss}, gradient norm {norm}: no update was made", "lower the learning rate, or set clip")
    return weight > 0


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Columns on the device. Host buffers are pinned by the loader and reused after the step, so the copy may overlap."""
    return {name: column.to(device, non_blocking=True) for name, column in batch.items()} if device.type != "cpu" else batch


def evaluation_rounds(count: int, world: int, rank: int) -> Iterable[tuple[int, bool]]:
    """(index, counts) of each round. Every rank runs as many forwards, as sharded parameters are gathered together; surplus ones do not
    count."""
    for start in range(0, count, world):
        index = start + rank
        yield (index, True) if index < count else (count - 1, False)
