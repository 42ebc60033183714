"""Weights leave one run and enter another: exported, begun with, and the loss goes on where it ended."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_project import make, mltrain

pytestmark = pytest.mark.timeout(300)
SHAPE = ["task.model.width=16", "task.model.layers=2", "task.model.heads=2", "task.ignore=32", "data=text", "data.path=data",
         "data.sequence=32", "data.validation_samples=8", "global_batch=16", "micro_batch=2", "schedule.warmup=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run of 8 steps, its state cut over two workers, and its export."""
    folder = make(tmp_path_factory.mktemp("project") / "p")
    mltrain(folder, "launch", "recipe=small", "steps=8", "strategy=fsdp")
    mltrain(folder, "checkpoint", "export", "small", "--to", "exported")
    return folder


def rows(folder: Path, name: str, kind: str) -> list[dict[str, float]]:
    run = max((folder / "runs").glob(f"{name}-*"))
    lines = (run / "metrics" / "attempt-0001.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def test_a_run_begins_with_the_loss_that_the_other_ended_with(folder: Path) -> None:
    mltrain(folder, "launch", "recipe=finetune/gpt", "weights=exported", *SHAPE, "steps=1", "optimizer.lr=0")
    assert rows(folder, "finetune-gpt", "evaluate")[-1]["loss"] == rows(folder, "small", "evaluate")[-1]["loss"]


def test_the_ledger_names_the_weights_by_their_digest(folder: Path) -> None:
    mltrain(folder, "launch", "recipe=finetune/gpt", "weights=exported", *SHAPE, "steps=2", "launcher.workers=1", "name=once", "stop_at=1")
    mltrain(folder, "resume", "once", "stop_at=null")
    run = max((folder / "runs").glob("once-*"))
    read = [row for row in map(json.loads, (run / "ledger.jsonl").read_text().splitlines()) if row["event"] == "weights read"]
    digest = json.loads((folder / "exported" / "config.json").read_text())["digest"]
    assert [(row["path"], row["digest"], row["attempt"]) for row in read] == [("exported", digest, 1)]      # the resume has a checkpoint


def test_weights_of_another_shape_are_told_with_the_shape_they_have(folder: Path) -> None:
    said = mltrain(folder, "launch", "recipe=finetune/gpt", "weights=exported", *SHAPE[1:], "name=wide", "steps=1", code=78)
    assert "exported: model.blocks.0.attention.key_value.weight is F32 [32, 16] there and F32 [256, 128] here" in said
    assert '"width": 16' in mltrain(folder, "logs", "wide", "--errors")


def test_weights_that_are_not_there_are_told_before_a_run_is_made(folder: Path) -> None:
    said = mltrain(folder, "launch", "recipe=finetune/gpt", "weights=nowhere", *SHAPE, "name=none", code=66)
    assert "there are no weights at" in said and not list((folder / "runs").glob("none-*"))


def test_digits_are_learned(tmp_path: Path) -> None:
    """A few epochs; the recipe's own 30 reach over 95 %."""
    mltrain(tmp_path, "launch", "recipe=vit/digits", "steps=60", "launcher.workers=1")
    assert rows(tmp_path, "vit-digits", "evaluate")[-1]["accuracy"] > 0.75
