"""A worker that SIGKILL does not end: the run goes on without it."""
from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stalled_folder import stalled

from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file
from mltrain.runs.outcome import pid_lives
from mltrain.testing.faults import start, wait_for

# Rank 1 of the first attempt looks into a folder whose server is gone; rank 0 then does what the test wants.
TOY = """
import os, time
from mltrain.runs.pulse import Pulse
pulse, rank, attempt = Pulse.from_environment(), int(os.environ["RANK"]), os.environ["MLTRAIN_ATTEMPT"]
for step in range(20):
    pulse.beat("compute", step)
    time.sleep(0.02)
    if attempt == "1" and step == 10:
        if rank == 1:
            with open("immune", "w") as file: print(os.getpid(), file=file, flush=True)
            os.path.exists("server/data"); time.sleep(1000)
        while not os.path.exists("immune"): time.sleep(0.01)
        time.sleep(0.2)
        OTHER
"""
# Where nothing may be mounted, signals to that one are lost in the agent instead.
DEAF = """
import os
def deaf(send):
    def to(pid, number):
        immune = open("immune").read() if os.path.exists("immune") else ""
        if number != 9 or immune.strip() != str(pid): send(pid, number)
    return to
os.kill, os.killpg = deaf(os.kill), deaf(os.killpg)
"""


@pytest.fixture
def server_is_gone(tmp_path: Path) -> Iterator[bool]:
    """Real: the kernel does not end who waits there. The other way: such a one looks idle, and gets longer."""
    with stalled(tmp_path / "server") as real:
        if not real:
            (tmp_path / "lost").mkdir()
            (tmp_path / "lost/sitecustomize.py").write_text(DEAF)
        yield real
    if (tmp_path / "immune").exists():
        left = int((tmp_path / "immune").read_text())
        wait_for(lambda: not pid_lives(left), 20, "the end of the one left behind: the kernel has let it go")


def run_toy(folder: Path, other: str, real: bool) -> str:
    (folder / "toy.py").write_text(TOY.replace("OTHER", other))
    environment = {} if real else {"PYTHONPATH": str(folder / "lost")}
    with start("agent", "--workers", "2", "--run-dir", "run", "--hang-seconds", "1", "--", sys.executable, "toy.py", cwd=folder,
               environment=environment) as job:
        assert job.wait(60) == 0, job.output
        return job.output


def rows(folder: Path, event: str) -> list[dict[str, object]]:
    return [row for row in ledger.read(ledger_file(folder / "run")) if row["event"] == event]


def test_a_failure_elsewhere_does_not_wait_for_it(tmp_path: Path, server_is_gone: bool):
    output = run_toy(tmp_path, "os._exit(9)", server_is_gone)
    pid = int((tmp_path / "immune").read_text())
    assert pid_lives(pid) or not server_is_gone                # still: the run is over, and has not waited
    [row] = rows(tmp_path, "left behind")
    assert (row["rank"], row["pid"], row["attempt"]) == (1, pid, 1)
    assert f"rank 1 (pid {pid}) is left behind: SIGKILL has not ended it within" in output
    assert "attempt 1: rank 0 (pid" in output and " 9 at step 10" in output      # the cause is who failed
    first, second = (row["time"] for row in rows(tmp_path, "attempt started"))
    assert second - first < 30
    if server_is_gone:
        assert "in an uninterruptible wait of the kernel (state D)" in str(row["reason"])


def test_one_that_hangs_there_is_the_cause(tmp_path: Path, server_is_gone: bool):
    output = run_toy(tmp_path, "time.sleep(0)", server_is_gone)
    line = next(line for line in output.splitlines() if line.startswith("mltrain: attempt 1"))
    assert "rank 1 (pid" in line and "hung at step 10, phase compute: silent for" in line
    assert len(rows(tmp_path, "left behind")) == 1
