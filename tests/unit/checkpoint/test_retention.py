"""What may be deleted, and that deleting stops at nothing but what is held."""
from __future__ import annotations

import pytest
import torch
from checkpoint_states import save_cut
from hypothesis import given
from hypothesis import strategies as st

from mltrain.checkpoint.retention import expendable, off_branch, prune
from mltrain.checkpoint.storage import LocalStorage

ALL = [(10, 1), (20, 1), (30, 1), (40, 1)]


@pytest.mark.parametrize("keep, held, gone", [
    (2, [], [(10, 1), (20, 1)]), (1, [], [(10, 1), (20, 1), (30, 1)]), (9, [], []), (0, [], []), (1, [(20, 1)], [(10, 1), (30, 1)]),
])
def test_the_newest_stay_and_what_is_held(keep, held, gone):
    assert expendable(ALL, ALL, [], keep, (40, 1), held) == gone


def test_a_damaged_step_does_not_count_as_kept():
    assert expendable(ALL, [(10, 1), (20, 1), (40, 1)], [], 2, (40, 1)) == [(10, 1)]


def test_two_attempts_at_a_step_count_once():
    committed = [(10, 1), (20, 1), (20, 2), (30, 2)]
    assert expendable(committed, committed, [], 2, (30, 2)) == [(10, 1)]


def test_rolled_back_steps_are_not_counted():
    committed = [(10, 1), (20, 1), (30, 1), (20, 2)]
    assert expendable(committed, committed, [], 2, (20, 2), retired=[(10, 1)]) == []


def test_leftovers_of_a_dead_attempt_go_once_something_newer_is_there():
    assert expendable([(40, 2)], [(40, 2)], [(20, 1), (50, 1), (30, 3)], 2, (40, 2)) == [(20, 1)]


def test_a_rollback_retires_what_is_above_it_of_attempts_up_to_it():
    assert [key for key in [(10, 1), (20, 1), (20, 2), (20, 3)] if off_branch(key, [(10, 2)])] == [(20, 1), (20, 2)]


keys = st.tuples(st.integers(1, 9), st.integers(1, 3))


@given(st.sets(keys), st.sets(keys), st.integers(0, 4), keys, st.sets(keys), st.lists(keys, max_size=2))
def test_the_newest_and_the_held_are_never_deleted(good, damaged, keep, newest, held, retired):
    committed = {*good, *damaged, newest}
    gone = expendable(committed, {*good, newest}, [], keep, newest, held, retired)
    assert newest not in gone and not held & {*gone} and (keep or not gone)


def test_pruning_leaves_no_empty_folder_and_touches_nothing_foreign(tmp_path):
    for step in (1, 2):
        save_cut(tmp_path, {"a": torch.ones(3)}, [], step=step)
    (tmp_path / "step-00000001" / "notes.txt").write_text("mine")
    (tmp_path / "step-00000000").mkdir()
    assert prune(LocalStorage(str(tmp_path)), 1, (2, 1), [], []) == [(1, 1)]
    assert [file.name for file in (tmp_path / "step-00000001").iterdir()] == ["notes.txt"]
