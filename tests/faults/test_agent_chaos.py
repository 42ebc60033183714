"""`mltrain chaos` on a run of ours: whatever it does, the weights are those of the run that nobody disturbed."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import small_project

from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file
from mltrain.testing.faults import start, step, wait_for


@pytest.mark.timeout(240)
def test_six_faults_of_three_kinds(tmp_path: Path) -> None:
    project = small_project.make(tmp_path / "project")
    long = ["steps=160", "eval_every=0"]
    small_project.mltrain(project, "launch", "recipe=small", "name=calm", *long)
    with start("launch", "recipe=small", "name=wild", *long, "launcher.hang_seconds=1", cwd=project) as job:
        wait_for(lambda: job.process.poll() is not None or list((project / "runs").glob("wild-2*")), 60, "a run directory")
        run, = (project / "runs").glob("wild-2*")
        wait_for(lambda: job.process.poll() is not None or step(run) >= 1, 60, "a first step")
        words = ["wild", "--seed", "3", "--faults", "kill,stop,exit", "--every", "0.5", "--count", "6"]
        said = subprocess.run([sys.executable, "-m", "mltrain", "chaos", *words], cwd=project, capture_output=True, text=True, timeout=120)
        assert said.returncode == 0, said.stderr
        assert job.wait(120) == 0, job.output
    kinds = [line.split()[2] for line in said.stdout.splitlines()]
    assert sorted(kinds) == ["exit", "exit", "kill", "kill", "stop", "stop"], said.stdout
    assert small_project.digest(project, "wild") == small_project.digest(project, "calm")
    causes = [row["cause"]["kind"] for row in ledger.read(ledger_file(run)) if "cause" in row]
    assert len(causes) == 6 and causes.count("hang") == 2
