"""SIGKILL at random moments, to the trainer, its writer, or both: no sealed snapshot is lost while its writer lives, and nothing half is
ever taken for whole."""
from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from mltrain import Checkpointer, Progress
from mltrain.checkpoint.snapshot import Snapshot
from mltrain.errors import StorageError

SECONDS = 30
IN_COPY, BEFORE_BELL, IN_WRITE, WITH_WRITER = range(4)          # when the trainer is killed
SIZES = [(1 << 18) + 1, 1 << 17, 3]                             # elements; about 1.5 MiB


def expected(step: int) -> dict[str, torch.Tensor]:
    """Whole numbers, so that every element of every step can be told."""
    return {f"w{i}": torch.arange(size, dtype=torch.float32).remainder_(1021) + step for i, size in enumerate(SIZES)}


def holds(state, step: int) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in expected(step).items())


def train(path: Path, pipe: int, kind: int) -> None:
    """Restores, checks, then steps and saves without end. Says where it is; killed by the parent."""
    def say(*words):
        os.write(pipe, (" ".join(map(str, words)) + "\n").encode())
    state = {name: torch.zeros_like(tensor) for name, tensor in expected(0).items()}
    checkpointer = Checkpointer(path, keep=2)
    progress = checkpointer.restore(state) or Progress()
    if progress.step == 0:
        state = expected(0)
    say("restored", progress.step, "right" if holds(state, progress.step) else "wrong")
    copy, ring = Snapshot.copy, checkpointer._ring

    def told_copy(snapshot, slot, state):
        say("writer", checkpointer._writer.pid)
        say("copying", progress.step)
        copy(snapshot, slot, state)

    def told_ring(snapshot):
        say("sealed", progress.step)
        if kind == BEFORE_BELL:
            time.sleep(SECONDS)
        ring(snapshot)

    Snapshot.copy, checkpointer._ring = told_copy, told_ring
    while True:
        for tensor in state.values():
            tensor += 1
        progress = progress.after(1, 0)
        checkpointer.save(state, progress)


class Trainer:
    """A forked child that trains; `heard` is what it said last of each word."""

    def __init__(self, path: Path, kind: int) -> None:
        self.heard: dict[str, list[str]] = {}
        end, pipe = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(end)
                train(path, pipe, kind)
            finally:
                os._exit(1)
        os.close(pipe)
        self._lines = os.fdopen(end)

    def until(self, word: str, times: int = 1) -> None:
        while times:
            line = self._lines.readline().split()
            assert line, "the trainer died by itself"
            self.heard[line[0]] = line[1:]
            times -= line[0] == word

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        for line in self._lines:
            self.heard[line.split()[0]] = line.split()[1:]
        self._lines.close()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def await_(condition, what: str) -> None:
    limit = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < limit, what
        time.sleep(0.002)


def one_kill(path: Path, kind: int, dice: random.Random, newest: int) -> int:
    """Kills one trainer at a random moment of a kind. Returns the newest committed step, all claims checked."""
    trainer = Trainer(path, kind)
    trainer.until("restored")
    assert trainer.heard["restored"] == [str(newest), "right"]
    trainer.until("copying" if kind == IN_COPY else "sealed", 1 if kind == BEFORE_BELL else dice.randrange(1, 4))
    time.sleep(dice.uniform(0, (0.002, 0.01, 0.04, 0.08)[kind]))
    trainer.kill()
    writer = int(trainer.heard["writer"][0])
    if kind == WITH_WRITER:
        os.kill(writer, signal.SIGKILL)
    await_(lambda: gone(writer), "the writer lingers")
    sealed = int(trainer.heard.get("sealed", ["0"])[0])
    saved = Checkpointer(path).list()
    steps = [one.step for one in saved]
    assert all(one.valid for one in saved) and Checkpointer(path).verify() == []
    if kind != WITH_WRITER:
        assert max(steps, default=newest) >= sealed, f"step {sealed} was sealed and is lost"
    return max(steps, default=0)


def kills(path: Path, times: int, seed: int) -> int:
    newest, dice = 0, random.Random(seed)
    for trial in range(times):
        newest = one_kill(path, trial % 4, dice, newest)
    return newest


def test_20_kills_lose_nothing_that_was_sealed(tmp_path):
    assert kills(tmp_path, 20, seed=0) > 10


@pytest.mark.full
@pytest.mark.timeout(900)
def test_200_kills_lose_nothing_that_was_sealed(tmp_path):
    assert kills(tmp_path, 200, seed=1) > 100


@pytest.mark.parametrize("seed", range(6))
def test_a_killed_writer_fails_that_save_and_the_next_is_good(tmp_path, seed):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(expected(1), Progress(1)).wait(SECONDS)
    hurt = checkpointer.save(expected(2), Progress(2))
    time.sleep(random.Random(seed).uniform(0, 0.02))
    os.kill(checkpointer._writer.pid, signal.SIGKILL)
    await_(lambda: hurt.durable or hurt.error, "neither durable nor failed")
    assert hurt.committed or "signal 9" in str(hurt.error)
    checkpointer.save(expected(3), Progress(3)).wait(SECONDS)
    assert checkpointer.verify() == [] and checkpointer.list()[-1].step == 3


def test_what_a_killed_writer_had_not_begun_another_writes(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(expected(1), Progress(1)).wait(SECONDS)
    os.kill(checkpointer._writer.pid, signal.SIGSTOP)
    handle = checkpointer.save(expected(2), Progress(2))
    os.kill(checkpointer._writer.pid, signal.SIGKILL)
    checkpointer.wait(SECONDS)
    assert handle.durable and handle.error is None


def test_where_no_writer_can_live_the_save_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    handle = Checkpointer(tmp_path).save(expected(1), Progress(1))
    with pytest.raises(StorageError, match="exit code 1"):
        handle.wait(SECONDS)


def test_a_writer_ends_with_its_trainer_though_a_forked_child_lives(tmp_path):
    """Such a child (a loader's worker) has inherited the bell."""
    end, pipe = os.pipe()
    trainer = os.fork()
    if trainer == 0:
        checkpointer = Checkpointer(tmp_path)
        checkpointer.save(expected(1), Progress(1)).wait(SECONDS)
        child = os.fork()
        if child == 0:
            time.sleep(SECONDS)
            os._exit(0)
        os.write(pipe, f"{checkpointer._writer.pid} {child}".encode())
        time.sleep(SECONDS)
        os._exit(0)
    writer, child = map(int, os.read(end, 100).split())
    os.kill(trainer, signal.SIGKILL)
    os.waitpid(trainer, 0)
    await_(lambda: gone(writer), "the writer lingers")
    assert not gone(child)
    os.kill(child, signal.SIGKILL)


def test_a_writer_holds_nothing_of_its_trainer_but_the_buffers(tmp_path):
    stray = os.open(tmp_path / "stray", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(stray, True)
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(expected(1), Progress(1)).wait(SECONDS)
    pid = checkpointer._writer.pid
    targets = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    os.close(stray)
    known = ("/dev/null", "/memfd:mltrain-snapshot", "socket:", "anon_inode:[pidfd]", "pidfd:")
    assert [target for target in targets if not target.startswith(known)] == [] and os.getsid(pid) == pid
