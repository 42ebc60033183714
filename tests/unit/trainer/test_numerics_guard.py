"""What the guard makes of a loss; and what a step does then."""
from __future__ import annotations

import math
import random
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from mltrain.checkpoint.checkpointer import Checkpointer
from mltrain.data.arrays import Arrays
from mltrain.data.loader import Loader
from mltrain.errors import ConfigError, TaskError
from mltrain.metrics.writer import Metrics
from mltrain.runs.pulse import Pulse
from mltrain.task import Batch, Loss, Task
from mltrain.trainer.guard import Guard
from mltrain.trainer.rollback import Rollbacks
from mltrain.trainer.trainer import Trainer


def fed(guard: Guard, losses: list[float]) -> Guard:
    for loss in losses:
        assert guard.judge(loss, 1.0, 8) is None
    return guard


def noisy(count: int) -> list[float]:
    draw = random.Random(0)
    return [2.0 + draw.gauss(0, 0.1) for _ in range(count)]


def test_a_spike_is_far_above_the_last_losses() -> None:
    guard = fed(Guard(spike="skip", window=32), noisy(32))
    assert guard.judge(2.3, 1.0, 8) is None
    assert guard.judge(40.0, 1.0, 8) == "skip" and guard.z > 100 and "loss spike: 40" in guard.found
    assert guard.judge(0.0, 1.0, 8) is None                    # far below is no trouble


def test_nothing_is_a_spike_before_the_window_is_full() -> None:
    assert fed(Guard(spike="skip", window=8), noisy(7)).judge(1e9, 1.0, 8) is None


def test_losses_that_hardly_move_leave_room() -> None:
    guard = fed(Guard(spike="observe", window=8), [2.0] * 8)
    assert guard.judge(2.1, 1.0, 8) is None
    assert guard.judge(2.5, 1.0, 8) == "observe"


def test_a_loss_that_is_observed_counts_as_one_that_is_skipped_does_not() -> None:
    seen, skipped = Guard(spike="observe", window=4), Guard(spike="skip", window=4)
    for guard in (fed(seen, [1.0] * 4), fed(skipped, [1.0] * 4)):
        guard.judge(9.0, 1.0, 8)
    assert seen.state()["losses"] == [1.0, 1.0, 1.0, 9.0] and skipped.state()["losses"] == [1.0] * 4


@pytest.mark.parametrize("loss, norm", [(math.nan, 1.0), (1.0, math.inf)])
@pytest.mark.parametrize("way", ["stop", "skip", "rollback"])
def test_numbers_that_are_none(way: str, loss: float, norm: float) -> None:
    assert Guard(nonfinite=way).judge(loss, norm, 8) == way  # type: ignore[arg-type]


def test_skipping_has_an_end() -> None:
    guard = Guard(nonfinite="skip", limit=2)
    assert [guard.judge(math.nan, 1.0, 8) for _ in range(3)] == ["skip", "skip", "stop"]
    assert "2 steps in a row were skipped" in guard.found


def test_its_memory_is_its_state() -> None:
    one = fed(Guard(spike="skip", window=8), noisy(8))
    two = Guard(spike="skip", window=8)
    two.load(one.state())
    assert [two.judge(x, 1.0, 8) for x in (2.1, 9.0)] == [one.judge(x, 1.0, 8) for x in (2.1, 9.0)] == [None, "skip"]
    assert two.z == one.z


@pytest.mark.parametrize("wrong", [{"threshold": 0.0}, {"window": 3}, {"back": 0}, {"limit": 0}])
def test_senseless_values(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="guard"):
        Guard(**wrong)  # type: ignore[arg-type]


# ── in a run ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
class Square(Task):
    """Sample 77 has a loss a million times too large."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(1, 1)

    def loss(self, batch: Batch) -> Loss:
        scale = 1e6 if bool((batch["id"] == 77).any()) else 1.0
        return Loss((self.model(batch["x"]) - batch["x"]).square().sum() * scale, len(batch["x"]))


class Kept:
    def __init__(self) -> None:
        self.records: list[dict[str, object]] = []

    def write(self, record: dict[str, object]) -> None:
        self.records.append(record)

    def close(self) -> None:
        """Nothing to close."""


def run(guard: Guard, checkpointer: Checkpointer | None = None) -> tuple[Trainer, list[dict[str, object]]]:
    kept, ids = Kept(), torch.arange(128)
    data = Arrays({"x": ids[:, None] / 64.0, "id": ids})
    trainer = Trainer(Square, Loader(data, global_batch=4, micro_batch=4, shuffle=False), partial(torch.optim.SGD, lr=1e-3), steps=24,
                      metrics=Metrics({"kept": kept}, every=100), checkpointer=checkpointer).watch(guard)  # type: ignore[dict-item]
    try:
        assert trainer.fit().done
    finally:
        trainer.metrics.close()  # type: ignore[union-attr]
    return trainer, kept.records


def test_a_spike_that_is_observed_is_in_the_metrics() -> None:
    _, records = run(Guard(spike="observe", window=8))
    spike = next(record for record in records if record["kind"] == "train" and record["step"] == 20)
    assert spike["loss_z"] > 1000 and "skipped" not in spike  # type: ignore[operator]
    assert any(record["kind"] == "note" and "step 20 loss spike" in str(record["text"]) for record in records)


def test_a_spike_that_is_skipped_leaves_the_weights() -> None:
    calm, _ = run(Guard(spike="skip", window=8))
    wild, _ = run(Guard())
    assert calm.task.model.weight.abs().item() < 10 < wild.task.model.weight.abs().item()  # type: ignore[operator, union-attr]


def test_without_a_ledger_nothing_is_rolled_back() -> None:
    with pytest.raises(TaskError, match=r"step 20: loss spike.*no roll-back: no checkpoints are saved"):
        run(Guard(spike="rollback", window=8))


def test_nor_to_a_checkpoint_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"no checkpoint of step 10 or before is left"):
        run(Guard(spike="rollback", window=8, back=10), Checkpointer(tmp_path, every=4, keep=1))


def test_nor_more_often_than_the_limit_says() -> None:
    past = [{"event": "rolled back", "why": "numerics", "at": step, "attempt": step, "skipped": [[step, step + 1]]} for step in (3, 9)]
    error = Rollbacks(Pulse(), None, past).numbers(Guard(spike="rollback", limit=2), 12, [[0, 4]])
    assert "no roll-back: 2 roll-backs were made" in str(error) and error.code == 70
