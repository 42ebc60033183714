"""The simulation of many nodes, with few of them."""
from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("agents", FOLDER / "agents.py")
    module = sys.modules["agents"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in ("agents", "harness"):
        sys.modules.pop(name, None)


def test_64_nodes_meet_lose_one_and_go_on(agents: ModuleType, tmp_path: Path):
    phases, came_again = agents.simulate(64, tmp_path, steady=1.0)
    joined, _, death = phases.values()
    rows = [row for row in ledger.read(ledger_file(tmp_path / "run")) if row["event"] == "attempt started"]
    if not came_again:
        assert [row["attempt"] for row in rows] == [1, 2]
        # An attempt costs a node three messages: start, stop, stopped; beats and their answers come on top.
        assert 3 * 62 <= death.messages <= 3 * 64 + 6 * 64 * (death.seconds + 1)
    assert all(row["workers"] == 64 for row in rows)
    assert joined.cpu < 20
