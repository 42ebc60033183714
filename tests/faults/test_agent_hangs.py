"""Hangs: made on purpose, named, their stack kept, and the run goes on."""
from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import small_project

from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file
from mltrain.testing.faults import agent_pid, kill, start, step, wait_for, worker_pids

# Steps of 20 ms, each with an exchange that waits for the other rank (over files); rank 1 hangs at step 40 of the first attempt.
TOY = """
import os, sys, time
from mltrain.runs.pulse import Pulse
pulse, rank, attempt = Pulse.from_environment(), int(os.environ["RANK"]), os.environ["MLTRAIN_ATTEMPT"]

def exchange(step):
    pulse.phase("collective")
    open(f"{attempt}-{rank}-{step}", "w").close()
    while not os.path.exists(f"{attempt}-{1 - rank}-{step}"): time.sleep(0.002)
    pulse.phase("compute")

def hang():
    HANG

for step in range(60):
    pulse.beat("compute", step)
    if rank == 1 and attempt == "1" and step == 40: hang()
    time.sleep(0.02)
    exchange(step)
    pulse.beat("data", step + 1)
"""


def cause(run: Path) -> dict[str, object]:
    return next(row["cause"] for row in ledger.read(ledger_file(run)) if row["event"] == "attempt ended" and "cause" in row)


def hang(folder: Path, how: str, *options: str) -> str:
    """Run the toy with that fault in it; what the agent said of it."""
    (folder / "toy.py").write_text(TOY.replace("HANG", how))
    with start("agent", "--workers", "2", "--run-dir", "run", *options, "--", sys.executable, "toy.py", cwd=folder) as job:
        assert job.wait(60) == 0, job.output
        return next(line for line in job.output.splitlines() if line.startswith("mltrain: attempt 1"))


# ── who, why, where ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_rank_that_sleeps_is_named_with_its_stack(tmp_path: Path) -> None:
    began = time.monotonic()
    line = hang(tmp_path, "time.sleep(1000)", "--hang-seconds", "1")
    assert time.monotonic() - began < 20
    assert "rank 1 (pid" in line and "hung at step 40, phase compute: silent for 1." in line
    assert "its stack: attempts/0001/stack-rank-1.txt; restarting in 0.0 s" in line and line.endswith("more: mltrain logs run --errors")
    assert "in hang" in (tmp_path / "run/attempts/0001/stack-rank-1.txt").read_text()
    assert cause(tmp_path / "run")["kind"] == "hang"


def test_a_stopped_rank_is_named_and_does_not_delay_the_restart(tmp_path: Path) -> None:
    line = hang(tmp_path, "import signal; os.kill(os.getpid(), signal.SIGSTOP)", "--hang-seconds", "1")
    assert "rank 1 (pid" in line and "stopped by a signal (state T)" in line and "stack-rank-1.txt" in line
    times = {(row["event"], row.get("attempt")): row["time"] for row in ledger.read(ledger_file(tmp_path / "run"))}
    assert times["attempt started", 2] - times["attempt ended", 1] < 1


def test_a_rank_stopped_while_it_waits_is_named_too(tmp_path: Path) -> None:
    """Its phase says `collective`, as that of the rank that rightly waits."""
    line = hang(tmp_path, "pulse.phase('collective'); import signal; os.kill(os.getpid(), signal.SIGSTOP)", "--hang-seconds", "1")
    assert "rank 1 (pid" in line and "phase collective" in line and "state T" in line


def test_a_rank_stuck_in_the_kernel_is_named(tmp_path: Path) -> None:
    """A parent whose child was made with CLONE_VFORK waits uninterruptibly until that child ends."""
    number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    body = f"import ctypes, signal; ctypes.CDLL(None).syscall({number}, 0x4000 | signal.SIGCHLD, 0, 0, 0, 0) or time.sleep(1000)"
    line = hang(tmp_path, body, "--hang-seconds", "1")
    assert "rank 1 (pid" in line and "in an uninterruptible wait of the kernel (state D)" in line


def test_ranks_that_all_wait_end_too(tmp_path: Path) -> None:
    line = hang(tmp_path, "pulse.phase('collective'); time.sleep(1000)", "--hang-seconds", "0.5")
    assert "all ranks wait" in line or "hung at step 40, phase collective" in line


