"""A slow rank in a real run is named, and nobody before it was slow."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest
import small_project
from hosts import PORT, events, hosts, nodes, possible
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


STEPS_OF_ITS_OWN = """
import os, time
from mltrain.runs.pulse import Pulse
pulse, slow = Pulse.from_environment(), os.environ["GROUP_RANK"] == "1"
for step in range(20 if os.environ["MLTRAIN_ATTEMPT"] == "2" else 2000):
    pulse.beat("compute", step)
    time.sleep(0.08 if slow else 0.02)
    pulse.beat("collective", step + 1)
"""


@pytest.mark.skipif(bool(possible()), reason=possible())
def test_on_request_the_node_of_a_slow_rank_is_given_up(tmp_path: Path) -> None:
    """Two hosts; the rank on the second needs four times as long. The first goes on alone."""
    (tmp_path / "steps.py").write_text(STEPS_OF_ITS_OWN)
    run = tmp_path / "run"
    with hosts(2) as there:
        for host in there:
            host.start(run, "--nodes", "2", "--min-nodes", "1", "--rendezvous", f"{there[0].address}:{PORT}", "--straggler-seconds", "2",
                       "--exclude-stragglers", "--", sys.executable, "steps.py", cwd=tmp_path)
        codes = [host.agent.wait(120) for host in there if host.agent]
        slow = events(run, "straggler")[0]
        assert slow["excluded"] and slow["phase"] == "compute" and slow["ratio"] > 2
        (excluded,) = events(run, "node excluded")
        assert excluded["node"] == slow["host"] and slow["host"] not in nodes(run) and len(nodes(run)) == 1
        assert sorted(codes) == [0, 69]
