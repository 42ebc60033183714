from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrain.runs.goodput import APART, CLASSES, LOST, WAITING, goodput, lasted, seconds, summary

Row = dict[str, Any]


def started(time: float) -> Row:
    return {"event": "attempt started", "time": time}


def ended(time: float, first: int, step: int, parts: dict[str, float], outcome: str = "restarted", **more: float) -> Row:
    return {"event": "attempt ended", "time": time, "outcome": outcome, "first_step": first, "step": step, "parts": parts, **more}


def test_an_undisturbed_run_loses_only_its_start() -> None:
    spent = seconds([started(0), ended(100, 0, 91, {"starting": 6, "first_step": 4, "steps": 90}, "done")])
    assert spent == {"kept": 90, "starting": 6, "first_step": 4} and goodput(spent) == 0.9


def test_steps_made_twice_count_once() -> None:
    rows = [started(0), ended(50, 0, 50, {"steps": 50.0}), started(50), ended(100, 25, 75, {"steps": 50.0}, "done")]
    spent = seconds(rows)
    assert spent == {"kept": 75, "redone": 25} and goodput(spent) == 0.75


def test_data_of_steps_made_twice_is_lost_with_them() -> None:
    rows = [started(0), ended(60, 0, 10, {"steps": 40.0, "data": 20.0}), started(60), ended(70, 5, 10, {"steps": 10.0}, "done")]
    assert seconds(rows) == {"kept": 30, "data": 10, "redone": 30}


def test_what_is_between_attempts_has_its_names() -> None:
    """A failure at 40 is dealt with by 41; 5 s of backoff; nodes are missing from 50 to 70; the workers are back at 75."""
    rows = [started(0), ended(41, 0, 40, {"steps": 40.0, "restart": 1.0}, wait=5.0), {"event": WAITING, "time": 50.0}, started(70),
            ended(115, 40, 80, {"starting": 5.0, "steps": 40.0}, "done")]
    assert seconds(rows) == {"kept": 80, "restart": 1 + 4 + 5, "backoff": 5, "nodes": 20}


def test_a_pause_is_apart() -> None:
    spent = seconds([started(0), ended(40, 0, 40, {"steps": 40.0}, "stopped"), started(5000), ended(5040, 40, 80, {"steps": 40.0}, "done")])
    assert spent == {"kept": 80, "idle": 4960} and goodput(spent) == 1.0


def test_the_queue_is_apart() -> None:
    spent = seconds([{"event": "created", "time": 0}, started(3600), ended(3700, 0, 10, {"steps": 100.0}, "done"),
                     {"event": "done", "time": 3701}])
    assert spent == {"kept": 100, "queued": 3600, "ending": 1} and goodput(spent) == round(100 / 101, 4)


def test_an_attempt_that_its_agent_did_not_outlive_has_what_status_knew() -> None:
    lost = {"event": LOST, "time": 52.0, "until": 50.0, "first_step": 0, "step": 50, "parts": {"steps": 50.0}}
    rows = [started(0), lost, started(53), ended(90, 20, 50, {"starting": 7.0, "steps": 30.0}, "done")]
    assert seconds(rows) == {"kept": 50, "redone": 30, "restart": 3 + 7}
    later = [started(0), lost, started(1000), ended(1030, 20, 50, {"steps": 30.0}, "done")]
    assert seconds(later) == {"kept": 50, "redone": 30, "idle": 950}


def test_an_attempt_of_which_nothing_is_known_is_unknown() -> None:
    assert seconds([started(0), started(50), ended(150, 0, 100, {"steps": 100.0}, "done")]) == {"kept": 100, "unknown": 50}


def test_the_live_attempt_counts_so_far() -> None:
    live = {"until": 50.0, "time": 50.0, "first_step": 0, "step": 10, "parts": {"steps": 25.0, "starting": 25.0}}
    assert goodput(seconds([started(0)], live)) == 0.5


def test_rows_without_parts_are_read_as_they_were_meant() -> None:
    row = {"event": "attempt ended", "time": 100, "outcome": "done", "first_step": 0, "step": 90, "training_seconds": 90.0}
    assert seconds([started(0), row]) == {"kept": 90, "starting": 10}


def test_for_people_in_a_line() -> None:
    spent = {"kept": 600.0, "starting": 41.2, "redone": 80.0, "saving": 8.44, "data": 0.1, "idle": 7300.0}
    assert summary(spent) == ("goodput 82.2 % of 12m10s; steps lost to a failure 1m20s, starting up 41s, saving 8.4s, "
                              "(stopped until resumed: 2h01m)")
    assert [lasted(seconds) for seconds in (0.04, 9.96, 59.6, 3599.7, 90_000)] == ["0.0s", "10.0s", "1m00s", "1h00m", "25h00m"]


def test_without_steps_there_is_no_number() -> None:
    assert goodput(seconds([])) is None
    assert goodput(seconds([started(0), ended(10, -1, -1, {"starting": 10.0})])) is None


_PARTS = st.dictionaries(st.sampled_from(["starting", "first_step", "steps", "data", "evaluation", "saving", "callbacks", "lost",
                                          "detection", "restart", "ending", "a part of a later version"]), st.floats(0, 1000))


@st.composite
def ledgers(draw: st.DrawFn) -> list[Row]:
    """Attempts of any kind in any order: ended in every way, lost, forgotten, with parts that add up to less or more than their time."""
    time, rows = 0.0, [{"event": "created", "time": 0.0}]
    for _ in range(draw(st.integers(0, 6))):
        time += draw(st.floats(0, 500))
        if draw(st.booleans()):
            rows.append({"event": WAITING, "time": time})
            time += draw(st.floats(0, 500))
        rows.append(started(time))
        time += draw(st.floats(0, 1000))
        first = draw(st.integers(-1, 50))
        end = ended(time, first, first + draw(st.integers(0, 50)), draw(_PARTS), wait=draw(st.floats(0, 100)),
                    outcome=draw(st.sampled_from(["restarted", "failed", "stopped", "done"])))
        rows += draw(st.sampled_from([[end], [end], [{**end, "event": LOST, "until": time - 0.001}], []]))
    if draw(st.booleans()):
        rows.append({"event": draw(st.sampled_from(["done", "failed", "stopped", "cancelled"])), "time": time + draw(st.floats(0, 100))})
    return rows


@given(ledgers(), st.none() | st.tuples(st.floats(0, 100), _PARTS))
def test_every_second_is_of_one_class(rows: list[Row], live: tuple[float, dict[str, float]] | None) -> None:
    last, row = rows[-1], None
    if live is not None:
        row = {"until": last["time"] + live[0], "time": last["time"] + live[0], "first_step": 3, "step": 9, "parts": live[1]}
    spent = seconds(rows, row)
    told = ("attempt started", "attempt ended", "done", "failed", "stopped", "cancelled")
    ends = [each["time"] for each in rows if each["event"] in told]
    ends += [each["until"] for each in rows if each["event"] == LOST]
    names = [each["event"] for each in rows if each["event"] in ("attempt started", "attempt ended", LOST)]
    if row and names[-1:] == ["attempt started"]:
        ends.append(row["until"])
    assert set(spent) <= set(CLASSES) and all(amount > 0 for amount in spent.values())
    assert sum(spent.values()) == pytest.approx(max(ends, default=0.0), abs=0.02)
    part = goodput(spent)
    assert part is None or 0 <= part <= 1
    assert set(APART) < set(CLASSES)
