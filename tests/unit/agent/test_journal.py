"""What the agent writes when it cannot."""
from __future__ import annotations

import fcntl
import time
from pathlib import Path

import pytest

from mltrain.agent.journal import Journal
from mltrain.agent.loop import Loop
from mltrain.agent.scribe import Scribe
from mltrain.errors import StorageError
from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file


def test_rows_that_a_full_disk_does_not_take_wait_for_room_and_keep_their_order_and_moment(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*args: object, **fields: object) -> None:
        raise StorageError("ledger.jsonl: cannot be written: no space left on device")

    journal = Journal(tmp_path / "run", Scribe(Loop()))
    assert journal.open({"workers": 2}) and journal.settle(5)
    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "extend", full)
        for number in range(3):
            journal.row("saved", step=number)
        before = time.time()
        journal.write([], None)
        assert journal.settle(5)
    assert capsys.readouterr().err.count("no space left") == 1
    path = ledger_file(tmp_path / "run")
    assert [row["event"] for row in ledger.read(path)] == ["created"]
    journal.write([], None)
    assert journal.settle(5)
    rows = ledger.read(path)
    assert [row.get("step") for row in rows] == [None, 0, 1, 2] and rows[-1]["time"] <= round(before, 3) and ledger.verify(path) == 4
    journal.release()


def test_storage_that_stalls_holds_nobody_up_and_nothing_is_lost(tmp_path: Path) -> None:
    """Somebody holds the ledger's lock: a file server that does not answer looks the same."""
    loop, begun = Loop(), list[float]()
    journal = Journal(tmp_path / "run", Scribe(loop))
    assert journal.open({"workers": 2}) and journal.settle(5)
    path = ledger_file(tmp_path / "run")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for number in range(50):
            journal.row("saved", step=number)
            journal.write([], None)
        journal.attempt_started(lambda: begun.append(time.monotonic()), workers=2)
        assert not journal.settle(0.2) and len(ledger.read(path)) == 1
        released = time.monotonic()
    loop.run(lambda: bool(begun))
    assert begun[0] >= released, "no attempt begins before its number is on the disk"
    assert [row.get("step") for row in ledger.read(path)[1:-1]] == [*range(50)] and ledger.verify(path) == 52
    journal.release()


def test_who_has_lost_the_run_writes_nothing_more(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run", Scribe(Loop()))
    assert journal.open({"workers": 2}) and journal.settle(5)
    path = ledger_file(tmp_path / "run")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        journal.write([], None)                                # in the middle of it
        journal.row("saved", step=1)
        journal.abandon()
        journal.row("saved", step=2)
    assert journal.settle(5) and [row.get("step") for row in ledger.read(path)] in ([None], [None, 1]), "the write under way is the last"
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_a_job_raises_ends_the_loop_and_not_the_thread() -> None:
    loop, done = Loop(), list[int]()
    scribe = Scribe(loop)
    scribe.post(lambda: [][0])
    with pytest.raises(IndexError):
        loop.run(lambda: False)
    scribe.ask(lambda: 7, done.append)
    loop.run(lambda: bool(done))
    assert done == [7] and scribe.settle(5)
