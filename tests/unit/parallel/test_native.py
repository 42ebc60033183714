"""A step is the mean over all targets, whatever the cut; a step that cannot be made leaves the weights alone."""
from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

from mltrain.errors import TaskError
from mltrain.parallel.native import Native
from mltrain.progress import Progress
from mltrain.task import Batch, Loss, Task


class Line(Task):
    """Squares of w·x over the targets that are no NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))
        self.unused = nn.Parameter(torch.ones(2))

    def loss(self, batch: Batch) -> Loss:
        x = batch["x"]
        return Loss((x @ self.w).square().sum(), len(x))


def native(rate: float = 0.1, micro_batches: int = 2, **options: object) -> Native:
    strategy = Native("single", **options)  # type: ignore[arg-type]
    strategy.setup(Line, partial(torch.optim.SGD, lr=rate), lambda step: 1.0, micro_batches)
    return strategy


def step(strategy: Native, *parts: torch.Tensor, stop: int = 0) -> object:
    return strategy.train_step(Progress(), [(i, {"x": part}) for i, part in enumerate(parts)], stop)


def test_unequal_micro_batches_are_weighed_by_their_targets() -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    uneven = native()
    result = uneven.train_step(Progress(), [(0, {"x": x[:3]}), (1, {"x": x[3:]})])
    w = torch.ones(3, requires_grad=True)
    (mean := (x @ w).square().mean()).backward()
    torch.testing.assert_close(uneven.task.w, torch.ones(3) - 0.1 * w.grad)  # type: ignore[operator]
    assert result.weight == 4 and math.isclose(result.loss, mean.item(), rel_tol=1e-6)
    assert math.isclose(result.norm, w.grad.norm().item(), rel_tol=1e-6)  # type: ignore[union-attr]


def test_clipping_scales_to_the_limit() -> None:
    strategy = native(rate=1.0, micro_batches=1, clip=0.5)
    strategy.train_step(Progress(), [(0, {"x": torch.eye(3)})])
    assert math.isclose((torch.ones(3) - strategy.task.w).norm().item(), 0.5, rel_tol=1e-4)  # type: ignore[operator]


def test_a_step_without_targets_is_skipped() -> None:
    strategy = native(micro_batches=1)
    result = strategy.train_step(Progress(), [(0, {"x": torch.empty(0, 3)})])
    assert result.skipped and result.loss == 0.0 and torch.equal(strategy.task.w, torch.ones(3))  # type: ignore[arg-type]


def test_numbers_that_are_none_end_the_run_and_leave_the_weights() -> None:
    strategy = native(micro_batches=1)
    with pytest.raises(TaskError, match="step 1: loss nan"):
        strategy.train_step(Progress(), [(0, {"x": torch.full((1, 3), math.nan)})])
    assert torch.equal(strategy.task.w, torch.ones(3))  # type: ignore[arg-type]


def test_whoever_is_asked_may_refuse_an_update() -> None:
    strategy, asked = native(micro_batches=1), []
    strategy.judge = lambda *numbers: bool(asked.append(numbers))
    result = strategy.train_step(Progress(), [(0, {"x": torch.full((1, 3), math.inf)})])
    assert result.skipped and torch.equal(strategy.task.w, torch.ones(3))  # type: ignore[arg-type]
    assert [(step, weight) for step, _, _, weight in asked] == [(1, 1.0)]


def test_the_schedule_is_followed() -> None:
    strategy = Native("single")
    strategy.setup(Line, partial(torch.optim.SGD, lr=0.5), lambda step: 0.1 * step, 1)
    assert [strategy.train_step(Progress(step=s), [(0, {"x": torch.eye(3)})]).lr for s in (0, 2)] == [0.0, 0.1]


def test_a_wish_to_stop_comes_back_agreed() -> None:
    assert native(micro_batches=1).train_step(Progress(), [(0, {"x": torch.eye(3)})], stop=2).stop == 2


def test_evaluation_is_a_sum_over_sums() -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    parts = [x[:2], x[2:4], x[4:]]
    total, weight = native().evaluate(3, lambda i: {"x": parts[i]})["loss"]
    assert weight == 5 and math.isclose(total, (x @ torch.ones(3)).square().sum().item(), rel_tol=1e-6)


def test_state_names_are_canonical() -> None:
    strategy = Native("single")
    strategy.setup(Line, partial(torch.optim.AdamW, lr=0.1), lambda step: 1.0, 1)
    strategy.train_step(Progress(), [(0, {"x": torch.eye(3)})])
    assert sorted(strategy.state_dict()) == sorted(
        ["parameters/w", "parameters/unused"] + [f"optimizer/{n}/{k}" for n in ("w", "unused") for k in ("step", "exp_avg", "exp_avg_sq")])


def test_restore_fills_a_fresh_optimizer() -> None:
    made = {name: tensor.clone() for name, tensor in _trained().state_dict().items()}
    fresh = Native("single")
    fresh.setup(Line, partial(torch.optim.AdamW, lr=0.1), lambda step: 1.0, 1)
    fresh.restore(lambda state: [state[name].copy_(made[name]) for name in made])
    assert all(torch.equal(fresh.state_dict()[name], made[name]) for name in made)


def test_a_restore_that_finds_nothing_leaves_a_fresh_start() -> None:
    fresh = Native("single")
    fresh.setup(Line, partial(torch.optim.AdamW, lr=0.1), lambda step: 1.0, 1)
    assert fresh.restore(lambda state: None) is None and not fresh.optimizer.state


def _trained() -> Native:
    strategy = Native("single")
    strategy.setup(Line, partial(torch.optim.AdamW, lr=0.1), lambda step: 1.0, 1)
    strategy.train_step(Progress(), [(0, {"x": torch.eye(3)})])
    return strategy
