"""Every second of a disturbed run is accounted for: the classes add up to its wall time, and each disturbance is found in its class."""
from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import small_project
from hosts import PORT, events, hosts, nodes, possible
from small_project import mltrain, status

from mltrain.runs import goodput, ledger
from mltrain.runs.layout import ledger_file
from mltrain.testing.faults import agent_pid, kill, start, step, wait_for, worker_pids

STEPS = """
import os, time
from mltrain.runs.pulse import Pulse
pulse = Pulse.from_environment()
for step in range(0 if os.environ["MLTRAIN_ATTEMPT"] == "1" else 20, 100):
    pulse.beat("compute", step)
    time.sleep(0.05)
    if os.environ["MLTRAIN_ATTEMPT"] == "1" and step == 40:
        pulse.phase("collective")               # the other rank does not come
        time.sleep(1000)
    pulse.beat("compute", step + 1)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project.make(tmp_path_factory.mktemp("goodput"))


def run_of(project: Path, name: str) -> Path:
    return max((project / "runs").glob(f"{name}-2*"), default=Path())


def told(project: Path, name: str) -> tuple[dict[str, Any], float]:
    """(the run's status, its wall time from launch to end)"""
    found: dict[str, Any] = dict(status(project, name))
    rows = ledger.read(ledger_file(run_of(project, name)))
    return found, rows[-1]["time"] - rows[0]["time"]


def test_two_kills_in_one_run(project: Path) -> None:
    """A worker, then the agent with all its workers; 0.06 s a step at least."""
    with start("launch", "recipe=small", "name=killed", "steps=24", cwd=project, environment={"PACE": "0.06"}) as job:
        wait_for(lambda: step(run_of(project, "killed")) >= 6, 60, "six steps")
        kill(worker_pids(run_of(project, "killed"))[1])
        wait_for(lambda: len(worker_pids(run_of(project, "killed"))) == 2 and step(run_of(project, "killed")) >= 12, 60, "twelve steps")
        kill(agent_pid(run_of(project, "killed")))
        assert job.wait(120) == 0, job.output
        output = job.output
    found, wall = told(project, "killed")
    spent = found["spent"]
    assert sum(spent.values()) == pytest.approx(wall, rel=0.01)
    assert spent.get("unknown", 0.0) < 0.01 * wall and set(spent) <= set(goodput.CLASSES)
    assert {"kept", "redone", "restart", "first_step", "evaluation", "saving", "callbacks", "queued"} <= set(spent), spent
    assert found["goodput"] == pytest.approx(spent["kept"] / (wall - spent["queued"]), abs=0.01)
    last = [line for line in output.splitlines() if line][-1]
    assert last.startswith(f"mltrain: goodput {100 * found['goodput']:.1f} % of ") and "steps lost to a failure" in last
    shown = mltrain(project, "status", "killed")
    assert "steps that count" in shown and "starting again" in shown and "(before the first attempt)" in shown


@pytest.mark.full
def test_a_hang_and_a_pause_have_classes_of_their_own(project: Path) -> None:
    """A rank stopped for the 2 s it takes to be noticed; then the run is cancelled and resumed later."""
    length = ["steps=30", "launcher.hang_seconds=2"]
    with start("launch", "recipe=small", "name=hung", *length, cwd=project, environment={"PACE": "0.1"}) as job:
        wait_for(lambda: step(run := run_of(project, "hung")) >= 5 and worker_pids(run), 60, "five steps")
        run = run_of(project, "hung")
        stopped = worker_pids(run)[1]
        kill(stopped, signal.SIGSTOP)
        wait_for(lambda: worker_pids(run) and stopped not in worker_pids(run).values(), 60, "a restart")
        wait_for(lambda: step(run) >= 10, 60, "ten steps")
        mltrain(project, "cancel", "hung")
        assert job.wait(60) == 130
    mltrain(project, "resume", "hung")
    found, wall = told(project, "hung")
    spent = found["spent"]
    assert sum(spent.values()) == pytest.approx(wall, rel=0.01) and spent.get("unknown", 0.0) < 0.01 * wall
    assert 1.5 < spent["detection"] < 10 and spent["idle"] > 0.1, spent


@pytest.mark.full
@pytest.mark.skipif(bool(possible()), reason=possible())
def test_a_lost_host_too(tmp_path: Path) -> None:
    """Two of three hosts train; one loses its power and the spare takes its place; the time until that was noticed is detection."""
    (tmp_path / "steps.py").write_text(STEPS)
    run = tmp_path / "run"
    with hosts(3) as there:
        for host in there:
            host.start(run, "--nodes", "2", "--rendezvous", f"{there[0].address}:{PORT}", "--", sys.executable, "steps.py", cwd=tmp_path)
        wait_for(lambda: step(run) >= 20, 60, "twenty steps")
        next(host for host in there if host.name == nodes(run)[1]).lose_power()
        wait_for(lambda: len(nodes(run)) == 2 and len(events(run, "attempt started")) == 2, 60, "the spare")
        for host in there:
            if host.name in nodes(run) and host.agent:
                assert host.agent.wait(120) == 0
    rows = ledger.read(ledger_file(run))
    spent = goodput.seconds(rows)
    wall = rows[-1]["time"] - rows[0]["time"]
    assert sum(spent.values()) == pytest.approx(wall, rel=0.01) and spent.get("unknown", 0.0) < 0.01 * wall, spent
    assert 2 < spent["detection"] + spent["redone"] < 8 and spent["nodes"] > 0.1, spent
