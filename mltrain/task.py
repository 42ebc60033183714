"""What a user writes: a Task says what is minimised; everything else (where, how often, on how many ranks) is ours.

    class Digits(Task):
        def __init__(self, width: int = 32):
            super().__init__()
            self.model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

        def loss(self, batch):
            logits = self.model(batch["image"])
            return Loss(nn.functional.cross_entropy(logits, batch["label"], reduction="sum"), len(logits))
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import nn

Batch = dict[str, torch.Tensor]      # column name -> [micro_batch, ...]; one micro-batch


class Loss(NamedTuple):
    """A sum and what to divide it by. Kept apart until all micro-batches and ranks are added up: averages of averages are wrong
    whenever micro-batches hold unequal numbers of targets.

    total: 0-d tensor, summed (not averaged) over the targets. weight: number of targets, an integer or a 0-d tensor."""

    total: torch.Tensor
    weight: int | torch.Tensor


class Task(nn.Module):
    """A model and what it minimises. Only `loss` must be written.

    forward_methods: names of further methods that use the model from outside (generation), so that sharded weights are there for them."""

    forward_methods: ClassVar[tuple[str, ...]] = ()

    def loss(self, batch: Batch) -> Loss:
        """Forward one micro-batch. total is differentiated; weight counts its targets (0 is allowed)."""
        raise NotImplementedError(f"{type(self).__name__} defines no loss(batch)")

    def evaluate(self, batch: Batch) -> dict[str, Loss]:
        """Name -> Loss of one micro-batch of held-out data, without gradients. Each is summed over the data, then divided."""
        return {"loss": self.loss(batch)}

    def weight(self, batch: Batch) -> int | None:
        """Number of targets, if known without a forward (engines that divide before the backward need it)."""
        return None

    def forward(self, batch: Batch, evaluating: bool = False) -> Loss | dict[str, Loss]:
        """The one door that strategies call, so that hooks on modules (sharding, compile) see every pass."""
        return self.evaluate(batch) if evaluating else self.loss(batch)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did, the same on every rank.

    step: number of the step just done (1 is the first). loss: mean over all targets. weight: number of targets. norm: of the gradient,
    before clipping. lr: learning rate used. skipped: no update was made
    (no targets, or numbers that are not finite). stop: some rank asked to stop (a code of trainer.stop; 0 is none).
    seconds: where this rank's time went, by phase. metrics: results of an evaluation that followed this step."""

    step: int
    loss: float
    weight: float
    norm: float
    lr: float
    skipped: bool = False
    stop: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