def test_a_script_that_never_beats_is_judged_by_its_processor_time(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("import os, time\nif os.environ['MLTRAIN_ATTEMPT'] == '1': time.sleep(1000)\n")
    with start("agent", "--workers", "2", "--hang-seconds", "1", "--", sys.executable, "plain.py", cwd=tmp_path) as job:
        assert job.wait(60) == 0, job.output
        assert "hung: idle for 1." in job.output and "plain.py\", line 2 in <module>" in job.output


@pytest.mark.parametrize(("spy", "shown"), [
    ("echo 'MainThread (idle): wait (train.py:3)'", "MainThread (idle): wait (train.py:3)"),
    ("sleep 1000", "hung: idle for 1.")])                                                # it does not delay the kill
def test_other_programs_are_asked_by_py_spy_for_two_seconds(tmp_path: Path, spy: str, shown: str) -> None:
    (tmp_path / "py-spy").write_text(f"#!/bin/sh\n{spy}\n")
    (tmp_path / "py-spy").chmod(0o755)
    with start("agent", "--hang-seconds", "1", "--", "sh", "-c", "[ $TORCHELASTIC_RESTART_COUNT = 1 ] || exec sleep 1000", cwd=tmp_path,
               environment={"PATH": f"{tmp_path}:{os.environ['PATH']}"}) as job:
        assert job.wait(15) == 0, job.output
        assert shown in job.output


# ── who is not ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────
BUSY = "end = time.monotonic() + 3\nwhile time.monotonic() < end: pass\n"


@pytest.mark.parametrize("body", [
    BUSY,
    f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {'import time; ' + BUSY!r}])",      # its child does
    f"if os.environ['RANK'] == '1': time.sleep(3)\nelse:\n    {BUSY.replace(chr(10), chr(10) + '    ')}",  # one waits for one that works
])
def test_who_works_is_left_alone(tmp_path: Path, body: str) -> None:
    (tmp_path / "plain.py").write_text(f"import os, time\n{body}\n")
    with start("agent", "--workers", "2", "--restarts", "0", "--hang-seconds", "1", "--", sys.executable, "plain.py", cwd=tmp_path) as job:
        assert job.wait(60) == 0, job.output


def test_nobody_is_judged_with_0(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY.replace("HANG", "time.sleep(7)"))
    with start("agent", "--workers", "2", "--hang-seconds", "0", "--restarts", "0", "--", sys.executable, "toy.py", cwd=tmp_path) as job:
        assert job.wait(60) == 0, job.output


def test_an_agent_that_was_stopped_itself_judges_nobody(tmp_path: Path) -> None:
    """A laptop that slept, a container that was frozen: all were silent, none hangs."""
    (tmp_path / "toy.py").write_text(TOY.replace("HANG", "pass").replace("range(60)", "range(200)"))
    run = tmp_path / "run"
    with start("agent", "--workers", "2", "--restarts", "0", "--hang-seconds", "1", "--run-dir", run, "--", sys.executable, "toy.py",
               cwd=tmp_path) as job:
        wait_for(lambda: step(run) > 20 and len(worker_pids(run)) == 2, 60, "steps")
        frozen = [agent_pid(run), *worker_pids(run).values()]
        for pid in frozen:
            kill(pid, signal.SIGSTOP)
        thaw = time.monotonic() + 3                            # longer than the limit
        wait_for(lambda: time.monotonic() > thaw, 5)
        for pid in frozen:
            kill(pid, signal.SIGCONT)
        assert job.wait(60) == 0, job.output


# ── our own trainer ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_stopped_rank_of_a_run_of_ours_by_default(tmp_path: Path) -> None:
    """No option set: found within five seconds, and the weights are those of a run that nobody disturbed."""
    project = small_project.make(tmp_path / "project")
    small_project.mltrain(project, "launch", "recipe=small", "name=calm", "steps=60")
    with start("launch", "recipe=small", "name=stopped", "steps=60", cwd=project) as job:
        run = wait_run(project, "stopped")
        wait_for(lambda: step(run) >= 5, 60, "steps")
        kill(worker_pids(run)[1], signal.SIGSTOP)
        began = time.monotonic()
        wait_for(lambda: len([row for row in ledger.read(ledger_file(run)) if row["event"] == "attempt started"]) == 2, 20, "a restart")
        assert 4 < time.monotonic() - began < 8
        assert job.wait(90) == 0, job.output
        assert "rank 1 (pid" in job.output and "state T" in job.output
    assert small_project.digest(project, "stopped") == small_project.digest(project, "calm")


@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_the_rank_that_sleeps_in_a_step_is_named_and_not_the_one_that_waits(tmp_path: Path, layout: str) -> None:
    """Under fsdp both are in the phase `compute`: their stacks tell them apart."""
    project = small_project.make(tmp_path / "project")
    (project / "sleepy.py").write_text(SLEEPY)
    (project / "recipes" / "sleepy.yaml").write_text(small_project.RECIPE.replace("hooks.Fault", "sleepy.Sleepy"))
    with start("launch", "recipe=sleepy", "steps=70", f"strategy.layout={layout}", "launcher.hang_seconds=1", cwd=project) as job:
        assert job.wait(120) == 0, job.output
        line = next(line for line in job.output.splitlines() if line.startswith("mltrain: attempt 1"))
    assert "rank 1 (pid" in line and "phase compute" in line and "hung at step" in line


SLEEPY = """
import os, time
from mltrain import Callback

class Sleepy(Callback):
    def __init__(self, task):
        self.steps = 0
        task.register_forward_pre_hook(self.sleep)

    def step(self, progress, result):
        self.steps = progress.step

    def sleep(self, task, arguments):
        if (self.steps, os.environ["RANK"], os.environ["MLTRAIN_ATTEMPT"]) == (53, "1", "1"): time.sleep(1000)
"""


def wait_run(project: Path, name: str) -> Path:
    wait_for(lambda: list((project / "runs").glob(f"{name}-2*")), 60, "a run directory")
    return max((project / "runs").glob(f"{name}-2*"))
