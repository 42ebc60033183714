from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest

from mltrain.errors import DataError, NodeUnfit, StorageError
from mltrain.runs import atomic
from mltrain.runs.lease import Lease
from mltrain.runs.outcome import brief, last_status, new_status, read_status, wait, write_status

GONE = 2 ** 22 + 1       # no pid is that high


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_status(tmp_path, {**new_status(tmp_path), "state": "done", "step": 7, "loss": 0.5})
    status = read_status(tmp_path)
    assert (status["state"], status["step"], status["loss"], status["id"]) == ("done", 7, 0.5, tmp_path.name)


def test_the_fields_have_these_names(tmp_path: Path) -> None:
    assert list(new_status(tmp_path)) == [
        "id", "name", "state", "step", "steps", "samples", "tokens", "loss", "attempts", "launcher", "directory",
        "started", "ended", "goodput", "host", "pid", "beat"]


@pytest.mark.parametrize(("state", "age", "pid", "seen"), [
    ("running", 0, GONE, "running"), ("running", 10, GONE, "lost"), ("running", 10, os.getpid(), "running"), ("queued", 10, GONE, "lost"),
    ("done", 10, GONE, "done"), ("failed", 10, GONE, "failed"), ("stopped", 10, GONE, "stopped")])
def test_a_run_is_lost_when_its_pulse_is_old_and_its_agent_gone(tmp_path: Path, state: str, age: int, pid: int, seen: str) -> None:
    write_status(tmp_path, {**new_status(tmp_path), "state": state, "pid": pid, "beat": time.time() - age})
    assert read_status(tmp_path)["state"] == seen


def test_a_held_run_is_not_lost_however_old_its_beat(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    lease.acquire()
    write_status(tmp_path, {**new_status(tmp_path), "state": "running", "pid": GONE, "beat": 1})
    assert read_status(tmp_path)["state"] == "running"
    lease.release()
    assert read_status(tmp_path)["state"] == "lost"


def test_on_another_host_an_old_pulse_is_lost(tmp_path: Path) -> None:
    write_status(tmp_path, {**new_status(tmp_path), "state": "running", "host": "elsewhere", "beat": time.time() - 100})
    assert read_status(tmp_path)["state"] == "lost"


def test_a_loss_that_is_no_number_is_null(tmp_path: Path) -> None:
    write_status(tmp_path, {**new_status(tmp_path), "loss": math.nan})
    assert read_status(tmp_path)["loss"] is None


def test_a_run_without_a_status_is_queued_with_the_steps_of_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"tree": {"steps": 40}}')
    status = last_status(tmp_path)
    assert status["state"] == "queued" and status["steps"] == 40


@pytest.mark.parametrize("text", ["", "[]", "{half", "\0\0"])
def test_a_damaged_status_is_named_and_does_not_hide_a_list(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(DataError, match="not the status of a run"):
        read_status(tmp_path)
    assert brief(tmp_path)["state"] == "lost"


def test_waiting_has_a_limit(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    lease.acquire()
    with pytest.raises(NodeUnfit, match="has not ended within 0 s"):
        wait(tmp_path, 0.05)
    lease.release()
    assert wait(tmp_path, 1)["state"] == "lost"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic.write_text(tmp_path / "f", "old")

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        atomic.write_text(tmp_path / "f", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("f", "old")]
