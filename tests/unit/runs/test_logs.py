from __future__ import annotations

from pathlib import Path

import pytest

from mltrain.errors import MissingInput
from mltrain.runs.layout import log_file
from mltrain.runs.ledger import Ledger
from mltrain.runs.logs import errors, follow, text


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for attempt in (1, 2):
        for rank in (0, 1):
            path = log_file(tmp_path, attempt, rank)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"line of {attempt}/{rank}\nTraceback (most recent call last):\n  boom\nValueError: x\n")
    return tmp_path


def test_rank_0_of_the_newest_attempt_is_the_default(run: Path) -> None:
    assert next(iter(text(run))) == "line of 2/0\n"


def test_all_ranks_carry_their_number(run: Path) -> None:
    assert [line for line in text(run, 1, None) if "line" in line] == ["[rank 0] line of 1/0\n", "[rank 1] line of 1/1\n"]


@pytest.mark.parametrize(("attempt", "rank", "message"), [(3, 0, "no logs of attempt 3\n  it has 1, 2"),
                                                        (1, 5, "has no rank 5\n  it has 0, 1")])
def test_what_is_not_there_is_named(run: Path, attempt: int, rank: int, message: str) -> None:
    with pytest.raises(MissingInput, match=message):
        list(text(run, attempt, rank))


def test_following_a_run_that_has_ended_ends(run: Path) -> None:
    assert "".join(follow(run, 1)) == log_file(run, 2, 1).read_text()


def test_errors_are_the_cause_and_the_culprits_traceback(run: Path) -> None:
    cause = {"rank": 1, "pid": 5, "code": 1, "step": 17, "type": "ValueError", "message": "x", "where": "a.py:3"}
    Ledger(run / "ledger.jsonl").append("attempt ended", attempt=1, reason="restarting in 0.0 s", cause=cause)
    assert list(errors(run)) == ["attempt 1: rank 1 (pid 5) exited with 1: ValueError x (a.py:3) at step 17; restarting in 0.0 s\n",
                                 "  Traceback (most recent call last):\n", "    boom\n", "  ValueError: x\n"]
