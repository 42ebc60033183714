"""Replicas hold the same bytes, and the one that does not is named."""
from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from mltrain.parallel.native import Native
from mltrain.parallel.replicas import Difference, Part, compare, parts
from mltrain.progress import Progress
from mltrain.task import Batch, Loss, Task
from mltrain.testing.faults import corrupt_at
from mltrain.testing.ranks import on_ranks
from mltrain.trainer.comparison import Comparison


class Fit(Task):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.BatchNorm1d(16), nn.Linear(16, 4))

    def loss(self, batch: Batch) -> Loss:
        return Loss(self.model(batch["x"]).square().sum(), len(batch["x"]))


def trained(rank: int, world: int, layout: str, replicate: int | None, reduction: str, micro_batches: int, wrong: int) -> list[Any]:
    """[parts, difference] after three steps; in the second one bit of a weight of rank `wrong` is flipped."""
    import os
    os.environ["RANK"] = str(rank)
    strategy = Native(layout, replicate, reduction)  # type: ignore[arg-type]
    task = strategy.setup(Fit, partial(torch.optim.AdamW, lr=1e-2), lambda step: 1.0, micro_batches)
    flip, data = corrupt_at(wrong, 2), torch.randn(3, micro_batches, 4, 8, generator=torch.Generator().manual_seed(0))
    for step in range(3):
        strategy.train_step(Progress(step=step), [(i, {"x": data[step, i]}) for i in strategy.share()])
        flip(step + 1, next(task.parameters()))
    found = parts(strategy.state_dict())
    return [found, compare(found)]


@pytest.mark.parametrize("layout, world, replicate, reduction, micro_batches", [
    ("ddp", 2, None, "exact", 4), ("ddp", 3, None, "native", 6), ("hsdp", 4, 2, "exact", 4)])
def test_undisturbed_they_agree(layout: str, world: int, replicate: int | None, reduction: str, micro_batches: int) -> None:
    results = on_ranks(world, partial(trained, layout=layout, replicate=replicate, reduction=reduction, micro_batches=micro_batches,
                                      wrong=-1))
    assert results == [results[0]] * world and results[0][1] is None
    assert len({shard for shard, _ in results[0][0]}) == (2 if layout == "hsdp" else 1)


@pytest.mark.parametrize("layout, world, replicate, wrong, found", [
    ("ddp", 4, None, 2, [[2], True]), ("ddp", 2, None, 1, [[0, 1], False]), ("hsdp", 4, 2, 3, [[1, 3], False])])
def test_one_flipped_bit_is_seen(layout: str, world: int, replicate: int | None, wrong: int, found: list[Any]) -> None:
    """Three of four outvote one; of two nobody knows; a shard is compared with its replicas alone."""
    results = on_ranks(world, partial(trained, layout=layout, replicate=replicate, reduction="exact", micro_batches=4, wrong=wrong))
    assert [difference for _, difference in results] == [found] * world


@pytest.mark.parametrize("digests, found", [
    ([5, 5, 5], None), ([5], None), ([5, 6, 5], Difference([1], True)), ([5, 6, 7, 5, 5], Difference([1, 2], True)),
    ([5, 5, 6, 6], Difference([0, 1, 2, 3], False)), ([5, 6, 7], Difference([0, 1, 2], False))])
def test_the_majority_is_right(digests: list[int], found: Difference | None) -> None:
    assert compare([Part(0, digest) for digest in digests]) == found


def test_a_majority_in_one_shard_is_not_one_in_another() -> None:
    found = [Part(0, 5), Part(1, 8), Part(0, 5), Part(1, 9), Part(0, 6), Part(1, 8)]
    assert compare(found) == Difference([3, 4], True)
    assert compare([*found[:4], Part(0, 6), Part(1, 7)]) == Difference([1, 3, 4, 5], False)


def test_what_was_wrong_shows_when_the_step_is_made_again() -> None:
    past = [{"event": "rolled back", "why": "corruption", "at": 12, "ranks": [0, 1], "shards": 1, "digests": [[0, 0, 5], [1, 0, 6]]}]
    again = Comparison(5, past)
    assert [step for step in range(1, 16) if again.due(step, False)] == [5, 10, 12, 15]
    assert again.agree(10, [Part(0, 1), Part(0, 1)]) is None
    assert again.agree(12, [Part(0, 5), Part(0, 5)]) == [1]
    assert again.agree(12, [Part(0, 5), Part(0, 5)]) is None and not again.due(12, False)


@pytest.mark.parametrize("parts_now", [[Part(0, 0)], [Part(0, 5), Part(1, 5)]])
def test_on_other_ranks_nothing_shows(parts_now: list[Part]) -> None:
    past = [{"event": "rolled back", "why": "corruption", "at": 12, "ranks": [0, 1], "shards": 1, "digests": [[0, 0, 5], [1, 0, 6]]}]
    assert Comparison(5, past).agree(12, parts_now) is None


def test_before_each_save_they_are_compared() -> None:
    assert Comparison(5).due(3, saving=True) and not Comparison(0).due(3, saving=True)
