"""Run directories as a run leaves them, written by hand: what the report's tests read."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mltrain.runs import outcome
from mltrain.runs.ledger import Ledger


def train(step: int, **numbers: Any) -> dict[str, Any]:
    return {"kind": "train", "step": step, "time": 1.7e9 + step, "loss": 4 / step, "norm": 1.0, "lr": 0.001, "weight": 1.0,
            "samples": step * 8, "tokens": step * 64,
            "samples_per_second": 80.0, "tokens_per_second": 640.0, "step_seconds": 0.1, "data_seconds": 0.01,
            "memory_bytes": 2**30, **numbers}


def evaluate(step: int, **results: float) -> dict[str, Any]:
    return {"kind": "evaluate", "step": step, "time": 1.7e9 + step, **results}


def make(runs: Path, name: str = "small", *, records: dict[int, list[dict[str, Any]]] | None = None, lr: float = 0.1,
         extra: dict[str, Any] | None = None) -> Path:
    """A run that died at step 10 and went on from step 8 to 20. records: by attempt."""
    run = runs / f"{name}-20260101-000000-{len(list(runs.iterdir())):04x}"
    (run / "metrics").mkdir(parents=True)
    made = records or {1: [train(step) for step in range(1, 11)],
                       2: [*(train(step) for step in range(9, 21)), evaluate(20, loss=0.5, accuracy=0.75)]}
    for attempt, rows in made.items():
        (run / "metrics" / f"attempt-{attempt:04d}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ledger = Ledger(run / "ledger.jsonl")
    ledger.append("created", command=["mltrain", "launch", f"recipe={name}"], recipe=name)
    ledger.append("attempt started", attempt=1, host="node-1", pid=1, workers=2)
    ledger.append("saved", step=4, attempt=1)
    ledger.append("saved", step=8, attempt=1)
    cause = {"rank": 1, "pid": 7, "code": -9, "phase": "compute", "step": 10, "trained": 10}
    ledger.append("attempt ended", attempt=1, outcome="restarted", reason="restarting in 0.0 s", step=10, first_step=0,
                  training_seconds=0.0, cause=cause, echoes=0)
    ledger.append("attempt started", attempt=2, host="node-1", pid=1, workers=2)
    ledger.append("attempt ended", attempt=2, outcome="done", reason="done", step=20, first_step=8, training_seconds=0.0)
    tree = {"name": name, "steps": 20, "optimizer": {"lr": lr}, **(extra or {})}
    (run / "config.json").write_text(json.dumps({"tree": tree, "recipe": name, "overrides": [f"recipe={name}"]}))
    outcome.write_status(run, {**outcome.new_status(run, steps=20), "state": "done", "step": 20, "loss": 0.2, "attempts": 2, "samples": 160,
                               "tokens": 1280, "host": "node-1"})
    return run
