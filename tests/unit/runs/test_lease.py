from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mltrain.errors import UsageError
from mltrain.runs import lease as module
from mltrain.runs.lease import Holder, Lease, is_live, read_lease


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = Lease(tmp_path), Lease(tmp_path)
    first.acquire(1)
    with pytest.raises(UsageError, match=r"is live already \(attempt 1, process \d+ on "):
        second.acquire()
    first.release()
    second.acquire(2)
    holder = read_lease(tmp_path)
    assert holder and holder.attempt == 2 and is_live(tmp_path)


def test_released_means_nobody(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    assert not is_live(tmp_path)
    lease.acquire()
    lease.release()
    assert read_lease(tmp_path) is None and not is_live(tmp_path)


def test_a_dead_holders_lease_is_free_at_once(tmp_path: Path) -> None:
    code = f"import os, pathlib, mltrain.runs.lease as m; m.Lease(pathlib.Path({str(tmp_path)!r})).acquire(4); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    assert read_lease(tmp_path).attempt == 4 and not is_live(tmp_path)
    Lease(tmp_path).acquire(5)
    assert read_lease(tmp_path).attempt == 5


def test_children_do_not_inherit_it(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    lease.acquire()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    lease.release()
    assert not is_live(tmp_path)
    child.communicate(b"\n", timeout=60)


@pytest.mark.parametrize(("age", "live"), [(1.0, True), (1000.0, False)])
def test_on_another_host_the_beat_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, live: bool) -> None:
    Lease(tmp_path).acquire()
    holder = Holder("elsewhere", 1, 1, time.time() - age)
    monkeypatch.setattr(module, "read_lease", lambda run: holder)
    assert is_live(tmp_path) is live


def test_a_beat_keeps_the_attempt_and_moves_the_time(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    lease.acquire(3)
    before = read_lease(tmp_path)
    lease.beat()
    after = read_lease(tmp_path)
    assert after.attempt == 3 and after.beat >= before.beat


def test_garbage_in_the_file_is_no_holder(tmp_path: Path) -> None:
    (tmp_path / "lease.json").write_text("{half")
    assert read_lease(tmp_path) is None and not is_live(tmp_path)
    Lease(tmp_path).acquire()
    assert is_live(tmp_path)
