"""What is known of a run, as plain numbers: what the page shows and what `--json` prints.

Curves are thinned to what a chart can show; the figures are those of all records. Everything is redacted.
"""
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import mul
from pathlib import Path
from typing import Any, TypeGuard, cast

from mltrain.errors import MissingInput
from mltrain.report.events import events
from mltrain.report.thin import POINTS, Line, digits, is_number, thin
from mltrain.runs import layout, ledger
from mltrain.runs.curve import Curve, Row, read
from mltrain.runs.difference import differences, flat
from mltrain.runs.goodput import Attempt, goodput, seconds
from mltrain.runs.goodput import attempts as attempts_of
from mltrain.runs.outcome import read_status
from mltrain.trust.redact import redact_data

CURVES = ("loss", "lr", "norm", "tokens_per_second", "samples_per_second", "step_seconds", "data_seconds", "compute_seconds",
          "collective_seconds", "optimizer_seconds", "memory_bytes")
_HEAD = {"kind", "step", "time", "attempt", "steps"}      # of an evaluation: all the rest are its results
_STATUS = ("id", "name", "state", "reason", "step", "steps", "samples", "tokens", "loss", "attempts", "launcher", "host", "directory",
           "started", "ended")


@dataclass(frozen=True, slots=True)
class Run:
    """status: as status.json. figures: one number each. curves, evaluations: by name. attempts: which steps each made. seconds: where the
    time went. events: of the ledger. config: flat. provenance: where it came from."""

    status: dict[str, Any]
    figures: dict[str, float]
    curves: dict[str, Line]
    evaluations: dict[str, Line]
    attempts: list[dict[str, Any]]
    seconds: dict[str, float]
    events: list[dict[str, Any]]
    events_left_out: int
    notes: list[dict[str, Any]]
    overrides: list[str]
    config: dict[str, Any]
    provenance: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """runs: in the order named. differences: [{key, values}], the keys in which their configurations differ."""

    runs: list[Run]
    differences: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def report(directories: Sequence[Path]) -> Report:
    """Raises MissingInput (66) naming a run that has no numbers yet."""
    points = max(80, POINTS // math.isqrt(len(directories)))
    runs = [_run(directory, points) for directory in directories]
    own = [{key: value for key, value in run.config.items() if key not in ("name", "runs")} for run in runs]
    return Report(runs, differences(own))


def _run(directory: Path, points: int) -> Run:
    curve = read(directory)
    status = read_status(directory)
    if not curve.train and not curve.evaluate:
        raise MissingInput(f"{directory.name} has no metrics yet ({status['state']})",
                           f"mltrain logs {directory.name} shows what it printed; only runs of a recipe record metrics")
    rows = ledger.read(layout.ledger_file(directory))
    live = status.get("account")
    attempts, spent = attempts_of(rows, live), seconds(rows, live)
    config = _json(layout.config_file(directory))
    told, left_out = events(rows)
    made = {
        "status": {name: status.get(name) for name in _STATUS} | {"recipe": config.get("recipe", "")},
        "notes": [{"step": row["step"], "attempt": row["attempt"], "text": str(row.get("text", ""))} for row in curve.notes[-40:]],
        "overrides": config.get("overrides", []), "config": flat(config["tree"]) if config.get("tree") else {},
        "provenance": _json(directory / "provenance.json"), "events": told, "attempts": _attempts(attempts, rows)}
    redacted = cast(dict[str, Any], redact_data(made))
    return Run(figures=_figures(curve, rows, spent), events_left_out=left_out,
               curves=_curves(curve.train, CURVES, points), evaluations=_curves(curve.evaluate, _results(curve.evaluate), points),
               seconds=spent, **redacted)


def _json(path: Path) -> dict[str, Any]:
    """A file of the run; {} if it is not there or damaged: a report of a broken run is worth having."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _curves(rows: list[Row], names: Sequence[str], points: int) -> dict[str, Line]:
    steps = [row["step"] for row in rows]
    lines = {name: thin(steps, [row.get(name) for row in rows], points) for name in names}
    return {name: line for name, line in lines.items() if line.steps or line.lost}


def _results(rows: list[Row]) -> list[str]:
    return sorted({name for row in rows for name, value in row.items() if name not in _HEAD and is_number(value)})


def _attempts(attempts: list[Attempt], rows: list[Row]) -> list[dict[str, Any]]:
    """Number, first and last step, and how it ended, of each."""
    begun = [row["attempt"] for row in rows if row["event"] == "attempt started"]
    ended = {row["attempt"]: row for row in rows if row["event"] == "attempt ended"}
    return [{"attempt": number, "started": span.started, "ended": span.ended, "first": span.first, "last": span.last,
             "training_seconds": round(span.parts.get("steps", 0.0), 3), "outcome": ended.get(number, {}).get("outcome", "")}
            for number, span in zip(begun, attempts, strict=False)]


def _figures(curve: Curve, rows: list[Row], spent: dict[str, float]) -> dict[str, float]:
    """One number each; those that cannot be said are left out."""
    found: dict[str, float | None] = {"goodput": goodput(spent)}
    losses = [(row["loss"], row["step"]) for row in curve.evaluate if _finite(row.get("loss"))]
    if losses:
        found["validation_loss"] = losses[-1][0]
        found["best_validation_loss"], found["best_step"] = min(losses)
    found |= _speed(curve.train)
    found["memory_bytes"] = max(filter(_finite, (row.get("memory_bytes") for row in curve.train)), default=None)
    training = next((row for row in reversed(rows) if row["event"] == "training"), {})
    found["parameters"] = training.get("parameters")
    found["records"], found["records_replaced"], found["lines_torn"] = len(curve.train), curve.replaced, curve.torn
    return {name: digits(value) if isinstance(value, float) else value for name, value in found.items() if value is not None}


def _speed(train: list[Row]) -> dict[str, float | None]:
    """Over all steps that count. A record speaks for the steps since the one before it."""
    rows = [row for row in train if _finite(row.get("step_seconds"))]
    if not rows:
        return {}
    own = [each["step_seconds"] for each in rows]
    before = [{"step": 0, "attempt": rows[0]["attempt"]}, *rows]
    spent = [seconds * (max(1, row["step"] - last["step"]) if last["attempt"] == row["attempt"] else 1)
             for seconds, last, row in zip(own, before, rows, strict=False)]
    total, ordered = sum(spent), sorted(own)

    def mean(name: str, of_step: bool = False) -> float | None:
        """Of a rate over the time; of_step: of seconds a step, as a share of it."""
        values = [row.get(name) or 0.0 for row in rows]
        parts = [value / step for value, step in zip(values, own, strict=True)] if of_step else values
        return math.fsum(map(mul, parts, spent)) / total if total else None

    return {"step_seconds_median": ordered[len(own) // 2], "step_seconds_p99": ordered[min(len(own) - 1, len(own) * 99 // 100)],
            "data_wait_share": mean("data_seconds", of_step=True),
            "tokens_per_second": mean("tokens_per_second"), "samples_per_second": mean("samples_per_second")}


def _finite(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)
