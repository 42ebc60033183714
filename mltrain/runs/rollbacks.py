"""What workers of a run gave up, from its ledger. A run's weights follow from its recipe and these rows, so every resume reads them.

A row "rolled back" of a worker:  step (checkpoints above it are off the branch), why ("numerics" or "corruption"), at (the step where
it showed), text, and
    numerics      skipped: ranges of positions in the stream of samples that are left out from now on
    corruption    ranks: whose state differed from their replicas'; certain: a majority said so; digests: else [[rank, shard, digest]];
                  shards: how many there were
A row "corruption traced" follows when the steps were made again: ranks: of those, the ones that had been wrong at that step.
Rows of `mltrain resume --from` have a step alone.
"""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mltrain.runs.ledger import ROLLED_BACK, Row, read

NUMERICS, CORRUPTION, TRACED = "numerics", "corruption", "corruption traced"


def rollbacks(path: Path) -> list[Row]:
    """The rows that workers wrote, oldest first."""
    return [row for row in read(path) if row["event"] == TRACED or (row["event"] == ROLLED_BACK and "why" in row)]


def skipped(rows: Iterable[Row]) -> list[list[int]]:
    """Ranges [begin, end) of positions that are left out of the stream of samples."""
    return [[int(begin), int(end)] for row in rows for begin, end in row.get("skipped", ())]


def made(rows: Iterable[Row]) -> int:
    """How often the numbers made the run go back."""
    return len({(row["at"], row["attempt"]) for row in rows if row.get("why") == NUMERICS})


def blamed(rows: Iterable[Row]) -> set[int]:
    """Ranks whose state was once found wrong; of two replicas both, unless the replay told them apart."""
    found: list[set[int]] = []
    for row in rows:
        if row["event"] == TRACED and found:
            found[-1] = {*row["ranks"]}
        elif row.get("why") == CORRUPTION:
            found.append({*row["ranks"]})
    return set().union(*found)


def untraced(rows: Iterable[Row]) -> Row | None:
    """The newest corruption, if it is not known which of its ranks were wrong, and its step has not been made again."""
    last = next((row for row in reversed([*rows]) if row["event"] == TRACED or row.get("why") == CORRUPTION), None)
    return last if last and last.get("digests") else None
