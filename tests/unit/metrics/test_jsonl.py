"""The record of truth: strict JSON, one line a record, nothing lost to a torn line."""
from __future__ import annotations

import errno
import json
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrain.metrics.jsonl import JsonLines, attempt_file, to_line
from mltrain.runs.curve import read


def strict(line):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")
    return json.loads(line, parse_constant=refuse)


def write(directory, attempt, *records):
    sink = JsonLines(directory, attempt)
    for record in records:
        sink.write(record)
    sink.close()


def train(step, **numbers):
    return {"kind": "train", "step": step, "time": 1.5, **numbers}


def test_a_line_is_the_record():
    assert to_line(train(3, loss=0.5, norm=1)) == '{"kind":"train","step":3,"time":1.5,"loss":0.5,"norm":1}'


def test_numbers_that_json_lacks_are_null_and_named():
    assert strict(to_line(train(3, loss=math.nan, norm=math.inf))) == {
        "kind": "train", "step": 3, "time": 1.5, "loss": None, "norm": None, "nonfinite": {"loss": "nan", "norm": "inf"}}


@given(st.dictionaries(st.text(min_size=1), st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.floats())))
def test_any_record_is_one_strict_line(numbers):
    line = to_line({"kind": "train", "step": 1, **numbers})
    assert "\n" not in line
    strict(line)


def test_each_record_is_on_disk_when_write_returns(tmp_path):
    sink = JsonLines(tmp_path)
    sink.write(train(1))
    assert attempt_file(tmp_path, 1).read_text().count("\n") == 1
    sink.close()


def test_a_line_torn_by_a_kill_does_not_swallow_the_next(tmp_path):
    write(tmp_path, 1, train(1))
    with open(attempt_file(tmp_path, 1), "a") as file:
        file.write('{"kind":"train","st')
    write(tmp_path, 1, train(3))
    curve = read(tmp_path)
    assert ([row["step"] for row in curve.train], curve.torn) == ([1, 3], 1)


def refusing(*answers):
    """os.write of a disk that is full: so many bytes of a line fit (None: none, and it says so), then all."""
    left, real = list(answers), os.write

    def write(file, data):
        if not left:
            return real(file, data)
        if (fits := left.pop(0)) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[:fits])
    return write


def test_what_a_full_disk_does_not_take_is_written_when_there_is_room(tmp_path, monkeypatch):
    sink = JsonLines(tmp_path)
    monkeypatch.setattr(os, "write", refusing(None, 10, None, None))
    for step in (1, 2, 3, 4, 5):
        sink.write(train(step))
    sink.close()
    curve = read(tmp_path)
    assert ([row["step"] for row in curve.train], curve.torn) == ([1, 2, 3, 4, 5], 1)


def test_a_disk_that_stays_full_is_told_at_the_end(tmp_path, monkeypatch):
    sink = JsonLines(tmp_path)
    monkeypatch.setattr(os, "write", refusing(None, None))
    sink.write(train(1))
    with pytest.raises(OSError, match="No space left"):
        sink.close()


def test_a_disk_that_fails_otherwise_loses_that_record_and_says_so(tmp_path, monkeypatch):
    def broken(file, data):
        raise OSError(errno.EIO, "Input/output error")
    sink = JsonLines(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", broken)
        with pytest.raises(OSError, match="Input/output"):
            sink.write(train(1))
    sink.write(train(2))
    sink.close()
    assert [row["step"] for row in read(tmp_path).train] == [2]


def test_of_a_step_done_twice_the_last_attempt_counts(tmp_path):
    write(tmp_path, 1, train(10, loss=1.0), train(20, loss=2.0), train(30, loss=3.0))
    write(tmp_path, 2, train(20, loss=2.5))
    curve = read(tmp_path)
    assert [(row["step"], row["attempt"], row["loss"]) for row in curve.train] == [(10, 1, 1.0), (20, 2, 2.5), (30, 1, 3.0)]
    assert curve.replaced == 1


def test_attempts_are_ordered_by_number(tmp_path):
    write(tmp_path, 10000, train(1, loss=2.0))
    write(tmp_path, 9999, train(1, loss=1.0))
    assert read(tmp_path).train[0]["loss"] == 2.0


def test_what_is_not_finite_comes_back(tmp_path):
    write(tmp_path, 1, train(1, loss=math.nan, norm=-math.inf))
    row = read(tmp_path).train[0]
    assert math.isnan(row["loss"]) and row["norm"] == -math.inf and "nonfinite" not in row


def test_evaluations_and_notes_are_kept_apart(tmp_path):
    write(tmp_path, 1, train(10), train(10, loss=1.0) | {"kind": "evaluate"}, train(10, text="hm") | {"kind": "note"})
    curve = read(tmp_path)
    assert (len(curve.train), curve.evaluate[0]["loss"], curve.notes[0]["text"]) == (1, 1.0, "hm")


NO_RECORDS = ["[1]", "7", "{}", '{"kind":"train"}', '{"kind":1,"step":1}', '{"kind":"train","step":"x"}', "\x00\x00", "[" * 100_000,
              '{"kind":"train","step":1,"nonfinite":[1]}']


@pytest.mark.parametrize("line", NO_RECORDS, ids=range(len(NO_RECORDS)))
def test_a_line_that_is_no_record_is_counted(tmp_path, line):
    write(tmp_path, 1, train(1))
    with open(attempt_file(tmp_path, 1), "a") as file:
        file.write(line + "\n")
    assert (len(read(tmp_path).train), read(tmp_path).torn) == (1, 1)


def test_a_run_without_metrics_is_an_empty_curve(tmp_path):
    assert read(tmp_path).train == []
