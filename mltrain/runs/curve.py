"""Reads the records of a run back, all attempts as one curve. The one reader of `RUN/metrics/attempt-0001.jsonl`.

After a restart the steps since the last checkpoint are done again, so two attempts hold the same step: the last attempt counts.
100,000 records take about half a second.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]      # a record, with "attempt" added


@dataclass(frozen=True, slots=True)
class Curve:
    """train, evaluate: by step, one row a step. notes: in the order written. replaced: rows whose step a later attempt did again.
    torn: lines that could not be read (a kill in the middle of a line leaves one)."""

    train: list[Row] = field(default_factory=list)
    evaluate: list[Row] = field(default_factory=list)
    notes: list[Row] = field(default_factory=list)
    replaced: int = 0
    torn: int = 0


def read(directory: str | Path) -> Curve:
    """directory: of the run. A run that has written nothing yet is an empty Curve."""
    import msgspec  # three times as fast as json; late, so that `mltrain status` does not pay for it
    decode = msgspec.json.Decoder().decode
    kept: dict[str, dict[int, Row]] = {"train": {}, "evaluate": {}}
    notes: list[Row] = []
    replaced = torn = 0
    for attempt, path in _attempts(Path(directory) / "metrics"):
        for line in path.read_bytes().splitlines():
            row = _parse(line, decode)
            if row is None:
                torn += 1
                continue
            row["attempt"] = attempt
            if row["kind"] == "note":
                notes.append(row)
            elif row["kind"] in kept:
                steps = kept[row["kind"]]
                replaced += row["step"] in steps
                steps[row["step"]] = row
    train, evaluate = ([steps[step] for step in sorted(steps)] for steps in kept.values())
    return Curve(train, evaluate, notes, replaced, torn)


def _attempts(folder: Path) -> list[tuple[int, Path]]:
    """By number, not by name: the order decides which row of a step counts."""
    named = ((re.fullmatch(r"attempt-(\d+)\.jsonl", path.name), path) for path in folder.glob("attempt-*.jsonl"))
    return sorted((int(match[1]), path) for match, path in named if match)


def _parse(line: bytes, decode: Callable[[bytes], Any]) -> Row | None:
    try:
        row: Row = decode(line)
        if not isinstance(row["kind"], str) or not isinstance(row["step"], int):
            return None
        if "nonfinite" in row:
            row |= {name: float(value) for name, value in row.pop("nonfinite").items()}
        return row
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):      # anything but a record
        return None
