"""A machine that is found wanting while an attempt starts is left out, with a reason; where it is the only one, the run ends with 69."""
from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from fake_nvml import SOURCE

from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file
from mltrain.runs.outcome import read_status
from mltrain.testing.faults import start, wait_for

FAULTY = SOURCE + "\ndevices.append({'errors': 5})\n"
FAULT = "GPUs: GPU 0: 5 uncorrected errors of its memory"
WAITS = """
import os, sys, time
give_up = time.monotonic() + 60
while not os.path.exists("enough") and time.monotonic() < give_up: time.sleep(0.02)
"""


@pytest.fixture
def faulty(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with a broken device."""
    (tmp_path / "wait.py").write_text(WAITS)
    (tmp_path / "nvml").mkdir()
    (tmp_path / "nvml" / "pynvml.py").write_text(FAULTY)
    return {"PYTHONPATH": str(tmp_path / "nvml")}


def rows(run: Path, event: str) -> list[ledger.Row]:
    return [row for row in ledger.read(ledger_file(run)) if row["event"] == event]


def test_the_only_machine_is_unfit(tmp_path: Path, faulty: dict[str, str]) -> None:
    with start("agent", "--workers", "2", "--run-dir", "run", "--", sys.executable, "wait.py", cwd=tmp_path, environment=faulty) as job:
        assert job.wait(30) == 69
        first, second = job.output.splitlines()
        assert first == f"mltrain: attempt 1: this node is unfit: {FAULT}; not restarted: this node is unfit and there is no other"
        assert second == "  nvidia-smi --gpu-reset, or another machine"
    (row,) = rows(tmp_path / "run", "health")
    assert (row["state"], f"{row['name']}: {row['text']}") == ("bad", FAULT)
    (ended,) = rows(tmp_path / "run", "attempt ended")
    assert ended["cause"]["kind"] == "node" and read_status(tmp_path / "run")["code"] == 69


def test_a_fault_that_comes_between_two_attempts(tmp_path: Path, faulty: dict[str, str]) -> None:
    (tmp_path / "nvml" / "pynvml.py").write_text(SOURCE + """
import os
devices.append({'errors': 0})
def nvmlDeviceGetTotalEccErrors(handle, kind, counter): return int(os.path.exists('crashed'))
""")
    (tmp_path / "wait.py").write_text("""
import os, time
if os.path.exists("crashed"): time.sleep(60)
open("crashed", "w").close()
os.abort()
""")
    with start("agent", "--run-dir", "run", "--", sys.executable, "wait.py", cwd=tmp_path, environment=faulty) as job:
        assert job.wait(30) == 69
    assert [row["cause"]["kind"] for row in rows(tmp_path / "run", "attempt ended")] == ["signal", "node"]


def test_of_two_machines_the_unfit_one_is_excluded(tmp_path: Path, faulty: dict[str, str]) -> None:
    """Two agents of this machine, by two of its addresses."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def agent(number: int, environment: dict[str, str]):
        return start("agent", "--nodes", "1:2", "--rendezvous", f"127.0.0.1:{port}", "--address", f"127.0.0.{number}", "--node-name",
                     f"n{number}", "--run-dir", "run", "--", sys.executable, "wait.py", cwd=tmp_path, environment=environment)
    with agent(1, {}) as one:
        wait_for(lambda: (tmp_path / "run" / "lease.json").exists(), 30, "the first agent's lead")
        with agent(2, faulty) as two:
            assert two.wait(60) == 69, two.output + one.output
        (tmp_path / "enough").touch()
        assert one.wait(60) == 0, one.output
        assert f"n2 is unfit: {FAULT}; n2 is excluded; restarting with 1 nodes" in one.output
    (row,) = rows(tmp_path / "run", "node excluded")
    assert (row["node"], row["reason"]) == ("n2", FAULT)
