"""A damaged run: told by the one reader of each file, and mended where that can be done from what is left."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from mltrain.errors import DataError, MissingInput, TaskError
from mltrain.runs import frames
from mltrain.runs.config import read_config
from mltrain.runs.ledger import ACCEPTED, Ledger, saved_step, verify, verify_for_resume
from mltrain.runs.outcome import last_status, restored_status

CONFIG = {"tree": dict.fromkeys(["name", "runs", "seed", "steps", "task", "data", "launcher"], 0), "recipe": "r", "overrides": [],
          "directory": ".", "allowed": {}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("attempt started", attempt=1)
    for step in (4, 8):
        ledger.append("saved", step=step)
    ledger.append("done", code=0, reason="done", step=8)
    return tmp_path


def test_a_config_is_read_as_it_was_written(run: Path) -> None:
    (run / "config.json").write_text(json.dumps(CONFIG))
    assert read_config(run) == CONFIG


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps(CONFIG)[:50], json.dumps({**CONFIG, "tree": {}}), "[" * 100_000, "\0"])
def test_a_damaged_config_is_told_with_a_way_on(run: Path, text: str) -> None:
    (run / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"config.json is damaged(.|\n)*checkpoint.path="):
        read_config(run)


def test_a_folder_without_a_config_is_no_run_of_a_recipe(run: Path) -> None:
    with pytest.raises(MissingInput, match="no run of a recipe"):
        read_config(run)


@pytest.mark.parametrize("text", ["", "[]", "3", '{"state": "flying"}', '{"step": "x"}', '{"beat": "never"}', '{"ranks": [3]}', "\xff"])
def test_a_damaged_status_is_told_and_written_anew_from_the_ledger(run: Path, text: str) -> None:
    (run / "status.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match="not the status of a run"):
        last_status(run)
    restored_status(run)
    assert [last_status(run)[name] for name in ("state", "step", "attempts", "code")] == ["done", 8, 1, 0]


def test_a_run_that_was_cut_off_is_lost_when_its_status_is_restored(run: Path) -> None:
    Ledger(run / "ledger.jsonl").append("attempt started", attempt=2)
    (run / "status.json").write_text("")
    assert restored_status(run)["state"] == "lost"


def test_a_copied_run_says_where_it_is_now(run: Path) -> None:
    (run / "status.json").write_text(json.dumps({"id": "another", "directory": "/elsewhere", "state": "done"}))
    assert (last_status(run)["id"], last_status(run)["directory"]) == (run.name, str(run))


def test_a_torn_last_line_is_no_damage_for_a_resume(run: Path) -> None:
    path = run / "ledger.jsonl"
    path.write_bytes(path.read_bytes() + b'{"seq": 5, "ti')
    verify_for_resume(path)
    with pytest.raises(DataError):
        verify(path)


def test_accepted_damage_counts_no_more_what_comes_after_it_does(run: Path) -> None:
    path = run / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"step": 4', b'"step": 5'))
    with pytest.raises(DataError, match=":2: was changed"):
        verify_for_resume(path)
    Ledger(path).append(ACCEPTED, problem="line 2")
    verify_for_resume(path)
    Ledger(path).append("saved", step=12)
    path.write_bytes(path.read_bytes().replace(b'"step": 12', b'"step": 13'))
    with pytest.raises(DataError, match=":6: was changed"):
        verify_for_resume(path)


def test_the_saved_step_is_that_of_the_branch(run: Path) -> None:
    assert saved_step(run / "ledger.jsonl") == 8
    Ledger(run / "ledger.jsonl").append("rolled back", step=4, attempt=1)
    assert saved_step(run / "ledger.jsonl") == 4


def theirs() -> None:
    read_config(Path("/nowhere"))


def test_a_traceback_begins_and_ends_with_the_users_own_code() -> None:
    with pytest.raises(MissingInput) as caught:
        theirs()
    assert frames.where(caught.value).startswith(f"{__file__}:")
    assert "in theirs" in frames.text(caught.value)


def test_an_error_of_ours_without_users_code_needs_no_place() -> None:
    error = TaskError("step 3: loss nan")
    assert frames.where(error) == ""
