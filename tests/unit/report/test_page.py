"""The page: whole, harmless, and its axes at round numbers."""
from __future__ import annotations

import re

import pytest
from run_folders import evaluate, make, train

from mltrain.cli.main import main
from mltrain.report.axis import duration, labels, log_ticks, short, ticks, unit
from mltrain.report.page import page
from mltrain.report.read import report

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'


def test_the_page_is_one_file_that_asks_for_nothing(runs):
    text = page(report([make(runs)]))
    assert "default-src &#x27;none&#x27;" in text
    assert re.findall(r"<script|<link|<img|<iframe|@import|url\(|\bsrc=|\bhref=|https?://", text) == []


def test_each_curve_has_a_chart(runs):
    text = page(report([make(runs)]))
    titles = re.findall(r"<figcaption><b>([^<]+)</b>", text)
    assert titles == ["Loss", "Accuracy", "Learning rate", "Gradient norm", "Throughput", "Step time", "Memory"]
    assert text.count("<svg") == len(titles)


def test_steps_made_again_are_marked_in_each_chart(runs):
    assert page(report([make(runs)])).count("<title>steps 8 to 10 were made again</title>") == 7


def test_markup_in_a_run_is_text(runs):
    run = make(runs, extra={HOSTILE: HOSTILE}, records={1: [train(1), evaluate(1, loss=1.0), evaluate(1, **{HOSTILE: 1.0}),
                                                            {"kind": "note", "step": 1, "time": 1.0, "text": HOSTILE}]})
    (run / "provenance.json").write_text('{"command": ["<script>alert(1)</script>"], "packages": ["<script>"], "code": {"commit": "<b>"}}')
    text = page(report([run, make(runs)])) + page(report([run]))
    assert "<script" not in text and "<img" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_secrets_of_known_form_are_masked(runs):
    text = page(report([make(runs, extra={"x": "hf_" + "a1B2" * 6, "url": "s3://me:password@host/x"})]))
    assert "a1B2a1B2" not in text and "me:password" not in text


def test_the_page_lands_beside_the_run(runs, capsys):
    run = make(runs)
    assert main(["report", "small", f"runs={runs}"]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def test_several_runs_share_a_page_and_the_same_run_twice_is_one(runs, tmp_path):
    make(runs, "one"), make(runs, "two")
    out = tmp_path / "both.html"
    assert main(["report", "one", "two", "one", f"runs={runs}", "--out", str(out)]) == 0
    assert "<h1>2 runs</h1>" in out.read_text()


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (["nothing"], 66, "no run 'nothing'"), ([], 64, "needs a run"), (["small", "--out", "."], 64, "is a folder"),
    (["small", "--out", "no/such/x.html"], 64, "there is no folder no/such"), (["small", "--json", "--out", "x"], 64, "one of them")])
def test_what_cannot_be_reported_says_why(runs, capsys, arguments, code, said):
    make(runs)
    assert main(["report", f"runs={runs}", *arguments]) == code
    assert said in capsys.readouterr().err


def test_numbers_get_units_that_fit():
    assert [short(0.0421, "seconds"), short(2.5 * 2**30, "bytes"), short(10_722.5, "count"), short(3e-4, "small"), short(1.5e-7)] == [
        "42.1 ms", "2.5 GiB", "10.7k", "3 × 10⁻⁴", "1.5 × 10⁻⁷"]
    assert [duration(0.2), duration(75), duration(7_500), duration(400_000)] == ["200 ms", "1 min 15 s", "2 h 05 min", "4.6 days"]
    assert unit("small", 0.5) == (1.0, "")


def test_ticks_are_round():
    assert ticks(0, 23) == [0, 5, 10, 15, 20]
    assert ticks(0.31, 0.39, 4) == [0.32, 0.34, 0.36, 0.38]
    assert labels([0.0, 2.5, 5.0]) == ["0.0", "2.5", "5.0"]
    assert log_ticks(0.05, 60) == [0.1, 1.0, 10.0]


def test_the_phases_of_a_step_stand_on_each_other(runs):
    record = train(1, step_seconds=0.1, data_seconds=0.01, compute_seconds=0.05, collective_seconds=0.02, optimizer_seconds=0.01)
    text = page(report([make(runs, records={1: [record, {**record, "step": 2}]})]))
    said = ("data wait 10 ms", "compute 50 ms", "collective 20 ms", "optimizer 10 ms", "rest 10 ms")
    assert [f"step 1  {phase}" in text for phase in said] == [True] * 5
