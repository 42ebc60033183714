"""A worker that the kernel ended for want of memory is told from one that somebody else killed."""
from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from mltrain.agent import processes, workers
from mltrain.agent.cause import End
from mltrain.agent.forks import Forks
from mltrain.agent.loop import Loop
from mltrain.agent.output import Output, Plan


def killed(monkeypatch: pytest.MonkeyPatch, counter: itertools.count[int] | itertools.repeat[int]) -> End:
    """The end of a worker that got SIGKILL while the kernel's counter read so."""
    monkeypatch.setattr(workers, "memory_kills", lambda: next(counter))
    loop, ends = Loop(), list[End]()
    running = workers.Workers(loop, Forks(loop, [], [], False, print), Output(loop, Plan()), ends.append, lambda row: None)
    running.clear()
    running.start(0, workers.Command(["sh", "-c", "kill -9 $$"]), {**os.environ, "LOCAL_RANK": "0"}, 1)
    loop.run(lambda: bool(ends))
    return ends[0]


def test_the_counter_rose(monkeypatch: pytest.MonkeyPatch) -> None:
    end = killed(monkeypatch, itertools.count())
    assert end.kind == "out of memory" and end.exit_code == 137 and "killed by the kernel: out of memory" in end.describe()


def test_the_counter_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    end = killed(monkeypatch, itertools.repeat(4))
    assert end.kind == "signal" and end.describe().endswith("killed by SIGKILL")


@pytest.mark.parametrize(("text", "kills"), [
    ("low 0\nhigh 7\nmax 9\noom 2\noom_kill 3\noom_group_kill 0\n", 3), ("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", 5)])
def test_both_versions_of_control_groups_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, kills: int) -> None:
    (tmp_path / "counter").write_text(text)
    monkeypatch.setattr(processes, "_counters", lambda: [tmp_path / "not there", tmp_path / "counter"])
    assert processes.memory_kills() == kills
