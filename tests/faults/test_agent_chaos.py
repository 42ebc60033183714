"""`mltrain chaos` on live runs: whatever it does, the weights are those of the run that nobody disturbed, and the ledger names
each cause."""
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
import small_project

from mltrain.agent.chaos.disturb import plan
from mltrain.runs import curve, ledger
from mltrain.runs.goodput import seconds
from mltrain.runs.layout import ledger_file
from mltrain.runs.ledger import Row
from mltrain.testing.faults import start, wait_for

RANK = re.compile(r" rank (\d+) \(pid")
SIX = "kill,stop,exit,disk,network,corrupt"


def ended_by(kind: str, **fields: object) -> Callable[[Row], bool]:
    return lambda row: row["event"] == "attempt ended" and "cause" in row and {"kind": kind, **fields}.items() <= row["cause"].items()


# What the ledger says of each kind of fault: found by the run itself, which knows nothing of chaos.
NAMED: dict[str, Callable[[Row], bool]] = {
    "kill": ended_by("signal", code=-9), "stop": ended_by("hang"), "exit": ended_by("exit"), "network": ended_by("network"),
    "disk": lambda row: row["event"] == "save failed" and row["kind"] == "storage",
    "corrupt": lambda row: row["event"] == "checkpoint damaged" and row["kind"] == "storage",
}


def disturbed(project: Path, name: str, seed: int, faults: str, every: int, count: int, steps: int, limit: float,
              runs: str = "runs") -> tuple[Path, str]:
    """A run and what chaos said of it."""
    # a pace: while the disk is full a save is tried for four seconds, in which a quiet machine would come to the run's end
    with start("launch", "recipe=small", f"name={name}", f"steps={steps}", "eval_every=0", "launcher.hang_seconds=1",
               f"runs={runs}", cwd=project, environment={"PACE": "0.05"}) as job:
        wait_for(lambda: job.process.poll() is not None or list((project / runs).glob(f"{name}-2*/lease.json")), 60, "a live run")
        words = [name, f"runs={runs}", "--seed", seed, "--faults", faults, "--every", every, "--count", count, "--start", 0]
        chaos = subprocess.run([sys.executable, "-m", "mltrain", "chaos", *map(str, words)], cwd=project, capture_output=True, text=True,
                               timeout=limit)
        assert chaos.returncode == 0, chaos.stderr
        assert job.wait(limit) == 0, job.output
    run, = (project / runs).glob(f"{name}-2*")
    return run, chaos.stdout


def is_whole(path: Path, rows: list[Row]) -> bool:
    """Is each row there and unchanged, and each second of a class?"""
    spent, wall = seconds(rows), rows[-1]["time"] - rows[0]["time"]
    known = sum(spent.values()) - spent.get("unknown", 0.0)
    return ledger.verify(path) == len(rows) and abs(sum(spent.values()) - wall) < 0.01 * wall and known > 0.99 * wall


def as_planned(said: str, seed: int, faults: str, every: int) -> bool:
    """Kind, rank and moment of each line follow from the seed alone."""
    lines = said.splitlines()
    made = [(kind, place, at) for line in lines if (words := line.split()) and words[0] == "fault"
            for kind, place, at in [(words[2].rstrip(":"), RANK.findall(line)[-1:], int(line.rpartition("due at ")[2].rstrip(")")))]]
    wanted = [(fault.kind, [str(int(2 * fault.place))], fault.at) for fault in islice(plan(seed, faults.split(","), every), len(made))]
    return len(made) > 0 and all(
        one == two or (one[0], one[2]) == (two[0], two[2]) and not one[1] for one, two in zip(made, wanted, strict=True))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project.make(tmp_path_factory.mktemp("chaos") / "project")


def calm(project: Path, steps: int = 100) -> str:
    """The digest of a run that nobody disturbs."""
    if not [*(project / "runs").glob(f"calm-{steps}-2*")]:
        small_project.mltrain(project, "launch", "recipe=small", f"name=calm-{steps}", f"steps={steps}", "eval_every=0", limit=400)
    return small_project.digest(project, f"calm-{steps}")


@pytest.fixture
def small_disk(project: Path) -> Iterator[str]:
    """A folder for runs on a file system of 8 MiB; where one may not mount, an ordinary one."""
    (project / "small").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", project / "small"]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    yield "small"
    if mounted:
        subprocess.run(["umount", "-l", project / "small"], check=True, timeout=20)


