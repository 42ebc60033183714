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
from numbers import Real
from typing import ClassVar, NamedTuple

import torch
from torch import nn

from mltrain.errors import TaskError

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
        # as nn.Module's own forward, and not abstract: a task that is only evaluated or exported needs no loss
        raise NotImplementedError(f"{type(self).__name__} defines no loss(batch)")

    def evaluate(self, batch: Batch) -> dict[str, Loss]:
        """Name -> Loss of one micro-batch of held-out data, without gradients. Each is summed over the data, then divided."""
        return {"loss": self.loss(batch)}

    def weight(self, batch: Batch) -> int | None:
        """Number of targets, if known without a forward (engines that divide before the backward need it)."""
        return None

    def forward(self, batch: Batch, evaluating: bool = False) -> Loss | dict[str, Loss]:
        """The one door that strategies call, so that hooks on modules (sharding, compile) see every pass."""
        if not evaluating:
            loss = _checked(self.loss(batch), name := f"{type(self).__name__}.loss")
            if torch.is_grad_enabled() and not loss[0].requires_grad:
                raise TaskError(f"{name}: total depends on no parameter", "was it detached, or made anew by torch.tensor(...)?")
            return loss
        results, name = self.evaluate(batch), f"{type(self).__name__}.evaluate"
        if not isinstance(results, dict):
            raise TaskError(f"{name} returned {_kind(results)}, not a dict of Loss", 'return {"loss": Loss(total, weight), ...}')
        return {key: _checked(result, f"{name}: {key!r}") for key, result in results.items()}


def _checked(loss: Loss, name: str) -> Loss:
    """A wrong type is named here, where it comes from, and not by whatever stumbles over it later."""
    if not isinstance(loss, tuple) or len(loss) != 2:
        raise TaskError(f"{name} returned {_kind(loss)}, not a Loss", "return Loss(total, weight): the sum over the targets, their number")
    total, weight = loss
    if not isinstance(total, torch.Tensor) or total.dim():
        raise TaskError(f"{name}: total is {_kind(total)}, not a 0-d tensor", "sum it over the targets: reduction=\"sum\", or .sum()")
    if weight.numel() != 1 if isinstance(weight, torch.Tensor) else not isinstance(weight, Real):
        raise TaskError(f"{name}: weight is {_kind(weight)}, not a number", "give the number of targets: an integer or a 0-d tensor")
    return loss


def _kind(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return "None" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


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
