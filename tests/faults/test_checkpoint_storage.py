"""A storage that fails: training goes on, the failure is told, a following good save is good, and the end of a run says so (74)."""
from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest
import torch

from mltrain import Checkpointer, Progress
from mltrain.errors import StorageError

STATE = {"w": torch.arange(1 << 18, dtype=torch.float32)}       # 1 MiB


def blocked(path: Path, step: int) -> Path:
    """A file where the step's folder should be: nothing can be written there, whoever one is."""
    path.mkdir(exist_ok=True)
    file = path / f"step-{step:08d}"
    file.write_text("in the way")
    return file


def test_a_failed_save_is_told_and_the_next_is_good(tmp_path):
    blocked(tmp_path, 1)
    checkpointer = Checkpointer(tmp_path)
    first, second = (checkpointer.save(STATE, Progress(step)) for step in (1, 2))
    second.wait(60)
    assert [handle.step for handle in checkpointer.settled()] == [1, 2] and "step 1 could not be saved" in str(first.error)


def test_wait_tries_once_more(tmp_path):
    file = blocked(tmp_path, 1)
    checkpointer = Checkpointer(tmp_path)
    handle = checkpointer.save(STATE, Progress(1))
    with pytest.raises(StorageError):
        handle.wait(60)
    file.unlink()
    checkpointer.wait(60)
    assert handle.durable and checkpointer.verify() == []


def test_wait_raises_74_when_the_storage_is_gone(tmp_path):
    (tmp_path / "file").write_text("no folder")
    checkpointer = Checkpointer(tmp_path / "file" / "checkpoints")
    checkpointer.save(STATE, Progress(1))
    with pytest.raises(StorageError, match="step 1 could not be saved") as caught:
        checkpointer.wait(60)
    assert caught.value.code == 74


def test_a_restore_from_what_is_no_folder_is_74(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="cannot list"):
        Checkpointer(tmp_path / "file").restore(STATE)


@pytest.fixture
def small_disk(tmp_path):
    """A folder with room for one large state, not for two: a small tmpfs; and a function that sees to it where one may not mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1600k", "none", folder]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, timeout=20).returncode == 0

    def limit(checkpointer: Checkpointer) -> None:
        if not mounted:
            resource.prlimit(checkpointer._writer.pid, resource.RLIMIT_FSIZE, (1 << 19, resource.RLIM_INFINITY))

    yield folder, limit
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True, timeout=20)


def test_a_full_disk_loses_nothing_and_a_save_that_has_room_is_good(small_disk):
    folder, limit = small_disk
    checkpointer = Checkpointer(folder, keep=1)
    checkpointer.save(STATE, Progress(1)).wait(60)
    limit(checkpointer)
    with pytest.raises(StorageError, match="No space left|too large"):
        checkpointer.save({"w": STATE["w"] + 1}, Progress(2)).wait(60)
    assert [saved.step for saved in checkpointer.list()] == [1] and checkpointer.verify() == []
    assert not [*folder.rglob("*.tmp")], "a failed write gives its room back"
    checkpointer.save({"w": STATE["w"][:9]}, Progress(3)).wait(60)
    assert [saved.step for saved in checkpointer.list()] == [1, 3]


def test_a_store_that_refuses_everything_does_not_stop_training(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    def refuse(*args, **kwargs):
        raise RuntimeError("503 slow down")                     # clients of object stores raise classes of their own
    checkpointer = Checkpointer("memory://refusing")
    monkeypatch.setattr(MemoryFileSystem, "open", refuse)
    handle = checkpointer.save(STATE, Progress(1))
    with pytest.raises(StorageError, match="503 slow down"):
        handle.wait(60)
    monkeypatch.undo()
    checkpointer.save(STATE, Progress(2)).wait(60)
    assert [one.step for one in checkpointer.list()] == [2]