@pytest.mark.timeout(180)
def test_a_disk_that_is_full_to_the_last_byte(project: Path, small_disk: str) -> None:
    run, said = disturbed(project, "full", 1, "disk", 10, 1, 100, 120, small_disk)
    assert "fault 1: disk" in said and small_project.digest(project, f"./{run.relative_to(project)}") == calm(project)
    rows = ledger.read(ledger_file(run))
    failed, saved = ([row["step"] for row in rows if row["event"] == event] for event in ("save failed", "saved"))
    assert failed and max(saved) == 100 and {row["event"] for row in rows} >= {"disturbed", "finished", "attempt ended", "done"}
    assert [row["time"] for row in rows if row["event"] == "save failed"] < [rows[-1]["time"]]
    assert is_whole(ledger_file(run), rows) and not [*run.rglob("*.tmp")]
    assert [row["step"] for row in curve.read(run).train] == [1, *range(4, 101, 4)], "the metrics of that time, too"


@pytest.mark.timeout(240)
def test_six_faults_of_six_kinds(project: Path) -> None:
    run, said = disturbed(project, "wild", 4, SIX, 10, 6, 100, 120)
    assert as_planned(said, 4, SIX, 10), said
    assert small_project.digest(project, "wild") == calm(project)
    rows = ledger.read(ledger_file(run))
    assert [kind for kind, named in NAMED.items() if not any(map(named, rows))] == [], said
    assert sorted(row["fault"] for row in rows if row["event"] == "disturbed") == sorted(SIX.split(","))
    assert is_whole(ledger_file(run), rows) and not [*run.rglob("*.tmp")]


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(5))
def test_twenty_faults_of_six_kinds(project: Path, seed: int) -> None:
    name = f"wild-{seed}"
    run, said = disturbed(project, name, seed, SIX, 14, 20, 700, 400)
    assert as_planned(said, seed, SIX, 14) and said.count("fault ") == 20, said
    assert small_project.digest(project, name) == calm(project, 700)
    rows = ledger.read(ledger_file(run))
    for kind, named in NAMED.items():
        made = sum(row["event"] == "disturbed" and row["fault"] == kind for row in rows)
        assert sum(map(named, rows)) >= made, f"{kind}: {said}"
    assert is_whole(ledger_file(run), rows), seconds(rows)


SCRIPT = """
import json, os, time
import torch
import torch.distributed as dist
from mltrain.runs.pulse import Pulse

dist.init_process_group("gloo")
rank, pulse, path = dist.get_rank(), Pulse.from_environment(), "state.json"
step, weight = json.load(open(path)) if os.path.exists(path) else (0, 1.0)
group = dist.new_group()
while step < 100:
    pulse.beat("compute", step)
    value = torch.tensor([weight * (rank + 1)], dtype=torch.float64)
    dist.all_reduce(value, group=group)
    weight, step = weight * 0.25 + float(value) * 0.1 + 1 / (step + 3), step + 1
    if step % 10 == 0:
        if rank == 0:
            with open("new", "w") as file:
                json.dump([step, weight], file)
            os.replace("new", path)
        group = dist.new_group()                               # its ranks meet through the store
        dist.barrier()
        if rank == 0:
            pulse.report("saved", step=step)
    time.sleep(0.02)
"""


@pytest.mark.timeout(180)
def test_a_foreign_script_loses_its_store_and_half_of_a_processor(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    with start("agent", "--workers", "2", "--run-dir", "run", "--", sys.executable, "train.py", cwd=tmp_path) as job:
        wait_for(lambda: job.process.poll() is not None or (tmp_path / "run/lease.json").exists(), 60, "a live run")
        words = ["./run", "--seed", "1", "--faults", "store,slow", "--every", "20", "--count", "2", "--start", "0"]
        chaos = subprocess.run([sys.executable, "-m", "mltrain", "chaos", *words], cwd=tmp_path, capture_output=True, text=True,
                               timeout=120)
        assert (chaos.returncode, chaos.stdout.count("fault ")) == (0, 2), chaos.stdout + chaos.stderr
        assert job.wait(120) == 0, job.output
    weight = 1.0
    for step in range(100):
        weight = weight * 0.25 + (weight * 1 + weight * 2) * 0.1 + 1 / (step + 3)
    assert json.loads((tmp_path / "state.json").read_text()) == [100, weight]
    rows = ledger.read(ledger_file(tmp_path / "run"))
    assert any(map(ended_by("network"), rows)) and sum(row["event"] == "attempt started" for row in rows) == 2
