"""status, logs, cancel, resume and the local launcher, on a run whose workers are a script of three lines: no recipe, no torch."""
from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file
from mltrain.runs.lease import is_live
from mltrain.runs.outcome import last_status
from mltrain.testing.faults import Job, agent_pid, kill, start, step, wait_for, worker_pids

SCRIPT = """
import os, signal, sys, time
from mltrain.runs.pulse import Pulse
pulse, leave = Pulse.from_environment(), []
signal.signal(signal.SIGTERM, lambda *_: leave.append(1))
print("hello from rank", os.environ["RANK"], "attempt", os.environ["MLTRAIN_ATTEMPT"])
for step in range(int(open("steps").read())):
    pulse.beat("compute", step + 1, loss=0.5, samples=8 * step, tokens=64 * step)
    if leave: pulse.report("saved", step=step + 1); sys.exit(75)
    time.sleep(0.02)
"""
LAUNCH = """
import sys
from pathlib import Path
from mltrain.launch.job import JobSpec
from mltrain.launch.local import Local
sys.exit(Local(workers=2).submit(JobSpec(Path("runs/mine").absolute(), (sys.executable, "work.py")), detach="--detach" in sys.argv))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "work.py").write_text(SCRIPT)
    (tmp_path / "launch.py").write_text(LAUNCH)
    (tmp_path / "steps").write_text("100000")
    (tmp_path / "runs").mkdir()
    yield tmp_path
    if is_live(tmp_path / "runs" / "mine"):
        kill(agent_pid(tmp_path / "runs" / "mine"))


def mltrain(folder: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "mltrain", *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def detached(folder: Path) -> Path:
    """A live run, two workers beating."""
    (folder / "runs" / "mine").mkdir(exist_ok=True)
    assert subprocess.run([sys.executable, "launch.py", "--detach"], cwd=folder, timeout=60).returncode == 0
    run = folder / "runs" / "mine"
    wait_for(lambda: step(run) >= 1 and len(worker_pids(run)) == 2, 60, "a first step")
    return run


def test_a_detached_run_is_watched_read_and_cancelled(folder: Path) -> None:
    run = detached(folder)
    path = str(run)
    status = json.loads(mltrain(folder, "status", path, "--json"))[0]
    assert status["state"] == "running" and status["loss"] == 0.5 and [rank["phase"] for rank in status["ranks"]] == ["compute", "compute"]
    assert mltrain(folder, "logs", path) == "hello from rank 0 attempt 1\n"
    both = mltrain(folder, "logs", path, "--rank", "all").splitlines()
    assert both == [f"[rank {rank}] hello from rank {rank} attempt 1" for rank in (0, 1)]
    assert "mine is cancelled, state saved up to step" in mltrain(folder, "cancel", path)
    assert not is_live(run) and json.loads(mltrain(folder, "status", path, "--json"))[0]["state"] == "cancelled"
    assert mltrain(folder, "cancel", path) == "mine is cancelled: nothing to cancel\n"


def test_resume_goes_on_and_a_second_resume_attaches(folder: Path) -> None:
    run = detached(folder)
    mltrain(folder, "cancel", str(run))
    (folder / "steps").write_text("150")
    with start("resume", run, cwd=folder) as first:
        wait_for(lambda: is_live(run) or first.process.poll() is not None, 60)
        with start("resume", run, cwd=folder) as second:
            assert (first.wait(60), second.wait(60)) == (0, 0)
            assert "attached to mine" in second.output and "mine is done at step 150" in second.output
    assert ledger.attempts(ledger_file(run)) == 2
    assert "nothing to resume" in mltrain(folder, "resume", str(run))


def test_a_live_run_cannot_be_changed(folder: Path) -> None:
    run = detached(folder)
    assert "is live: it cannot be changed now" in mltrain(folder, "resume", str(run), "steps=5", code=64)


def test_a_lost_run_is_said_to_be_lost_and_can_be_marked(folder: Path) -> None:
    run = detached(folder)
    kill(agent_pid(run))
    wait_for(lambda: not is_live(run), 20)
    assert "mine was not live" in mltrain(folder, "cancel", str(run))
    assert "cancelled" in mltrain(folder, "status", str(run))


def test_errors_show_the_culprit(folder: Path) -> None:
    (folder / "work.py").write_text("import os, sys, time\nif os.environ['RANK'] == '1': sys.exit('no such luck')\ntime.sleep(60)\n")
    command = ("agent", "--workers", "2", "--restarts", "0", "--run-dir", "runs/mine", "--", sys.executable, "work.py")
    with start(*command, cwd=folder) as job:
        assert job.wait(60) == 1
    shown = mltrain(folder, "logs", str(folder / "runs" / "mine"), "--errors")
    assert "attempt 1: rank 1 (pid" in shown and "no such luck" in shown


def foreground(folder: Path, job: Job) -> Path:
    run = folder / "runs" / "mine"
    wait_for(lambda: job.process.poll() is not None or (step(run) >= 1 and len(worker_pids(run)) == 2), 60, "a first step")
    return run


@pytest.fixture
def launched(folder: Path) -> Iterator[Job]:
    (folder / "runs" / "mine").mkdir()
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen([sys.executable, "launch.py"], cwd=folder, stdout=out, stderr=out, start_new_session=True)
    yield Job(process, folder / "out")
    process.kill()
    process.wait(30)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_foreground_launch_passes_signals_on_and_ends_with_the_runs_code(folder: Path, launched: Job, number: int, code: int) -> None:
    both = "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number,"
    (folder / "work.py").write_text(SCRIPT.replace("signal.signal(signal.SIGTERM,", both))
    foreground(folder, launched)
    launched.signal(number)
    assert launched.wait(30) == code


def test_a_killed_agent_is_started_again_by_its_launch(folder: Path, launched: Job) -> None:
    run = foreground(folder, launched)
    before = agent_pid(run)
    kill(before)
    wait_for(lambda: last_status(run)["attempts"] == 2 and [rank["step"] >= 1 for rank in last_status(run)["ranks"]] == [True, True], 60)
    assert agent_pid(run) != before
    assert "the agent was killed by signal 9; starting it again (1 of 16)" in launched.output
    launched.signal(signal.SIGTERM)
    assert launched.wait(30) == 75
    assert ledger.attempts(ledger_file(run)) == 2


def test_a_killed_launch_takes_its_run_along_with_state_saved(folder: Path, launched: Job) -> None:
    run = foreground(folder, launched)
    kill(launched.process.pid)
    wait_for(lambda: not is_live(run), 30, "the end of the run")
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"


# ── status is cheap ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_status_imports_neither_torch_nor_hydra(tmp_path: Path) -> None:
    code = ("import sys; from mltrain.cli.main import main; main(['status', '--json']); "
            "print(sorted({'torch', 'hydra', 'omegaconf', 'numpy', 'pyarrow', 'msgspec', 'rich'} & sys.modules.keys()))")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


def test_status_answers_at_once(tmp_path: Path) -> None:
    def seconds() -> float:
        """Of the processor: a busy machine is no fault of ours."""
        begin = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "mltrain", "status"], cwd=tmp_path, capture_output=True, check=True)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        return end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime
    assert min(seconds() for _ in range(5)) < 0.3      # 0.09 s on a quiet machine


@pytest.mark.parametrize(("argv", "code", "message"), [
    (["status", "nothing"], 66, "no run 'nothing' in runs/"),
    (["status", "a", "b"], 64, "needs one run, not 2: a b"),
    (["status", "--nope"], 64, "unrecognized arguments"),
    (["logs", "runs=elsewhere"], 64, "needs one run"),
    (["logs", "x", "--rank", "first"], 64, "--rank first: not a rank"),
    (["cancel", "x"], 66, "no run 'x'"),
    (["resume", "x", "runs=elsewhere"], 66, "no run 'x' in elsewhere/"),
    (["resume"], 64, "RUN"),
    (["resume", "x", "--from", "y"], 64, "invalid int value"),
])
def test_a_wrong_command_is_one_message(tmp_path: Path, argv: list[str], code: int, message: str) -> None:
    assert message in mltrain(tmp_path, *argv, code=code)
