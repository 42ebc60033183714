"""The ledger's rows as people read them: when, which attempt, what. Saves in a row become one line."""
from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from mltrain.runs.goodput import LOST
from mltrain.runs.ledger import ROLLED_BACK, Row
from mltrain.runs.logs import describe
from mltrain.runs.rollbacks import TRACED

FIRST, LAST = 60, 240    # rows that are kept of a long ledger
_SILENT = {"seq", "time", "event", "prev", "sha", "rank", "attempt"}
BAD = ("failed", "save failed", "checkpoint damaged", "repaired", "step skipped", LOST, "straggler", "loss spike", TRACED)


def events(rows: list[Row]) -> tuple[list[dict[str, Any]], int]:
    """([{time, attempt, event, text, bad}], rows left out of the middle). bad: something went wrong."""
    found = list(_events(rows))
    if len(found) <= FIRST + LAST:
        return found, 0
    return found[:FIRST] + found[-LAST:], len(found) - FIRST - LAST


def _events(rows: list[Row]) -> Iterator[dict[str, Any]]:
    attempt = 0
    for saved, group in groupby(rows, key=lambda row: bool(row["event"] == "saved")):
        if saved:
            yield _saves(list(group), attempt)
            continue
        for row in group:
            attempt = row.get("attempt", attempt) if row["event"] == "attempt started" else attempt
            bad = row["event"] in BAD or "cause" in row or "why" in row
            yield {"time": row["time"], "attempt": attempt, "event": row["event"], "text": _text(row), "bad": bad}


def _saves(rows: list[Row], attempt: int) -> dict[str, Any]:
    steps = [row.get("step") for row in rows]
    text = f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} checkpoints, steps {steps[0]} to {steps[-1]}"
    return {"time": rows[-1]["time"], "attempt": attempt, "event": "saved", "text": text, "bad": False}


def _text(row: Row) -> str:
    event = row["event"]
    if event == "created":
        return " ".join(map(str, row.get("command", [])))
    if event == "attempt started":
        return f"{_count(row.get('workers'), 'worker')} on {row.get('host', '?')}"
    if event == "attempt ended":
        return (f"{describe(row['cause'])}; " if "cause" in row else "") + str(row.get("reason") or row.get("outcome", ""))
    if event == "training":
        strategy = row.get("strategy") or {}
        mesh = " × ".join(map(str, strategy.get("mesh", []))) if isinstance(strategy, dict) else ""
        return f"{row.get('steps') or 0:,} steps, {row.get('parameters', 0):,} parameters" + (f", mesh {mesh}" if mesh else "")
    if event == "changed":
        return "; ".join(f"{change['key']}: {change['from']} → {change['to']}" for change in row.get("changes", []))
    if event == LOST:
        return f"its agent was killed; last heard of at step {row.get('step')}"
    if event == "straggler":
        where = "" if row.get("phase") == "processor" else f" in phase {row.get('phase')}"
        return f"rank {row.get('rank')} on {row.get('host')} needs {row.get('ratio')} times as long as the others{where}"
    if event == ROLLED_BACK:
        return f"to step {row.get('step')}" + (f" or before: {row.get('text')}" if "why" in row else "")
    if event in ("loss spike", "step skipped") and row.get("text"):
        return f"step {row.get('step')}: {row['text']}"
    if event == TRACED:
        return f"at step {row.get('step')} the state of ranks {', '.join(map(str, row.get('ranks', [])))} had been wrong"
    if event == "resumed":
        return f"after step {row.get('step')}"
    return _rest(row)


def _count(number: object, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _rest(row: Row) -> str:
    """Of an event this page has no words for: its fields."""
    fields = {key: value for key, value in row.items() if key not in _SILENT and value not in ("", None)}
    parts = [f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in fields.items()]
    return ", ".join(parts)[:400]
