from __future__ import annotations

from typing import Any

from mltrain.runs.goodput import Span, goodput, spans


def started(time: float) -> dict[str, Any]:
    return {"event": "attempt started", "time": time}


def ended(time: float, first: int, step: int, training: float, outcome: str = "restarted") -> dict[str, Any]:
    return {"event": "attempt ended", "time": time, "outcome": outcome, "first_step": first, "step": step, "training_seconds": training}


def test_an_undisturbed_run_loses_only_its_start() -> None:
    assert goodput(spans([started(0), ended(100, 0, 90, 90.0, "done")])) == 0.9


def test_steps_made_twice_count_once() -> None:
    rows = [started(0), ended(50, 0, 50, 50.0), started(50), ended(100, 25, 75, 50.0, "done")]
    assert goodput(spans(rows)) == 0.75


def test_the_wait_between_attempts_is_lost() -> None:
    assert goodput(spans([started(0), ended(40, 0, 40, 40.0), started(60), ended(100, 40, 80, 40.0, "done")])) == 0.8


def test_a_pause_is_not_counted() -> None:
    assert goodput(spans([started(0), ended(40, 0, 40, 40.0, "stopped"), started(5000), ended(5040, 40, 80, 40.0, "done")])) == 1.0


def test_an_attempt_without_an_end_keeps_nothing() -> None:
    assert goodput(spans([started(0), started(50), ended(150, 0, 100, 100.0, "done")])) == 1.0


def test_the_live_attempt_counts_so_far() -> None:
    assert goodput(spans([started(0)], Span(0, 50, 0, 10, 25.0))) == 0.5


def test_without_steps_there_is_no_number() -> None:
    assert goodput([]) is None
    assert goodput(spans([started(0), ended(10, -1, -1, 0.0)])) is None
