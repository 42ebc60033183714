"""A flipped bit is found, its rank is named, the steps are made again, and the run ends with the bits of one whose memory was sound."""
from __future__ import annotations

from pathlib import Path

import guarded_project
import pytest
from guarded_project import rows, state
from small_project import mltrain

COMPARE = ["recipe=guarded", "compare_every=3"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guarded_project.make(tmp_path_factory.mktemp("corrupt") / "project")


@pytest.fixture(scope="module")
def sound(project: Path) -> str:
    mltrain(project, "launch", *COMPARE, "name=sound")
    assert rows(project, "sound", "rolled back") == []
    return state(project, "sound")


def test_a_weight_of_one_of_four(project: Path, sound: str) -> None:
    """Flipped after step 10; 12 is the next comparison, 9 the last that agreed, 8 the checkpoint."""
    said = mltrain(project, "launch", *COMPARE, "name=four", "launcher.workers=4", environment={"FLIP": "weight 2 10"})
    assert state(project, "four") == sound
    (row,) = rows(project, "four", "rolled back")
    assert (row["step"], row["at"], row["why"], row["ranks"], row["certain"]) == (9, 12, "corruption", [2], True)
    assert rows(project, "four", "resumed")[0]["step"] == 8
    (ended, _) = rows(project, "four", "attempt ended")
    assert ended["cause"]["rank"] == 2 and "step 12: the state of rank 2 differs from its replicas'" in said


def test_a_reduced_gradient_of_one_of_two(project: Path, sound: str) -> None:
    """Two cannot tell which is right; the replay does."""
    mltrain(project, "launch", *COMPARE, "name=two", environment={"FLIP": "gradient 1 15"})
    assert state(project, "two") == sound
    (row,) = rows(project, "two", "rolled back")
    assert (row["step"], row["at"], row["ranks"], row["certain"]) == (12, 15, [0, 1], False)
    assert [row["ranks"] for row in rows(project, "two", "corruption traced")] == [[1]]


def test_the_same_rank_again_is_unfit(project: Path) -> None:
    said = mltrain(project, "launch", *COMPARE, "name=again", "launcher.workers=4", code=69, environment={"FLIP": "weight 2 10 0"})
    assert "the state of rank 2 differs" in said and "not for the first time" in said
    assert [row["ranks"] for row in rows(project, "again", "rolled back")] == [[2], [2]]


@pytest.mark.full
def test_uncompared_it_would_have_gone_unseen(project: Path, sound: str) -> None:
    """The control: the flip matters, and nothing else finds it."""
    mltrain(project, "launch", "recipe=guarded", "name=unseen", environment={"FLIP": "weight 1 10"})
    assert rows(project, "unseen", "rolled back") == [] and state(project, "unseen") != sound
