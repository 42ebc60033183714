"""What a run gave up, read off its ledger."""
from __future__ import annotations

from pathlib import Path

from mltrain.runs.ledger import Ledger
from mltrain.runs.rollbacks import blamed, made, rollbacks, skipped, untraced


def test_what_workers_wrote_counts_and_what_was_done_by_hand_does_not(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("rolled back", step=4, attempt=1)
    ledger.append("rolled back", step=9, attempt=2, at=10, why="numerics", skipped=[[36, 40]])
    ledger.append("saved", step=12, attempt=3)
    ledger.append("rolled back", step=12, attempt=3, at=15, why="corruption", ranks=[2], certain=True, digests=[])
    rows = rollbacks(ledger.path)
    assert skipped(rows) == [[36, 40]] and made(rows) == 1 and blamed(rows) == {2} and untraced(rows) is None


def corruption(*ranks: int) -> dict[str, object]:
    return {"event": "rolled back", "why": "corruption", "at": 8, "ranks": [*ranks], "digests": [[rank, 0, rank] for rank in ranks]}


def test_of_two_replicas_both_are_blamed_until_the_replay_tells_them_apart() -> None:
    traced = {"event": "corruption traced", "step": 8, "ranks": [1]}
    assert blamed([corruption(0, 1)]) == {0, 1} and untraced([corruption(0, 1)]) == corruption(0, 1)
    assert blamed([corruption(0, 1), traced]) == {1} and untraced([corruption(0, 1), traced]) is None
    assert blamed([corruption(0, 1), traced, corruption(2, 3)]) == {1, 2, 3}
