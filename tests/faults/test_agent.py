"""The agent's promises, each kept against a fault made on purpose."""
from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file
from mltrain.runs.outcome import pid_lives, read_status
from mltrain.testing.faults import Job, agent_pid, kill, start, step, wait_for, worker_pids

# Beats, "saves" a number, leaves with 75 on SIGTERM at a step boundary. Steps are slow enough to be hit.
TOY = """
import json, os, signal, sys, time
from mltrain.runs.pulse import Pulse
from mltrain.testing.faults import kill_at
pulse, leave, rank, saved = Pulse.from_environment(), [], int(os.environ["RANK"]), "saved-" + os.environ["RANK"]
signal.signal(signal.SIGTERM, lambda *_: leave.append(1)); signal.signal(signal.SIGINT, lambda *_: leave.append(1))
step = int(open(saved).read()) if os.path.exists(saved) else 0
fault = kill_at(rank=1, step=int(os.environ.get("KILL_AT", -1)))
while step < int(os.environ.get("STEPS", 10)):
    pulse.beat("compute", step)
    fault(step)
    time.sleep(0.02)
    step += 1
    pulse.beat("compute", step, loss=1 / step)
    open(saved + ".new", "w").write(str(step)); os.replace(saved + ".new", saved)
    if rank == 0: pulse.report("saved", step=step)
    if leave: sys.exit(75)
sys.stdout.write(f"rank {rank} ends at step {step}\\n")
"""
DDP = """
import os, signal, torch, torch.distributed as dist
dist.init_process_group("gloo")
rank, first = dist.get_rank(), os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
torch.manual_seed(0)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 2))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for step in range(8):
    if first and rank == 1 and step == 3: os.kill(os.getpid(), signal.SIGKILL)
    optimizer.zero_grad()
    model(torch.ones(2, 4) * rank).sum().backward()
    optimizer.step()
dist.destroy_process_group()
os.write(1, f"rank {rank}: {sum(p.sum().item() for p in model.parameters()):.6f}\\n".encode())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "ddp.py").write_text(DDP)
    return tmp_path


def events(run: Path, name: str) -> list[ledger.Row]:
    return [row for row in ledger.read(ledger_file(run)) if row["event"] == name]


def toy(folder: Path, *arguments: str, **environment: str) -> AbstractContextManager[Job]:
    return start("agent", "--workers", "2", "--run-dir", folder / "run", *arguments, "--", sys.executable, "toy.py", cwd=folder,
                 environment=environment)


def started(run: Path, job: Job) -> None:
    """Both workers have made a step."""
    wait_for(lambda: job.process.poll() is not None or (step(run) >= 1 and len(worker_pids(run)) == 2), 60, "a first step")


# ── what is killed comes back ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_killed_worker_is_named_and_the_run_goes_on(folder: Path) -> None:
    with toy(folder, KILL_AT="4") as job:
        assert job.wait(60) == 0
        assert "attempt 1: rank 1 (pid" in job.output
        assert "killed by SIGKILL at step 4, phase compute; restarting in 0.0 s (1 of 16 without a new saved step)" in job.output
    assert [row["outcome"] for row in events(folder / "run", "attempt ended")] == ["restarted", "done"]
    assert ledger.verify(ledger_file(folder / "run")) > 4


def test_all_workers_killed(folder: Path) -> None:
    run = folder / "run"
    with toy(folder, STEPS="120") as job:
        started(run, job)
        for pid in worker_pids(run).values():
            kill(pid)
        assert job.wait(60) == 0
    assert len(events(run, "attempt started")) == 2


def test_workers_die_with_their_agent_and_another_agent_goes_on(folder: Path) -> None:
    run = folder / "run"
    with toy(folder, STEPS="500") as job:
        started(run, job)
        workers = worker_pids(run)
        kill(agent_pid(run))
        assert job.wait(20) == -signal.SIGKILL
        wait_for(lambda: not any(map(pid_lives, workers.values())), 10, "the workers' death")
    with toy(folder, STEPS="30") as job:
        assert job.wait(60) == 0
    assert [row["attempt"] for row in events(run, "attempt started")] == [1, 2]


def test_a_killed_group_is_lost_until_somebody_resumes_it(folder: Path) -> None:
    run = folder / "run"
    with toy(folder, STEPS="500") as job:
        started(run, job)
        job.kill_group()
    wait_for(lambda: read_status(run)["state"] == "lost", 20, "the state lost")


def test_a_plain_ddp_script_runs_unchanged_and_survives_a_kill(folder: Path) -> None:
    with start("agent", "--nproc-per-node", "2", "--max-restarts=1", "ddp.py", cwd=folder) as job:
        assert job.wait(120) == 0, job.output
        assert "rank 1 (pid" in job.output and "killed by SIGKILL" in job.output and "restarting in 0.0 s (1 of 1" in job.output
        lines = sorted(line for line in job.output.splitlines() if line.startswith("rank "))
        assert len(lines) == 2 and lines[0].split()[2] == lines[1].split()[2]


def test_a_finished_run_is_not_started_again(folder: Path) -> None:
    for expected in (1, 1):
        with toy(folder, STEPS="2") as job:
            assert job.wait(60) == 0
        assert len(events(folder / "run", "attempt started")) == expected


def test_a_live_run_has_one_agent(folder: Path) -> None:
    with toy(folder, STEPS="500") as job:
        started(folder / "run", job)
        with toy(folder) as second:
            assert second.wait(20) == 64
            assert "is live already" in second.output and "Traceback" not in second.output


# ── causes ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_cause_is_the_exception_and_not_its_echo(folder: Path) -> None:
    (folder / "bug.py").write_text(DDP.replace("os.kill(os.getpid(), signal.SIGKILL)", "raise ValueError('a bad batch')"))
    with start("agent", "--workers", "2", "--restarts", "0", "--", sys.executable, "bug.py", cwd=folder) as job:
        assert job.wait(120) == 70
        assert "rank 1" in (line := job.output.splitlines()[-1]) and "ValueError: a bad batch (bug.py:" in line


@pytest.mark.parametrize(("body", "code", "attempts"), [
    ("sys.exit(0)", 0, 1),
    ("sys.exit(64)", 64, 1),
    ("sys.exit(65)", 65, 1),
    ("sys.exit(66)", 66, 1),
    ("sys.exit(69)", 69, 1),
    ("sys.exit(78)", 78, 1),
    ("sys.exit(75)", 75, 1),
    ("sys.exit(130)", 130, 1),
    ("sys.exit(74)", 74, 3),
    ("sys.exit(3)", 3, 3),
    ("os.kill(os.getpid(), 9)", 137, 3),
    ("os.kill(os.getpid(), 11)", 139, 3),
    ("import nothing_of_this_name", 70, 1),
    ("raise ValueError('the same')", 70, 2),
    ("Pulse.from_environment().beat('compute', 0); raise ValueError('first step')", 70, 1),
    ("p = Pulse.from_environment(); p.beat('compute', 0); p.beat('compute', 5); raise ValueError('step 5')", 70, 2),
    ("p = Pulse.from_environment(); p.beat('compute', 0); p.beat('compute', 5 + n); raise ValueError('moves on')", 70, 3),
    ("p = Pulse.from_environment(); p.report('saved', step=n); sys.exit(3 if n < 5 else 0)", 0, 6),
    ("sys.exit(0 if n == 2 else 3)", 0, 3),
    ("from mltrain.errors import ConfigError; raise ConfigError('wrong')", 78, 1),
])
def test_exit_codes(tmp_path: Path, body: str, code: int, attempts: int) -> None:
    (tmp_path / "end.py").write_text("import os, sys\nfrom mltrain.runs.pulse import Pulse\n"
                                     f"n = int(os.environ['TORCHELASTIC_RESTART_COUNT'])\n{body}\n")
    with start("agent", "--restarts", "2", "--run-dir", "run", "--", sys.executable, "end.py", cwd=tmp_path) as job:
        assert job.wait(60) == code, job.output
    assert len(events(tmp_path / "run", "attempt started")) == attempts


# ── the end that was asked for ───────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 75)])
def test_a_signal_lets_workers_save(folder: Path, number: int, code: int) -> None:
    run = folder / "run"
    with toy(folder, STEPS="500") as job:
        started(run, job)
        job.signal(number)
        assert job.wait(20) == code
    status = read_status(run)
    assert status["state"] == "stopped" and status["step"] == int((folder / "saved-0").read_text())


def test_a_second_interrupt_ends_it_at_once(folder: Path) -> None:
    (folder / "toy.py").write_text(TOY.replace("if leave: sys.exit(75)", ""))
    with toy(folder, STEPS="5000") as job:
        started(folder / "run", job)
        job.signal(signal.SIGINT)
        first = time.monotonic()     # two interrupts within a tenth of a second are one: `timeout -s INT` signals process and group
        wait_for(lambda: time.monotonic() > first + 0.3, 1)
        job.signal(signal.SIGINT)
        assert job.wait(5) == 130


def test_who_does_not_leave_is_killed_after_the_grace(folder: Path) -> None:
    (folder / "toy.py").write_text(TOY.replace("if leave: sys.exit(75)", ""))
    with toy(folder, "--grace", "0.5", STEPS="5000") as job:
        started(folder / "run", job)
        job.signal(signal.SIGTERM)
        assert job.wait(20) == 143
        assert "2 workers did not leave within" in job.output


# ── torchrun's place ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_environment_has_torchruns_names_and_values(tmp_path: Path) -> None:
    script = tmp_path / "names.py"
    script.write_text("import os, json\njson.dump(dict(os.environ), open('env-' + os.environ['RANK'], 'w'))\n")
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def seen_under(*module: str) -> dict[str, str]:
        command = [sys.executable, "-m", *module, "--standalone", "--nproc-per-node", "2", str(script)]
        subprocess.run(command, cwd=tmp_path, env=clean, check=True, timeout=120, capture_output=True)
        return json.loads((tmp_path / "env-1").read_text())

    theirs, ours = seen_under("torch.distributed.run"), seen_under("mltrain", "agent")
    assert theirs.keys() - ours.keys() == set()
    assert {name for name in ours.keys() - theirs.keys() if not name.startswith("MLTRAIN_")} == {"GLOO_SOCKET_IFNAME"}
    differ = {name for name in theirs if theirs[name] != ours[name]}
    assert differ <= {"MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_ERROR_FILE", "TORCHELASTIC_MAX_RESTARTS"}


def test_a_taken_port_is_one_message(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with start("agent", "--master-port", port, "--", "true", cwd=tmp_path) as job:
            assert job.wait(20) == 69
            assert f"127.0.0.1:{port}: cannot listen there" in job.output and "Traceback" not in job.output


def test_any_command_is_spawned_and_its_code_is_the_runs(tmp_path: Path) -> None:
    script = "echo rank $RANK of $WORLD_SIZE; exit $((RANK * 7))"
    with start("agent", "--workers", "2", "--restarts", "0", "--", "sh", "-c", script, cwd=tmp_path) as job:
        assert job.wait(20) == 7
        assert "rank 1 of 2" in job.output
