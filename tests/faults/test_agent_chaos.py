"""`mltrain chaos` on live runs: whatever it does, the weights are those of the run that nobody disturbed, and the ledger names
each cause."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import small_project

from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file
from mltrain.runs.ledger import Row
from mltrain.testing.faults import start, wait_for

SIX = "kill,stop,exit,disk,network,corrupt"


def ended_by(kind: str, **fields: object) -> Callable[[Row], bool]:
    return lambda row: row["event"] == "attempt ended" and "cause" in row and {"kind": kind, **fields}.items() <= row["cause"].items()


# What the ledger says of each kind of fault: found by the run itself, which knows nothing of chaos.
NAMED: dict[str, Callable[[Row], bool]] = {
    "kill": ended_by("signal", code=-9), "stop": ended_by("hang"), "exit": ended_by("exit"), "network": ended_by("network"),
    "disk": lambda row: row["event"] == "save failed" and row["kind"] == "storage",
    "corrupt": lambda row: row["event"] == "checkpoint damaged" and row["kind"] == "storage",
}


def disturbed(project: Path, name: str, seed: int, faults: str, every: int, count: int, steps: int, limit: float) -> tuple[Path, str]:
    """A run and what chaos said of it."""
    with start("launch", "recipe=small", f"name={name}", f"steps={steps}", "eval_every=0", "launcher.hang_seconds=1", cwd=project) as job:
        wait_for(lambda: job.process.poll() is not None or list((project / "runs").glob(f"{name}-2*/lease.json")), 60, "a live run")
        words = [name, "--seed", str(seed), "--faults", faults, "--every", str(every), "--count", str(count), "--start", "0"]
        chaos = subprocess.run([sys.executable, "-m", "mltrain", "chaos", *words], cwd=project, capture_output=True, text=True,
                               timeout=limit)
        assert chaos.returncode == 0, chaos.stderr
        assert job.wait(limit) == 0, job.output
    run, = (project / "runs").glob(f"{name}-2*")
    return run, chaos.stdout


def planned(said: Iterable[str]) -> list[tuple[str, str]]:
    """(kind, when due) of each line."""
    return [(line.split()[2].rstrip(":"), line.rpartition("due at ")[2]) for line in said]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project.make(tmp_path_factory.mktemp("chaos") / "project")


@pytest.mark.timeout(240)
def test_six_faults_of_six_kinds(project: Path) -> None:
    small_project.mltrain(project, "launch", "recipe=small", "name=calm", "steps=120", "eval_every=0")
    run, said = disturbed(project, "wild", 3, SIX, 14, 6, 120, 120)
    assert sorted(kind for kind, _ in planned(said.splitlines())) == sorted(SIX.split(",")), said
    assert small_project.digest(project, "wild") == small_project.digest(project, "calm")
    rows = ledger.read(ledger_file(run))
    assert [kind for kind, named in NAMED.items() if not any(map(named, rows))] == [], said
    assert [row["fault"] for row in rows if row["event"] == "disturbed"] == [kind for kind, _ in planned(said.splitlines())]
    assert ledger.verify(ledger_file(run)) == len(rows) and not [*run.rglob("*.tmp")]


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(5))
def test_twenty_faults_of_six_kinds(project: Path, seed: int) -> None:
    name = f"wild-{seed}"
    if not [*(project / "runs").glob("long-2*")]:
        small_project.mltrain(project, "launch", "recipe=small", "name=long", "steps=360", "eval_every=0")
    run, said = disturbed(project, name, seed, SIX, 14, 20, 360, 400)
    assert len(planned(said.splitlines())) == 20 and {kind for kind, _ in planned(said.splitlines())} == set(SIX.split(",")), said
    assert small_project.digest(project, name) == small_project.digest(project, "long")
    rows = ledger.read(ledger_file(run))
    for kind, named in NAMED.items():
        made = sum(row["event"] == "disturbed" and row["fault"] == kind for row in rows)
        assert sum(map(named, rows)) >= made, f"{kind}: {said}"
    assert ledger.verify(ledger_file(run)) == len(rows)
