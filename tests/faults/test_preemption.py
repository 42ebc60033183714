"""A run that is told of its machine's end saves at a step boundary and ends with 75, and its ledger says who told."""
from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest
from fake_cloud import ACTION, AWS, AZURE, EVENTS, NAME, REBALANCE, fake_cloud

from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file
from mltrain.runs.outcome import read_status
from mltrain.testing.faults import Job, start, step, wait_for, worker_pids

TOY = """
import os, signal, sys, time
from mltrain.runs.pulse import Pulse
pulse, leave, step = Pulse.from_environment(), [], 0
signal.signal(signal.SIGTERM, lambda *_: leave.append(1))
while step < 3000:
    pulse.beat("compute", step)
    time.sleep(0.02)
    step += 1
    pulse.beat("compute", step)
    if leave and "DEAF" not in os.environ:
        open("saved-" + os.environ["RANK"], "w").write(str(step))
        sys.exit(75)
"""


def begun(folder: Path, job: Job) -> None:
    run = folder / "run"
    wait_for(lambda: job.process.poll() is not None or (step(run) >= 1 and len(worker_pids(run)) == 2), 60, "a first step")


def toy(folder: Path, *options: str, **environment: str):
    (folder / "toy.py").write_text(TOY)
    command = ["agent", "--workers", "2", "--run-dir", "run", *options, "--", sys.executable, "toy.py"]
    return start(*command, cwd=folder, environment=environment)


def rows(folder: Path) -> list[ledger.Row]:
    return [row for row in ledger.read(ledger_file(folder / "run")) if row["event"] == "notice"]


def in_seconds(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def test_a_spot_machine_is_left_with_state_saved(tmp_path: Path) -> None:
    with fake_cloud(AWS) as cloud, toy(tmp_path, MLTRAIN_METADATA=f"aws={cloud.base}") as job:
        cloud.answers[REBALANCE] = json.dumps({"noticeTime": in_seconds(0)})
        begun(tmp_path, job)
        cloud.answers[ACTION] = json.dumps({"action": "terminate", "time": (when := in_seconds(120))})
        assert job.wait(60) == 75, job.output
        assert f"mltrain: AWS: spot interruption: terminate at {when}; 1" in job.output and "s to save and leave" in job.output
    advice, notice = rows(tmp_path)
    assert (advice["source"], advice["final"], notice["final"], notice["seconds"] > 0) == ("AWS", False, True, True)
    status = read_status(tmp_path / "run")
    assert status["state"] == "stopped" and f"(AWS: spot interruption: terminate at {when})" in status["reason"]
    assert {(tmp_path / f"saved-{rank}").exists() for rank in range(2)} == {True}


def test_who_does_not_leave_before_the_machine_does_is_killed(tmp_path: Path) -> None:
    with fake_cloud(AZURE) as cloud, toy(tmp_path, MLTRAIN_METADATA=f"azure={cloud.base}", DEAF="1") as job:
        cloud.answers |= {NAME: "me", EVENTS: "{}"}
        begun(tmp_path, job)
        cloud.answers[EVENTS] = json.dumps({"Events": [{"EventType": "Preempt", "Resources": ["me"], "NotBefore": ""}]})
        assert job.wait(30) == 143
        assert "2 workers did not leave within 1 s: killed" in job.output
    reason = read_status(tmp_path / "run")["reason"]
    assert reason == "stopped; no worker said that state was saved (Azure: Preempt: Azure takes this machine, now)"


@pytest.mark.parametrize(("number", "environment", "source"), [
    (signal.SIGUSR1, {"SLURM_JOB_ID": "7"}, "Slurm"), (signal.SIGTERM, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "Kubernetes"),
    (signal.SIGTERM, {}, "signal")])
def test_signals_are_notices(tmp_path: Path, number: signal.Signals, environment: dict[str, str], source: str) -> None:
    with toy(tmp_path, **environment) as job:
        begun(tmp_path, job)
        job.signal(number)
        assert job.wait(30) == 75
    assert [row["source"] for row in rows(tmp_path)] == [source]


@pytest.mark.full
def test_slurms_end_of_time(tmp_path: Path) -> None:
    with toy(tmp_path, SLURM_JOB_ID="7", SLURM_JOB_END_TIME=str(int(time.time()) + 6)) as job:
        assert job.wait(60) == 75
    assert [row["text"] for row in rows(tmp_path)] == ["the end of the job's time (SLURM_JOB_END_TIME)"]


def test_a_wrong_service_starts_nothing(tmp_path: Path) -> None:
    with toy(tmp_path, MLTRAIN_METADATA="aws") as job:
        assert job.wait(30) == 78
        assert job.output.count("\n") == 2 and "Traceback" not in job.output
    assert not (tmp_path / "run" / "ledger.jsonl").exists()
