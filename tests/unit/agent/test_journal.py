"""What the agent writes when it cannot."""
from __future__ import annotations

import time
from pathlib import Path

import pytest

from mltrain.agent.journal import Journal
from mltrain.errors import StorageError
from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file


def test_rows_that_a_full_disk_does_not_take_wait_for_room_and_keep_their_order_and_moment(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*args: object, **fields: object) -> None:
        raise StorageError("ledger.jsonl: cannot be written: no space left on device")

    journal = Journal(tmp_path / "run")
    assert journal.open({"workers": 2})
    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "append", full)
        for number in range(3):
            journal.row("saved", step=number)
        before = time.time()
        journal.write([], None)
    assert capsys.readouterr().err.count("no space left") == 1
    path = ledger_file(tmp_path / "run")
    assert [row["event"] for row in ledger.read(path)] == ["created"]
    journal.write([], None)
    rows = ledger.read(path)
    assert [row.get("step") for row in rows] == [None, 0, 1, 2] and rows[-1]["time"] <= round(before, 3) and ledger.verify(path) == 4
    journal.release()
