"""launcher.restart=inprocess: ranks that did not fail keep their process, and the weights are the same."""
from __future__ import annotations

import signal
from pathlib import Path

import pytest
import small_project

from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file
from mltrain.runs.outcome import last_status
from mltrain.testing.faults import kill, start, step, wait_for, worker_pids


def trains_in(run: Path, attempt: int) -> dict[int, int]:
    """The pids of that attempt's ranks, once it has made four steps beyond what is there now."""
    wait_for(lambda: last_status(run)["attempts"] == attempt and len(worker_pids(run)) == 2, 60, f"attempt {attempt}")
    beyond = step(run) + 4
    wait_for(lambda: step(run) >= beyond, 60, "four steps")
    return worker_pids(run)


@pytest.mark.timeout(240)
def test_a_kill_leaves_the_other_rank_its_process_and_one_that_does_not_come_out_is_killed(tmp_path: Path) -> None:
    project = small_project.make(tmp_path / "project")
    long = ["launch", "recipe=small", "steps=160", "eval_every=0"]
    small_project.mltrain(project, *long, "name=calm")
    with start(*long, "name=wild", "launcher.restart=inprocess", cwd=project, environment={"PACE": "0.08"}) as job:
        wait_for(lambda: job.process.poll() is not None or list((project / "runs").glob("wild-2*/status.json")), 60, "a run directory")
        run, = (project / "runs").glob("wild-2*")
        first = trains_in(run, 1)
        kill(first[1])
        second = trains_in(run, 2)
        kill(second[0])
        third = trains_in(run, 3)
        kill(third[0], signal.SIGSTOP)                         # it will be called, and not come out
        kill(third[1])
        fourth = trains_in(run, 4)
        assert job.wait(120) == 0, job.output
    assert first[0] in second.values() and second[1] in third.values() and not set(third.values()) & set(fourth.values())
    assert small_project.digest(project, "wild") == small_project.digest(project, "calm")
    causes = [row["cause"]["kind"] for row in ledger.read(ledger_file(run)) if "cause" in row]
    assert causes == ["signal", "signal", "signal"]
