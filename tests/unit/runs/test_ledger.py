from __future__ import annotations

import json
import math
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrain.errors import DataError, MissingInput, StorageError
from mltrain.runs.ledger import ROOT, Ledger, attempts, read, retired, saved_step, verify
from mltrain.trust.redact import register


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number in range(5):
        ledger.append("saved", step=number)
    return ledger


def test_rows_are_numbered_and_chained(ledger: Ledger) -> None:
    rows = read(ledger.path)
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["prev"] for row in rows] == [ROOT, *(row["sha"] for row in rows[:-1])]
    assert verify(ledger.path) == 5


@pytest.mark.parametrize(("line", "change"), [
    (3, lambda lines: lines[:2] + [lines[2].replace(b'"step": 2', b'"step": 9')] + lines[3:]),
    (2, lambda lines: lines[:1] + lines[2:]),
    (4, lambda lines: lines[:3] + [lines[3][:20]] + lines[4:]),
    (6, lambda lines: [*lines, lines[4]]),
    (1, lambda lines: [lines[1], lines[0], *lines[2:]]),
])
def test_verify_names_the_first_bad_line(ledger: Ledger, line: int, change) -> None:
    ledger.path.write_bytes(b"\n".join(change(ledger.path.read_bytes().splitlines())) + b"\n")
    with pytest.raises(DataError, match=f"ledger.jsonl:{line}: "):
        verify(ledger.path)


@settings(max_examples=40, derandomize=True)
@given(cut=st.integers(min_value=1, max_value=10_000))
def test_a_crash_at_any_byte_costs_at_most_the_last_row(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "ledger.jsonl"
    for number in range(3):
        Ledger(path).append("saved", step=number)
    data = path.read_bytes()
    path.write_bytes(data[:cut % len(data)])
    whole = data[:cut % len(data)].count(b"\n")
    torn = not data[:cut % len(data)].endswith(b"\n") and cut % len(data) > 0
    Ledger(path).append("went on")
    assert [row["event"] for row in read(path)] == ["saved"] * whole + ["repaired"] * torn + ["went on"]
    assert verify(path) == whole + torn + 1


def test_what_was_torn_is_kept_aside(ledger: Ledger) -> None:
    with ledger.path.open("ab") as file:
        file.write(b'{"seq": 6, "ti')
    ledger.append("went on")
    assert ledger.path.with_name("ledger.torn").read_bytes() == b'{"seq": 6, "ti\n'


def test_zeros_after_a_power_cut_are_torn_too(ledger: Ledger) -> None:
    with ledger.path.open("ab") as file:
        file.write(b"\0" * 100 + b"\n")
    ledger.append("went on")
    assert verify(ledger.path) == 7


def test_secrets_never_reach_the_file_and_the_chain_holds(ledger: Ledger) -> None:
    register("a-registered-secret")
    ledger.append("noted", text="a-registered-secret", url="s3://key@bucket", list=["hf_abcdefghijklmnopqrst"])
    assert verify(ledger.path) == 6
    assert not any(secret in ledger.path.read_text() for secret in ("a-registered-secret", "key@", "hf_abc"))


def test_any_text_and_number_can_be_a_field(ledger: Ledger) -> None:
    row = ledger.append("noted", text="ü\n\u2028\udc80\0", loss=math.nan, path=Path("a"))
    assert verify(ledger.path) == 6 and read(ledger.path)[-1] == json.loads(json.dumps(row))


def test_a_rows_own_names_are_taken(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="its own sha"):
        ledger.append("noted", sha="0")


def test_a_long_row_before_the_last_is_found_from_behind(ledger: Ledger) -> None:
    ledger.append("noted", text="x" * 200_000)
    ledger.append("noted", text="y" * 70_000)
    assert ledger.append("end")["seq"] == 8 and verify(ledger.path) == 8


def append_many(path: Path) -> None:
    for _ in range(20):
        Ledger(path).append("noted")


def test_several_processes_may_append(ledger: Ledger) -> None:
    processes = [multiprocessing.get_context("fork").Process(target=append_many, args=(ledger.path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert verify(ledger.path) == 65


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        Ledger(tmp_path / "gone" / "ledger.jsonl").append("x")


def test_no_ledger_has_no_rows_and_cannot_be_verified(tmp_path: Path) -> None:
    assert read(tmp_path / "x") == []
    with pytest.raises(MissingInput):
        verify(tmp_path / "x")


def test_roll_backs_and_attempts_are_read_off_it(ledger: Ledger) -> None:
    ledger.append("attempt started", attempt=3)
    ledger.append("rolled back", step=20, attempt=3)
    assert retired(ledger.path) == [(20, 3)] and attempts(ledger.path) == 3


def test_a_workers_roll_back_retires_what_its_number_saved(ledger: Ledger) -> None:
    """Its checkpoint folder may have known the attempt's number, and given it a later one."""
    ledger.append("rolled back", step=17, attempt=2, why="numerics", at=18, saves_as=5)
    assert retired(ledger.path) == [(17, 5)]


def test_the_newest_saved_step_is_one_that_was_saved(ledger: Ledger) -> None:
    for step in (8, 16, 20):
        ledger.append("saved", step=step, attempt=1)
    ledger.append("rolled back", step=17, attempt=1, why="numerics", at=21)
    assert saved_step(ledger.path) == 16
    ledger.append("rolled back", step=8, attempt=1)
    assert saved_step(ledger.path) == 8
