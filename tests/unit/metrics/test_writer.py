"""The queue between loop and sinks: order, failing sinks, sinks that hang."""
from __future__ import annotations

import threading
import time

import pytest

from mltrain.errors import StorageError
from mltrain.metrics.writer import FAILURES, Metrics


class Kept:
    """A sink that remembers."""

    def __init__(self):
        self.records, self.closed = [], 0

    def write(self, record):
        self.records.append(record)

    def close(self):
        self.closed += 1

    @property
    def notes(self):
        return [record["text"] for record in self.records if record["kind"] == "note"]


class Failing(Kept):
    """Raises for the steps given, or for all."""

    def __init__(self, steps=None):
        super().__init__()
        self.steps = steps

    def write(self, record):
        if self.steps is None or record["step"] in self.steps:
            raise OSError("no space left")
        super().write(record)


def train(step):
    return {"kind": "train", "step": step, "time": 0.0, "loss": 1.0}


def fill(metrics, count):
    for step in range(1, count + 1):
        metrics.put(train(step))
    metrics.close()


def test_every_sink_gets_every_record_in_order():
    first, second = Kept(), Kept()
    fill(Metrics({"first": first, "second": second}), 500)
    assert [record["step"] for record in first.records] == list(range(1, 501))
    assert second.records == first.records


def test_close_closes_each_sink_once():
    sink = Kept()
    metrics = Metrics({"sink": sink})
    metrics.close()
    metrics.close()
    assert sink.closed == 1


def test_train_records_are_due_first_every_and_last():
    metrics = Metrics(every=10, steps=25)
    assert [step for step in range(1, 26) if metrics.due(step)] == [1, 10, 20, 25]
    metrics.close()


def test_failing_sink_is_switched_off_with_one_note_and_the_others_go_on():
    good = Kept()
    fill(Metrics({"bad": Failing(), "good": good}), 20)
    assert [record["step"] for record in good.records if record["kind"] == "train"] == list(range(1, 21))
    assert good.notes == ["metrics: bad is switched off after 3 failures in a row, dropped 3: OSError: no space left",
                          "metrics: bad dropped 20 records"]


def test_a_single_failure_costs_one_record_and_no_place():
    sink = Failing(steps={2, 4, 6, 8})
    metrics = Metrics({"sink": sink})
    fill(metrics, 9)
    assert [record["step"] for record in sink.records if record["kind"] == "train"] == [1, 3, 5, 7, 9]
    assert metrics.dropped() == {"sink": 4}


def test_without_a_working_sink_the_note_goes_to_stderr(capfd):
    fill(Metrics({"bad": Failing()}), FAILURES)
    assert "bad is switched off" in capfd.readouterr().err


def test_a_sink_that_hangs_neither_delays_put_nor_keeps_close_from_returning(capfd):
    release = threading.Event()
    sink = Kept()
    sink.write = lambda record: release.wait(30)
    metrics = Metrics({"sink": sink})
    began = time.monotonic()
    for step in range(1000):
        metrics.put(train(step))
    metrics.close(timeout_seconds=0.1)
    assert time.monotonic() - began < 5
    assert "records were not written within 0.1 s" in capfd.readouterr().err
    release.set()


def test_what_a_full_queue_cannot_hold_is_counted(monkeypatch):
    monkeypatch.setattr("mltrain.metrics.writer.WAITING", 5)
    entered, release = threading.Event(), threading.Event()
    sink = Kept()
    sink.write = lambda record: (entered.set(), release.wait(30))
    metrics = Metrics({"sink": sink})
    metrics.put(train(1))
    assert entered.wait(30)
    for step in range(2, 12):
        metrics.put(train(step))
    assert metrics.dropped() == {"queue": 5}
    release.set()
    metrics.close()


def test_no_sink_sees_a_secret():
    sink = Kept()
    metrics = Metrics({"sink": sink})
    metrics.note("data from https://me:password@host/x", step=1)
    metrics.close()
    assert sink.notes == ["data from https://***@host/x"]


def test_the_record_of_truth_is_kept_without_being_asked_for(tmp_path):
    fill(Metrics({}, directory=str(tmp_path), attempt=2), 3)
    assert len((tmp_path / "metrics" / "attempt-0002.jsonl").read_text().splitlines()) == 3


def test_a_sink_named_jsonl_takes_its_place(tmp_path):
    fill(Metrics({"jsonl": Kept()}, directory=str(tmp_path)), 3)
    assert not (tmp_path / "metrics").exists()


def test_metrics_that_cannot_be_written_are_an_error_before_the_first_step(tmp_path):
    (tmp_path / "metrics").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="cannot write metrics"):
        Metrics({}, directory=str(tmp_path))
