"""`mltrain metrics replay`: what a sink missed is filled, and twice is as good as once."""
from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from tracker_files import tensorboard_curve, wandb_files, wandb_records, wandb_rows

from mltrain.cli.main import main
from mltrain.errors import MissingInput, StorageError, UsageError
from mltrain.metrics.jsonl import JsonLines
from mltrain.metrics.replay import node, read_settings, replay
from mltrain.metrics.tensorboard import TensorBoard

ID = "small-20260101-000000-abcd"
CURVE = [(1, 1.1), (2, 2.1), (3, 3.2), (4, 4.2), (5, 5.2), (6, 6.2)]      # steps 3 and 4 were done twice: the last attempt counts


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / ID
    run.mkdir(parents=True)
    (run / "status.json").write_text(json.dumps({"id": ID, "state": "done"}))
    for attempt, steps in ((1, (1, 2, 3, 4)), (2, (3, 4, 5, 6))):
        lines = JsonLines(run, attempt)
        for step in steps:
            lines.write({"kind": "train", "step": step, "time": 1.7e9 + step, "loss": step + attempt / 10})
        lines.write({"kind": "note", "step": steps[-1], "time": 1.7e9, "text": "said"})
        lines.close()
    return run


def rounded(curve):
    return [(step, round(value, 4)) for step, value in curve]


def test_tensorboard_has_the_curve_once_however_often_it_is_replayed(run, capsys):
    for _ in range(2):
        assert main(["metrics", "replay", "small", "--to", "tensorboard"]) == 0
    assert rounded(tensorboard_curve(run / "tensorboard", "train/loss")) == CURVE
    assert len(list((run / "tensorboard").iterdir())) == 1
    assert capsys.readouterr().out == "tensorboard: 6 records\n" * 2


def test_a_replay_replaces_what_the_live_sink_wrote(run):
    sink = TensorBoard()
    sink.begin(str(run), 1)
    sink.write({"kind": "train", "step": 2, "time": 1.0, "loss": 99.0})
    sink.close()
    main(["metrics", "replay", "small", "--to", "tensorboard"])
    assert rounded(tensorboard_curve(run / "tensorboard", "train/loss")) == CURVE


def test_wandb_has_the_curve_once_and_what_was_there_is_set_aside(run):
    for _ in range(2):
        assert main(["metrics", "replay", "small", "--to", "wandb", "wandb.project=mine"]) == 0
        (file,) = wandb_files(run)
    assert [(row["step"], row["train/loss"]) for row in wandb_rows(file)] == CURVE
    (begun,) = [record.run for record in wandb_records(file) if record.HasField("run")]
    assert (begun.run_id, begun.project, begun.resumed) == (ID, "mine", False)
    assert len(list((run / "wandb" / "replaced").iterdir())) == 1


def test_trackio_forgets_the_run_of_that_name_first(run, monkeypatch):
    """A module with trackio's functions that keeps rows by run, as its database does."""
    kept = {ID: ["old"], "another": ["its own"]}
    module = ModuleType("trackio")
    module.Api = lambda: SimpleNamespace(runs=lambda project: [
        SimpleNamespace(name=name, delete=lambda name=name: kept.pop(name)) for name in list(kept)])
    module.init = lambda name, **_: SimpleNamespace(
        log=lambda row, step: kept.setdefault(name, []).append((step, row["train/loss"])), finish=lambda: None)
    monkeypatch.setitem(sys.modules, "trackio", module)
    for _ in range(2):
        assert main(["metrics", "replay", "small", "--to", "trackio"]) == 0
    assert kept == {ID: CURVE, "another": ["its own"]}


def test_prometheus_gets_the_last_numbers(run):
    assert main(["metrics", "replay", "small", "--to", "prometheus", "prometheus.port=1"]) == 0       # a replay opens no endpoint
    assert f'mltrain_loss{{run="{ID}"}} 6.2' in (run / "metrics.prom").read_text()


def test_json_is_for_programs(run, capsys):
    assert main(["metrics", "replay", "small", "--to", "prometheus", "--to", "tensorboard", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"prometheus": 6, "tensorboard": 6}


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (["small", "--to", "neptune"], 66, "no metrics sink 'neptune'"),
    (["smoll", "--to", "wandb"], 66, "did you mean"),
    (["--to", "wandb"], 64, "required"),
    (["small", "again", "--to", "wandb"], 64, "one run, not 2"),
    (["small", "--to", "wandb", "tensorboard.folder=x"], 64, "tensorboard.folder=x is no setting of wandb"),
    (["small", "--to", "wandb", "wandb.projekt=x"], 78, "takes no such argument")])
def test_what_makes_no_sense_is_one_line(run, capsys, arguments, code, said):
    assert main(["metrics", "replay", *arguments]) == code
    assert said in capsys.readouterr().err


def test_a_live_run_is_left_alone(run, capsys, monkeypatch):
    monkeypatch.setattr("mltrain.runs.lease.is_live", lambda path: True)
    assert main(["metrics", "replay", "small", "--to", "wandb"]) == 64
    assert "is live" in capsys.readouterr().err


def test_a_sink_that_fails_is_named(run):
    class Failing:
        def write(self, record):
            raise ConnectionError("unreachable")

        def close(self):
            raise AssertionError("not reached")

    with pytest.raises(StorageError, match="mine failed after 0 records: ConnectionError: unreachable"):
        replay(run, {"mine": Failing()})


def test_a_run_without_numbers_has_nothing_to_replay(tmp_path):
    with pytest.raises(MissingInput, match="has no metrics yet"):
        replay(tmp_path, {})


def test_a_sink_of_the_recipe_is_taken_as_the_recipe_has_it():
    own = {"wandb": {"_target_": "mltrain.metrics.wandb.Wandb", "project": "theirs", "entity": "us"}}
    assert node("wandb", own, {"project": "mine"}) == {"_target_": "mltrain.metrics.wandb.Wandb", "project": "mine", "entity": "us"}


def test_settings_are_json_or_text():
    assert read_settings(["a", "b"], ["a.x=1", "a.y=one", 'b.z=["t"]']) == {"a": {"x": 1, "y": "one"}, "b": {"z": ["t"]}}


def test_a_setting_of_no_sink_is_refused():
    with pytest.raises(UsageError, match="write a.key=value"):
        read_settings(["a"], ["x=1"])
