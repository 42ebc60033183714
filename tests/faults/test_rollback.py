"""A poisoned batch sends a run back and around it; the bits are those of a run that never met it, whatever is killed on the way."""
from __future__ import annotations

import importlib
import os
import sys
from functools import partial
from pathlib import Path

import guarded_project
import pytest
import torch
from guarded_project import GLOBAL_BATCH, SAMPLES, poisoned, rows, run_of, state
from small_project import mltrain

from mltrain.checkpoint.catalog import digest
from mltrain.checkpoint.checkpointer import Checkpointer
from mltrain.data.loader import Loader
from mltrain.optim.schedules import linear
from mltrain.parallel.native import Native
from mltrain.testing.faults import agent_pid, kill, start, wait_for, worker_pids
from mltrain.trainer.trainer import Trainer

BACK = ["recipe=guarded", "guard=rollback", "guard.window=8", poisoned(18)]
SKIPPED = [[17 * GLOBAL_BATCH, 18 * GLOBAL_BATCH]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guarded_project.make(tmp_path_factory.mktemp("guarded") / "project")


@pytest.fixture(scope="module")
def undisturbed(project: Path) -> str:
    mltrain(project, "launch", *BACK, "name=undisturbed")
    return state(project, "undisturbed")


def test_the_row_says_what_is_left_out(project: Path, undisturbed: str) -> None:
    (row,) = rows(project, "undisturbed", "rolled back")
    assert (row["step"], row["at"], row["why"], row["skipped"]) == (17, 18, "numerics", SKIPPED)
    assert rows(project, "undisturbed", "resumed")[0]["step"] == 16
    assert len(rows(project, "undisturbed", "attempt started")) == 2


def test_it_has_the_bits_of_a_run_that_never_had_these_samples(project: Path, undisturbed: str, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    parts = importlib.import_module("parts")                   # the project's
    loader = Loader(parts.Points(SAMPLES).train, global_batch=GLOBAL_BATCH, micro_batch=2, skipped=SKIPPED)
    checkpointer = Checkpointer(tmp_path, every=100)
    Trainer(parts.Fit, loader, partial(torch.optim.AdamW, lr=5e-3), steps=32, schedule=linear(32, final=0.1),
            strategy=Native("single", clip=1.0), checkpointer=checkpointer).fit()
    checkpointer.close()
    del sys.modules["parts"]
    found = digest(str(tmp_path))
    assert f"{found['step']} {found['digest']}" == undisturbed


@pytest.mark.parametrize("workers", [1, 4])
def test_on_any_number_of_ranks(project: Path, undisturbed: str, workers: int) -> None:
    mltrain(project, "launch", *BACK, f"name=on-{workers}", f"launcher.workers={workers}")
    assert state(project, f"on-{workers}") == undisturbed


@pytest.mark.parametrize("fault", ["step 17 1 1 self", "start 16 2 0 workers",
                                   pytest.param("saved 20 2 1 self", marks=pytest.mark.full),
                                   pytest.param("step 19 2 0 agent", marks=pytest.mark.full)])
def test_killed_before_in_and_after_it(project: Path, undisturbed: str, fault: str) -> None:
    name = f"killed-{fault}".replace(" ", "-")
    mltrain(project, "launch", *BACK, f"name={name}", environment={"FAULT": fault})
    assert state(project, name) == undisturbed
    assert len(rows(project, name, "attempt started")) == 3 and len(rows(project, name, "rolled back")) == 1


@pytest.mark.parametrize("workers", [4, pytest.param(1, marks=pytest.mark.full)])
def test_all_is_killed_in_it_and_resumed_on_other_ranks(project: Path, undisturbed: str, workers: int) -> None:
    """As soon as the row is written: in the end of the first attempt, or the start of the second."""
    name = f"group-{workers}"
    with start("launch", *BACK, f"name={name}", cwd=project, environment={"PACE": "0.1"}) as job:
        wait_for(lambda: list((project / "runs").glob(f"{name}-2*")) and rows(project, name, "rolled back"), 90, "the roll-back")
        kill(agent_pid(run_of(project, name)))
        job.kill_group()
        job.wait(10)
    wait_for(lambda: not worker_pids(run_of(project, name)), 30, "the workers' death")
    assert rows(project, name, "done") == []
    mltrain(project, "resume", name, f"launcher.workers={workers}")
    assert state(project, name) == undisturbed


@pytest.mark.full
def test_two_spikes_give_up_their_own_samples(project: Path, undisturbed: str) -> None:
    """The second one is met at a step, whose samples now lie one batch further in the stream."""
    mltrain(project, "launch", *BACK[:3], "guard.back=2", poisoned(18, 24), "name=two")
    assert [row["skipped"] for row in rows(project, "two", "rolled back")] == [[[256, 288]], [[352, 384]]]
    assert [row["at"] for row in rows(project, "two", "rolled back")] == [18, 22]


def test_numbers_that_are_none_send_it_back_too(project: Path, undisturbed: str) -> None:
    mltrain(project, "launch", *BACK, "task.times=1e39", "guard.spike=null", "name=none")
    assert state(project, "none") == undisturbed
    assert "loss inf" in rows(project, "none", "rolled back")[0]["text"]


def test_it_does_not_go_back_for_ever(project: Path) -> None:
    said = mltrain(project, "launch", *BACK[:3], "guard.limit=1", poisoned(18, 20), "name=ever", code=70)
    assert "no roll-back: 1 roll-backs were made" in said
    assert len(rows(project, "ever", "rolled back")) == 1


@pytest.mark.full
def test_the_control_the_guard_matters(project: Path, undisturbed: str) -> None:
    assert "FAULT" not in os.environ
    mltrain(project, "launch", "recipe=guarded", "name=control", poisoned(18))
    assert state(project, "control") != undisturbed
