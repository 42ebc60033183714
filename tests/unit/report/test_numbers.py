"""What a report says of a run, as numbers."""
from __future__ import annotations

import json
import time

import pytest
from run_folders import evaluate, make, train

from mltrain.cli.main import main
from mltrain.errors import MissingInput
from mltrain.report.page import page
from mltrain.report.read import report


def test_of_a_step_made_twice_the_later_attempt_counts(runs):
    run = make(runs, records={1: [train(1, loss=9.0), train(2, loss=8.0)], 2: [train(2, loss=7.0)]})
    assert report([run]).runs[0].curves["loss"].values == [9.0, 7.0]


def test_attempts_say_which_steps_they_made(runs):
    assert [(each["first"], each["last"], each["outcome"]) for each in report([make(runs)]).runs[0].attempts] == [
        (0, 10, "restarted"), (8, 20, "done")]


def test_figures_are_those_of_all_records(runs):
    records = [train(step, step_seconds=0.1 if step < 100 else 0.3, data_seconds=0.05) for step in range(1, 101)]
    figures = report([make(runs, records={1: [*records, evaluate(50, loss=2.0), evaluate(100, loss=3.0)]})]).runs[0].figures
    assert (figures["step_seconds_median"], figures["step_seconds_p99"], figures["best_validation_loss"], figures["best_step"]) == (
        0.1, 0.3, 2.0, 50)
    assert figures["data_wait_share"] == pytest.approx(100 * 0.05 / (99 * 0.1 + 0.3), rel=1e-4)


def test_a_record_speaks_for_the_steps_since_the_one_before(runs):
    figures = report([make(runs, records={1: [train(10, tokens_per_second=100.0), train(40, tokens_per_second=200.0)]})]).runs[0].figures
    assert figures["tokens_per_second"] == 175.0


def test_a_loss_that_is_no_number_is_named_and_json_stays_strict(runs, capsys):
    make(runs, records={1: [train(1), train(2, loss=None, nonfinite={"loss": "nan"}), train(3)]})
    assert main(["report", "small", f"runs={runs}", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["curves"]["loss"]["steps"], run["curves"]["loss"]["lost"]) == ([1, 3], [2])


def test_saves_in_a_row_are_one_event_and_causes_are_in_words(runs):
    events = report([make(runs)]).runs[0].events
    assert [event["text"] for event in events if event["event"] == "saved"] == ["2 checkpoints, steps 4 to 8"]
    assert [event["text"] for event in events if event["bad"]] == ["rank 1 (pid 7) was killed by signal 9 at step 10; restarting in 0.0 s"]


def test_runs_are_compared_key_by_key(runs):
    made = [make(runs, "one", lr=0.1), make(runs, "two", lr=0.2, extra={"clip": 1})]
    assert report(made).differences == [{"key": "clip", "values": [None, 1]}, {"key": "optimizer.lr", "values": [0.1, 0.2]}]


def test_a_run_without_numbers_is_named(runs):
    run = make(runs, records={1: []})
    (run / "metrics" / "attempt-0001.jsonl").write_text("")
    with pytest.raises(MissingInput, match=f"{run.name} has no metrics yet"):
        report([make(runs), run])


def test_a_damaged_provenance_does_not_hide_the_rest(runs):
    run = make(runs)
    (run / "provenance.json").write_text("{")
    assert "Where it came from" in page(report([run]))


def test_a_hundred_thousand_steps_take_a_second_and_stay_small(runs):
    """Measured on an idle machine: 0.8 s of processor time, 115 kB."""
    run = make(runs, records={1: [train(step) for step in range(1, 100_001)]})
    began = time.process_time()
    text = page(report([run]))
    assert time.process_time() - began < 2
    assert len(text.encode()) < 300_000
