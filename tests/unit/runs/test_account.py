from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrain.runs.account import account, running, with_detection
from mltrain.runs.pulse import PHASES, Page, Pulse, Spent

# began to train at 10, first step done at 14, newest beat at 50: 20 s of compute, 6 of data, 10 of saving; at the newest step 18 and 5
WORKED = Spent(10.0, 14.0, 50.0, "compute", {"compute": 20.0, "data": 6.0, "save": 10.0}, {"compute": 18.0, "data": 5.0, "save": 10.0})


def test_an_attempt_that_ends_in_order() -> None:
    parts = account(WORKED, 2.0, 51.0, 52.0, failed=False).parts
    assert parts == {"starting": 8, "first_step": 4, "steps": 20, "data": 6, "saving": 10, "ending": 2}


def test_what_was_under_way_is_lost() -> None:
    parts = account(WORKED, 2.0, 51.0, 52.0, failed=True).parts
    assert parts == {"starting": 8, "first_step": 4, "steps": 18, "data": 5, "saving": 10, "lost": 2 + 1 + 1, "restart": 1}


def test_silence_before_a_hang_was_seen_is_detection() -> None:
    parts = with_detection(account(WORKED, 2.0, 55.0, 56.0, failed=True))
    assert (parts["detection"], parts["lost"]) == (5, 2 + 1)


def test_a_first_rank_that_was_heard_since_had_waited_in_its_steps() -> None:
    parts = with_detection(account(WORKED, 2.0, 50.1, 50.1, failed=True), silent=5.0)
    assert parts["detection"] == 5 and sum(parts.values()) == pytest.approx(48.1) and "lost" not in parts
    assert parts["steps"] == pytest.approx(18 + 2 + 1 + 0.1 - 5)


def test_one_that_never_trained_only_started() -> None:
    assert account(Spent(), 2.0, 5.0, 6.0, failed=True).parts == {"starting": 3, "restart": 1}


def test_one_that_hangs_while_it_loads() -> None:
    parts = with_detection(account(Spent(last=4.0, phase="load"), 2.0, 300.0, 301.0, failed=True))
    assert parts == {"starting": 2, "detection": 296, "restart": 1}


def test_one_that_hangs_while_it_saves() -> None:
    parts = with_detection(account(replace(WORKED, phase="save"), 2.0, 350.0, 350.0, failed=True))
    assert (parts["detection"], parts["saving"]) == (300, 10)


def test_one_that_goes_on_counts_to_the_phase_it_is_in() -> None:
    assert running(WORKED, 2.0, 53.0)["steps"] == 23
    assert running(Spent(10.0, 0.0, 11.0, "compute"), 2.0, 53.0) == {"starting": 8, "first_step": 43}
    assert running(Spent(), 2.0, 53.0) == {"starting": 51}


def test_a_culprit_may_note_its_failure_before_the_first_rank_beats_again() -> None:
    assert sum(account(WORKED, 2.0, 49.0, 50.0, failed=True).parts.values()) == pytest.approx(48)


_SECONDS = st.floats(0, 1000)
_PHASES = st.lists(st.tuples(_SECONDS, st.floats(0, 1)), min_size=len(PHASES), max_size=len(PHASES))


@given(_SECONDS, _SECONDS, _PHASES, _SECONDS, _SECONDS, st.sampled_from(PHASES), st.booleans())
def test_the_parts_add_up(begun: float, first: float, phases: list[tuple[float, float]], left: float, ended: float, phase: str,
                          failed: bool) -> None:
    seconds = {name: amount for name, (amount, _) in zip(PHASES, phases, strict=True)}
    stepped = {name: amount * done for name, (amount, done) in zip(PHASES, phases, strict=True)}
    last = 5 + begun + first + sum(seconds.values())
    made = account(Spent(5 + begun, 5 + begun + first, last, phase, seconds, stepped), 5.0, last + left, last + left + ended, failed)
    for parts in (made.parts, with_detection(made)):
        assert sum(parts.values()) == pytest.approx(last + left + ended - 5.0, abs=0.01) and min(parts.values(), default=1) > 0


def test_the_page_keeps_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of our own: a first step of 3 s, then per step 1 s of data, 2 of compute; a save of 5 s under way at the end."""
    page, now = Page(), [100.0]
    monkeypatch.setenv("MLTRAIN_PULSE_FD", str(page.fd))
    monkeypatch.setattr("mltrain.runs.pulse.time.monotonic", lambda: now[0])
    pulse = Pulse.from_environment()
    pulse.beat("load", 7)
    for step in range(7, 10):
        now[0] += 1.0
        pulse.beat("compute", step)
        now[0] += 2.0 if step > 7 else 3.0
        pulse.beat("data", step + 1)
    pulse.beat("save", 10)
    now[0] += 5.0
    pulse.phase("callback")
    spent = page.spent()
    assert (spent.begun, spent.first, spent.last, spent.phase) == (101.0, 104.0, now[0], "callback")
    seconds = {name: amount for name, amount in spent.seconds.items() if amount}
    assert seconds == {"data": 2.0, "compute": 4.0, "save": 5.0} and sum(spent.stepped.values()) == 6.0
    assert sum(seconds.values()) == spent.last - spent.first
    page.close()
