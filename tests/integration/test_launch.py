"""A run by its commands, as a user types them: the same bits on any number of workers, stopped and resumed on others."""
from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import small_project
from small_project import digest, mltrain, status

from mltrain.testing.faults import start, step, wait_for


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project.make(tmp_path_factory.mktemp("launch"))


@pytest.fixture(scope="module")
def reference(project: Path) -> dict[str, str]:
    """Digest of a run on one worker, by precision."""
    made = {}
    for precision in ("fp32", "bf16"):
        mltrain(project, "launch", "recipe=small", f"name=one-{precision}", "launcher.workers=1", f"precision={precision}")
        made[precision] = digest(project, f"one-{precision}")
    return made


@pytest.mark.parametrize("workers, strategy", [
    (2, "strategy=ddp"), (4, "strategy=fsdp"), pytest.param(8, "strategy=fsdp", marks=pytest.mark.full),
    (4, "strategy=hsdp strategy.replicate=2"), pytest.param(8, "strategy=hsdp strategy.replicate=2", marks=pytest.mark.full),
    pytest.param(8, "strategy=hsdp strategy.replicate=4", marks=pytest.mark.full), pytest.param(8, "strategy=ddp", marks=pytest.mark.full)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_digest(project: Path, reference: dict[str, str], workers: int, strategy: str, precision: str) -> None:
    name = f"run-{workers}-{precision}-{strategy.replace('strategy', '').replace(' ', '').replace('=', '-').replace('.', '')}"
    mltrain(project, "launch", "recipe=small", f"name={name}", f"launcher.workers={workers}", f"precision={precision}", *strategy.split())
    assert digest(project, name) == reference[precision]


def test_another_seed_gives_another_digest(project: Path, reference: dict[str, str]) -> None:
    mltrain(project, "launch", "recipe=small", "name=seed", "seed=1")
    assert digest(project, "seed") != reference["fp32"]


def test_killed_at_four_workers_resumed_at_two_then_one(project: Path, reference: dict[str, str]) -> None:
    with start("launch", "recipe=small", "name=elastic", "launcher.workers=4", "strategy=hsdp", "strategy.replicate=2", cwd=project) as job:
        wait_for(lambda: _run(project, "elastic") and step(_run(project, "elastic")) >= 5, 60, "step 5")
        job.kill_group()
        job.wait(10)
    wait_for(lambda: status(project, "elastic")["state"] in ("lost", "stopped"), 20, "the run's end")
    said = mltrain(project, "resume", "elastic", "launcher.workers=2", "strategy=fsdp", "stop_at=16")
    assert "launcher.workers: 4 -> 2" in said
    assert status(project, "elastic")["state"] == "stopped"
    mltrain(project, "resume", "elastic", "launcher.workers=1", "strategy=single", "stop_at=null")
    assert digest(project, "elastic") == reference["fp32"]


def test_sigterm_saves_and_leaves_with_75(project: Path, reference: dict[str, str]) -> None:
    with start("launch", "recipe=small", "name=preempted", cwd=project) as job:
        wait_for(lambda: _run(project, "preempted") and step(_run(project, "preempted")) >= 2, 60, "step 2")
        job.signal(signal.SIGTERM)
        assert job.wait(30) == 75
    found = status(project, "preempted")
    assert found["state"] == "stopped" and found["step"] == int(digest(project, "preempted").split()[0])
    mltrain(project, "resume", "preempted")
    assert digest(project, "preempted") == reference["fp32"]


def test_sigint_saves_and_leaves_with_130(project: Path) -> None:
    with start("launch", "recipe=small", "name=interrupted", "steps=2000", cwd=project) as job:
        wait_for(lambda: _run(project, "interrupted") and step(_run(project, "interrupted")) >= 2, 60, "step 2")
        job.signal(signal.SIGINT)
        assert job.wait(30) == 130
    assert status(project, "interrupted")["step"] == int(digest(project, "interrupted").split()[0])


def test_cancel_saves(project: Path) -> None:
    mltrain(project, "launch", "recipe=small", "name=cancelled", "steps=2000", "--detach")
    wait_for(lambda: step(_run(project, "cancelled")) >= 2, 60, "step 2")
    assert "is cancelled, state saved" in mltrain(project, "cancel", "cancelled")
    assert status(project, "cancelled")["state"] == "cancelled"


def test_going_back_to_a_step_gives_the_same_end(project: Path, reference: dict[str, str]) -> None:
    mltrain(project, "launch", "recipe=small", "name=back", "checkpoint.keep=0")
    mltrain(project, "resume", "back", "--from", "8")
    assert digest(project, "back") == reference["fp32"]


def test_a_time_limit_stops_and_saves(project: Path) -> None:
    mltrain(project, "launch", "recipe=small", "name=limited", "steps=100000", "time_limit=2", code=75)
    assert status(project, "limited")["step"] == int(digest(project, "limited").split()[0])


def test_status_tells_what_it_must(project: Path, reference: dict[str, str]) -> None:
    found = status(project, "one-fp32")
    assert {"id", "name", "state", "step", "steps", "samples", "tokens", "loss", "attempts", "launcher", "directory", "started", "ended",
            "goodput", "ranks"} <= set(found)
    assert (found["state"], found["step"], found["steps"], found["samples"]) == ("done", 24, 24, 24 * 16)
    assert {run["name"] for run in json.loads(mltrain(project, "status", "--json"))} >= {"one-fp32", "one-bf16"}


def test_metrics_have_the_last_step(project: Path, reference: dict[str, str]) -> None:
    rows = [json.loads(line) for line in (_run(project, "one-fp32") / "metrics" / "attempt-0001.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 4, 8, 12, 16, 20, 24]
    assert [row["step"] for row in rows if row["kind"] == "evaluate"] == [10, 20, 24]
    assert rows[-1]["text"] == "counted 24 steps"


def _run(project: Path, name: str) -> Path:
    return max((project / "runs").glob(f"{name}-2*"), default=Path())
