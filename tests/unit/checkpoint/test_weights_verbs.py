"""mltrain checkpoint export, diff, prune: what they print, what they refuse, what they leave."""
from __future__ import annotations

import json

import pytest
from checkpoint_states import rows_of, save_cut, seal, small_state
from safetensors.torch import load_file

from mltrain.checkpoint.writer import settle
from mltrain.cli.main import main
from mltrain.runs.lease import Lease
from mltrain.runs.ledger import ROLLED_BACK, Ledger


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with steps 10, 20, 30, 40."""
    folder = tmp_path / "runs" / "small-20260101-000000-0000"
    for step in (10, 20, 30, 40):
        save_cut(folder / "checkpoints", small_state(step), [2], step=step)
    Ledger(folder / "ledger.jsonl").append("created")
    monkeypatch.chdir(tmp_path)
    return folder


def steps(run) -> list[int]:
    return sorted(int(folder.name.removeprefix("step-")) for folder in (run / "checkpoints").iterdir())


# ── export ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("words", "step"), [
    (["small"], 40), (["small@20"], 20), (["small", "--step", "30"], 30), (["small", "runs=runs"], 40)])
def test_export_takes_the_step_it_is_told(run, capsys, words, step):
    assert main(["checkpoint", "export", *words, "--to", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == step
    assert load_file("out/model.safetensors")["weight"].equal(small_state(step)["parameters/weight"])


@pytest.mark.parametrize(("words", "code", "says"), [
    (["small"], 64, "--to"), (["small", "--to", "s3://bucket/x"], 64, "no folder of this machine"),
    (["small@7", "--to", "o"], 66, "there are: 10 20 30 40"),
    (["small@10", "--step", "20", "--to", "o"], 64, "which step"), (["small", "--to", "o", "--format", "onnx"], 64, "invalid choice"),
    (["small", "--to", "o", "--format", "huggingface"], 64, "it has no recipe"), (["small", "step=3", "--to", "o"], 64, "is not runs="),
    (["other", "--to", "o"], 66, "no run"),
])
def test_export_says_what_is_wrong_and_writes_nothing(run, capsys, tmp_path, words, code, says):
    assert main(["checkpoint", "export", *words]) == code
    assert says in capsys.readouterr().err and [entry.name for entry in tmp_path.iterdir()] == ["runs"]


# ── diff ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("words", [
    ["small@10", "small@20"], ["small", "--step", "10", "--step", "20"], ["small", "runs=runs", "--step=10", "--step=20"]])
def test_diff_of_two_steps(run, capsys, words):
    assert main(["checkpoint", "diff", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["changes"][0] == {"name": "weight", "shape": [7, 6], "norm": 10 * 42 ** 0.5, "relative": pytest.approx(0.3047, abs=1e-4)}
    assert found["same"] is False


def test_diff_for_people(run, capsys):
    assert main(["checkpoint", "diff", "small@10", "small@20", "--top", "2"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["name", "weight", "bias"]


def test_an_export_is_the_same_as_its_run(run, capsys):
    main(["checkpoint", "export", "small", "--to", "out"])
    capsys.readouterr()
    assert main(["checkpoint", "diff", "out", "small"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "the same"


@pytest.mark.parametrize(("words", "says"), [
    (["small"], "needs two"), (["small", "--step", "10"], "twice"), (["small@10", "--step", "10", "--step", "20"], "twice")])
def test_diff_needs_two(run, capsys, words, says):
    assert main(["checkpoint", "diff", *words]) == 64
    assert says in capsys.readouterr().err


# ── prune ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("keep", "left"), [(1, [40]), (3, [20, 30, 40]), (9, [10, 20, 30, 40])])
def test_prune_keeps_the_newest(run, keep, left):
    assert main(["checkpoint", "prune", "small", "--keep", str(keep)]) == 0
    assert steps(run) == left and main(["checkpoint", "verify", "small"]) == 0


def test_prune_again_changes_nothing(run, capsys):
    main(["checkpoint", "prune", "small", "--keep", "2"])
    capsys.readouterr()
    assert main(["checkpoint", "prune", "small", "--keep", "2"]) == 0
    assert capsys.readouterr().out == "nothing to delete\n" and steps(run) == [30, 40]


def test_a_dry_run_only_says_what_would_go(run, capsys):
    assert main(["checkpoint", "prune", "small", "--keep", "3", "--dry-run", "--json"]) == 0
    assert [(row["step"], row["attempt"]) for row in json.loads(capsys.readouterr().out)] == [(10, 1)] and steps(run) == [10, 20, 30, 40]


def test_the_newest_whole_one_stays_when_a_newer_one_is_damaged(run):
    (run / "checkpoints" / "step-00000040" / "rank-00000.a0001.safetensors").unlink()
    assert main(["checkpoint", "prune", "small", "--keep", "1"]) == 0
    assert steps(run) == [30, 40]


def test_what_is_off_the_branch_does_not_count(run):
    Ledger(run / "ledger.jsonl").append(ROLLED_BACK, step=20, attempt=1)
    assert main(["checkpoint", "prune", "small", "--keep", "1"]) == 0
    assert 20 in steps(run) and 10 not in steps(run)


def test_files_of_a_save_that_never_was_committed_go(run):
    state = small_state()
    rows = {name: rows_of(tensor, [2], 0) if tensor.dim() and tensor.numel() else (0, len(tensor) if tensor.dim() else 1)
            for name, tensor in state.items()}
    assert not settle(seal(run / "checkpoints", state, rows, step=35, world=2))
    assert main(["checkpoint", "prune", "small", "--keep", "4"]) == 0
    assert steps(run) == [10, 20, 30, 40]


def test_a_live_run_is_left_alone(run, capsys):
    lease = Lease(run)
    lease.acquire(attempt=1)
    try:
        assert main(["checkpoint", "prune", "small", "--keep", "1"]) == 64
    finally:
        lease.release()
    assert "is live already" in capsys.readouterr().err and steps(run) == [10, 20, 30, 40]


@pytest.mark.parametrize(("words", "says"), [
    (["small", "--keep", "0"], "at least one"), (["small"], "required"), (["small", "--keep", "x"], "invalid")])
def test_prune_says_what_is_wrong(run, capsys, words, says):
    assert main(["checkpoint", "prune", *words]) == 64
    assert says in capsys.readouterr().err and steps(run) == [10, 20, 30, 40]
