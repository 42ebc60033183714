"""Promise 1 under fire: whatever is killed, and whenever, the run ends with the bits of one that nobody disturbed."""
from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import small_project
from small_project import digest, mltrain, status

from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file
from mltrain.testing.faults import agent_pid, kill, start, step, wait_for, worker_pids

WRITER = b"mltrain.checkpoint.writer"
SLOWLY = {"PACE": "0.1"}             # seconds a step: the run is not over before this process has seen that it began


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project.make(tmp_path_factory.mktemp("kills"))


@pytest.fixture(scope="module")
def undisturbed(project: Path) -> str:
    mltrain(project, "launch", "recipe=small", "name=undisturbed")
    return digest(project, "undisturbed")


def run_of(project: Path, name: str) -> Path:
    return max((project / "runs").glob(f"{name}-2*"), default=Path())


@pytest.mark.parametrize("moment, target", [
    ("start 0", "workers"), ("step 6", "self"), ("evaluated 10", "self"), ("saved 8", "workers"), ("stop 24", "self"),
    *[pytest.param(*other, marks=pytest.mark.full) for other in
      [("start 0", "self"), ("step 6", "workers"), ("evaluated 10", "workers"), ("saved 8", "self"), ("stop 24", "workers")]]])
def test_killed_workers_come_back(project: Path, undisturbed: str, moment: str, target: str) -> None:
    """A worker, or all of them: before the first step, in a step, in an evaluation, in a save, at the very end."""
    name = f"{moment}-{target}".replace(" ", "-")
    mltrain(project, "launch", "recipe=small", f"name={name}", environment={"FAULT": f"{moment} 1 1 {target}"})
    assert digest(project, name) == undisturbed
    assert status(project, name)["attempts"] == 2


@pytest.mark.parametrize("moment", ["start 0", "start 4"])
def test_killed_again_while_it_restarts(project: Path, undisturbed: str, moment: str) -> None:
    name = f"again-{moment}".replace(" ", "-")
    with start("launch", "recipe=small", f"name={name}", cwd=project, environment={"FAULT": f"{moment} 2 0 self", **SLOWLY}) as job:
        wait_for(lambda: step(run_of(project, name)) >= (1 if moment == "start 0" else 5), 60, "a step")
        kill(worker_pids(run_of(project, name))[1])
        assert job.wait(90) == 0, job.output
    assert digest(project, name) == undisturbed


@pytest.mark.parametrize("moment", ["step 6", "saved 8"])
def test_a_killed_agent_is_started_again(project: Path, undisturbed: str, moment: str) -> None:
    """Its workers die with it; launch starts the next attempt."""
    name = f"agent-{moment}".replace(" ", "-")
    mltrain(project, "launch", "recipe=small", f"name={name}", environment={"FAULT": f"{moment} 1 0 agent"})
    assert digest(project, name) == undisturbed


@pytest.mark.parametrize("where", ["step", "save"])
def test_the_whole_process_group_is_killed_and_resumed(project: Path, undisturbed: str, where: str) -> None:
    name = f"group-{where}"
    with start("launch", "recipe=small", f"name={name}", cwd=project, environment=SLOWLY) as job:
        wait_for(lambda: step(run_of(project, name)) >= 4 if where == "step" else _saving(project, name, 8), 60, where)
        kill(agent_pid(run_of(project, name)))
        job.kill_group()
        job.wait(10)
    wait_for(lambda: not worker_pids(run_of(project, name)), 10, "the workers' death")
    mltrain(project, "resume", name)
    assert digest(project, name) == undisturbed


def test_killed_in_a_commit_with_its_writers(project: Path, undisturbed: str) -> None:
    """The step's folder is there, its manifest is not: workers and writers die together."""
    with start("launch", "recipe=small", "name=commit", cwd=project) as job:
        wait_for(lambda: _saving(project, "commit", 8), 60, "step 8's folder")
        for pid in [*_writers(project), *worker_pids(run_of(project, "commit")).values()]:
            kill(pid)
        assert job.wait(90) == 0, job.output
    assert digest(project, "commit") == undisturbed


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=[pytest.mark.full, pytest.mark.timeout(1200)])])
def test_random_kills_in_one_run(project: Path, kills: int) -> None:
    """Workers, all workers, the agent: at random moments of one longer run."""
    draw, steps = random.Random(kills), 40 * kills
    length = [f"steps={steps}", "checkpoint.every=10", "checkpoint.keep=3", "eval_every=0"]
    mltrain(project, "launch", "recipe=small", f"name=calm-{kills}", *length, limit=600)
    with start("launch", "recipe=small", f"name=random-{kills}", *length, "launcher.restarts=1000", cwd=project,
               environment={"PACE": "0.03"}) as job:             # about two seconds a kill; the calm run need not wait
        done = 0
        while done < kills and job.process.poll() is None:
            at = step(run_of(project, f"random-{kills}"))
            wait_for(lambda at=at: job.process.poll() is not None or step(run_of(project, f"random-{kills}")) > at, 60, "progress")
            time.sleep(draw.random() * 0.5)               # the moment is what is random here, nothing is waited for
            done += _kill_something(project, f"random-{kills}", draw)
        assert job.wait(600) == 0, job.output
    assert done == kills, "the run ended before it was disturbed"
    assert digest(project, f"random-{kills}") == digest(project, f"calm-{kills}")
    assert ledger.verify(ledger_file(run_of(project, f"random-{kills}"))) > kills         # raises at the first bad line


def test_the_control_another_seed_differs(project: Path, undisturbed: str) -> None:
    mltrain(project, "launch", "recipe=small", "name=control", "seed=5", environment={"FAULT": "step 6 1 1 self"})
    assert digest(project, "control") != undisturbed


def _kill_something(project: Path, name: str, draw: random.Random) -> int:
    pids = worker_pids(run_of(project, name))
    kind = draw.choice(["one", "one", "all", "agent"])
    try:
        targets = {"one": lambda: [draw.choice([*pids.values()])], "all": lambda: [*pids.values()],
                   "agent": lambda: [agent_pid(run_of(project, name))]}[kind]()
    except (LookupError, IndexError):                     # between two attempts
        return 0
    for pid in targets:
        kill(pid)
    return 1 if targets else 0


def _saving(project: Path, name: str, at: int) -> bool:
    folder = run_of(project, name) / "checkpoints" / f"step-{at:08d}"
    return folder.is_dir() and not list(folder.glob("manifest*"))


def _writers(project: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if WRITER in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


