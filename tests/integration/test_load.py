"""`mltrain.load`: a run that was made with two ranks, as an object in one process."""
from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from small_project import digest, make, mltrain

import mltrain as package
from mltrain.errors import ConfigError, MissingInput


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = make(tmp_path_factory.mktemp("load"))
    mltrain(folder, "launch", "recipe=small", "steps=12", "eval_every=4", "strategy=fsdp")
    return folder


@pytest.fixture
def run(project):
    return package.load("small", project / "runs")


def test_a_run_says_what_it_is(run):
    assert repr(run) == f"<run {run.id}: done at step 12>"
    assert run.config["optimizer"]["lr"] == 5e-3
    assert run.status["samples"] == 12 * 16
    assert [row["event"] for row in run.ledger][:1] == ["created"]
    assert "counted 12 steps" in run.notes


def test_metrics_are_one_table_with_all_columns(run):
    table = run.metrics
    rows = table.select(["kind", "step"]).to_pylist()
    assert [(row["kind"], row["step"]) for row in rows] == [
        ("train", 1), ("train", 4), ("evaluate", 4), ("train", 8), ("evaluate", 8), ("train", 12), ("evaluate", 12)]
    assert {"loss", "lr", "norm", "bits_per_byte", "attempt"} <= set(table.column_names)
    assert table["lr"].null_count == 3


def test_a_checkpoint_is_whole_tensors_by_name(run):
    state = run.checkpoint(step=8)
    assert state["parameters/model.embedding.weight"].shape == (257, 16)
    assert state["optimizer/model.embedding.weight/exp_avg"].shape == (257, 16)


def test_a_step_that_was_not_saved_is_named(run):
    with pytest.raises(MissingInput, match="no checkpoint of step 7"):
        run.checkpoint(step=7)


def test_a_module_has_the_weights_and_is_ready_for_use(run):
    task = run.module()
    saved = run.checkpoint()
    assert not task.training
    assert all(torch.equal(value, saved[f"parameters/{name}"]) for name, value in task.named_parameters())


def test_a_module_evaluates_to_what_the_run_said(project, run):
    """The weights are not only equal by name: they compute the same."""
    from mltrain.data.loader import Evaluation
    from mltrain.data.source import Tokens
    data = Evaluation(Tokens(str(project / "data"), sequence=32, validation_samples=8).validation, 2)
    task = run.module()
    with torch.no_grad():
        sums = [task(data.fetch(index), evaluating=True)["loss"] for index in range(len(data))]
    loss = sum(float(each.total) for each in sums) / sum(float(each.weight) for each in sums)
    (said,) = [row["loss"] for row in run.metrics.to_pylist() if (row["kind"], row["step"]) == ("evaluate", 12)]
    assert loss == pytest.approx(said, rel=1e-6)


def test_reading_changes_nothing(project, run):
    before = digest(project, "small")
    run.module()
    run.checkpoint()
    assert digest(project, "small") == before


def test_code_that_has_changed_since_is_told(run, monkeypatch):
    config = dict(run._config)
    config["tree"] = {**config["tree"], "task": {**config["tree"]["task"], "model": {**config["tree"]["task"]["model"], "layers": 3}}}
    monkeypatch.setattr(type(run), "_config", property(lambda self: config))
    with pytest.raises(ConfigError, match="lacks model.blocks.2"):
        run.module()


def test_a_run_without_a_recipe_has_no_module(tmp_path):
    mltrain(tmp_path, "agent", "--run-dir", "runs/mine", "--", sys.executable, "-c", "print(1)")
    run = package.load(tmp_path / "runs" / "mine")
    assert run.config == {} and run.metrics.num_rows == 0
    with pytest.raises(MissingInput, match="has no recipe"):
        run.module()


def test_loading_costs_no_torch():
    code = "import sys, mltrain; mltrain.load; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout == "False\n"
