"""A slow rank in a real run is named, and nobody before it was slow."""
from __future__ import annotations

from pathlib import Path

import pytest
import small_project
from small_project import mltrain

from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file

SLOW = '''
from mltrain import Callback
from mltrain.testing.faults import slow_from


class Slow(Callback):
    """Rank 1 takes its time from step 220 to 300."""

    def __init__(self):
        self.at = slow_from(rank=1, step=220, seconds=0.1, until=300)

    def step(self, progress, result):
        self.at(progress.step)
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_project.make(tmp_path_factory.mktemp("stragglers"))
    (folder / "slow.py").write_text(SLOW)
    recipe = (folder / "recipes" / "small.yaml").read_text()
    (folder / "recipes" / "slow.yaml").write_text(recipe.rstrip().removesuffix("}") + ", slow: {_target_: slow.Slow}}\n")
    return folder


def test_a_slow_rank_is_named_and_nobody_in_the_calm_before(project: Path) -> None:
    """220 calm steps with 5 s to make up its mind in, then a rank that sleeps. Its machine is busy with other tests as it likes."""
    printed = mltrain(project, "launch", "recipe=slow", "name=slow", "steps=310", "eval_every=0", "checkpoint.every=100",
                      "launcher.straggler_seconds=5", limit=200)
    run, = (project / "runs").glob("slow-2*")
    rows = ledger.read(ledger_file(run))
    named = [row for row in rows if row["event"] == "straggler"]
    assert [(row["rank"], row["phase"], row["excluded"]) for row in named] == [(1, "other", False)], named
    assert named[0]["ratio"] > 1.4 and 220 <= named[0]["step"] <= 320 and named[0]["seconds"] - named[0]["usual"] > 0.05
    assert "rank 1 on " in printed and " is slow: " in printed and "in phase other" in printed
