from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mltrain.errors import MissingInput, UsageError
from mltrain.runs.layout import find_run, list_runs, log_file, name_of, new_run
from mltrain.runs.ledger import Ledger

OLD, NEW, OTHER = "hello-20260101-120000-aaaa", "hello-20260102-120000-bbbb", "hello-world-20260103-120000-cccc"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in (OLD, NEW, OTHER, "no-run", "x-20260101-120000-zzzz"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_an_id_is_name_time_and_four_digits(tmp_path: Path) -> None:
    run = new_run(tmp_path / "runs", "gpt/tiny")
    assert name_of(run) == "gpt-tiny" and len(run.name) == len("gpt-tiny-20260101-120000-aaaa")


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        run = new_run(tmp_path / "a" / "runs", "x")
        Ledger(run / "ledger.jsonl").append("created")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (run.parent.parent, run.parent, run, run / "ledger.jsonl")]
    assert modes == [0o750, 0o750, 0o750, 0o640]


def test_a_thousand_runs_of_one_second_are_a_thousand_folders(tmp_path: Path) -> None:
    assert len({new_run(tmp_path, "x") for _ in range(300)}) == 300


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a b", "a\nb", "x" * 200, "../x", "ü"])
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a run"):
        new_run(tmp_path, name)


@pytest.mark.parametrize(("part", "found"), [
    ("hello", NEW), (OLD, OLD), ("aaaa", OLD), ("hello-world", OTHER), ("hello/world", OTHER), ("world", OTHER), ("20260102", NEW)])
def test_a_run_is_found_by_name_id_or_part(runs: Path, part: str, found: str) -> None:
    assert find_run(runs, part).name == found


def test_of_two_runs_of_one_second_the_later_is_the_newest(tmp_path: Path) -> None:
    for tail in ("ffff", "0000"):
        (run := tmp_path / f"x-20260101-120000-{tail}").mkdir()
        Ledger(run / "ledger.jsonl").append("created")
    assert [run.name[-4:] for run in list_runs(tmp_path)] == ["ffff", "0000"]


def test_several_matches_name_the_candidates(runs: Path) -> None:
    with pytest.raises(UsageError, match=f"fits 3 runs: {OLD} {NEW} {OTHER}"):
        find_run(runs, "hel")


def test_no_match_names_the_nearest(runs: Path) -> None:
    with pytest.raises(MissingInput, match="did you mean hello"):
        find_run(runs, "helo")


def test_no_runs_at_all(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="holds no runs"):
        find_run(tmp_path, "x")


def test_a_path_to_a_run_is_that_run(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    Ledger(tmp_path / "mine" / "ledger.jsonl").append("created")
    assert find_run(Path("runs"), str(tmp_path / "mine")) == tmp_path / "mine"


def test_where_a_ranks_log_is() -> None:
    assert log_file(Path("RUN"), 3, 12) == Path("RUN/attempts/0003/rank-12.log")
