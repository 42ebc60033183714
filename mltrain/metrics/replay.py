"""Writes a run's numbers again from the record of truth: what a sink missed (it was down, it was not there, it was switched off) is filled.

The whole curve is written, the last attempt of each step, and replaces what the sink has of this run: a second replay changes nothing.
"""
from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from mltrain.errors import MissingInput, MltrainError, StorageError, UsageError
from mltrain.metrics.sink import Record, RunSink, Sink
from mltrain.runs.curve import Curve, read
from mltrain.trust.redact import redact

TARGETS = {
    "wandb": "mltrain.metrics.wandb.Wandb", "trackio": "mltrain.metrics.wandb.Wandb",
    "tensorboard": "mltrain.metrics.tensorboard.TensorBoard", "prometheus": "mltrain.metrics.prometheus.Prometheus",
}


def node(name: str, sinks: dict[str, object], settings: dict[str, object]) -> dict[str, object]:
    """The part that a sink's name stands for: as the run's recipe has it, else as it comes with mltrain; settings are laid over it.
    Raises MissingInput (66) for a name that is neither."""
    found = sinks.get(name)
    if isinstance(found, dict):
        return {**found, **settings}
    if name not in TARGETS:
        raise MissingInput(f"no metrics sink {name!r}", "one of " + " ".join(dict.fromkeys([*TARGETS, *sinks])))
    return {"_target_": TARGETS[name], **({"package": "trackio"} if name == "trackio" else {}), **settings}


def read_settings(names: Sequence[str], words: Sequence[str]) -> dict[str, dict[str, object]]:
    """{sink: {key: value}} of SINK.key=value; a value is JSON if it can be read as such, else text. Raises UsageError (64)."""
    settings: dict[str, dict[str, object]] = {}
    for word in words:
        place, _, text = word.partition("=")
        name, dot, key = place.partition(".")
        if not dot or name not in names or not key.isidentifier():
            raise UsageError(f"{word} is no setting of {' or '.join(names)}", f"write {names[0]}.key=value")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        settings.setdefault(name, {})[key] = value
    return settings


def replay(directory: Path, sinks: dict[str, Sink]) -> dict[str, int]:
    """Returns how many records each sink took. Raises MissingInput (66) if the run has none, StorageError (74) if a sink fails."""
    curve = read(directory)
    if not curve.train and not curve.evaluate:
        raise MissingInput(f"{directory.name} has no metrics yet", "they are in RUN/metrics/attempt-0001.jsonl once it has made a step")
    attempt = max(int(row["attempt"]) for row in [*curve.train, *curve.evaluate])
    return {name: _fill(name, sink, curve, directory, attempt) for name, sink in sinks.items()}


def _fill(name: str, sink: Sink, curve: Curve, directory: Path, attempt: int) -> int:
    count = 0
    try:
        if isinstance(sink, RunSink):
            sink.begin(str(directory), attempt, anew=True)
        for record in _in_order(curve):
            sink.write(record)
            count += 1
        sink.close()
    except MltrainError:
        raise
    except Exception as error:  # noqa: BLE001 a sink is foreign code; here its failure is the answer to what was asked
        raise StorageError(f"{name} failed after {count} records: {redact(f'{type(error).__name__}: {error}')}",
                           "its curve may be incomplete; the same command again writes all of it") from error
    return count


def _in_order(curve: Curve) -> Iterator[Record]:
    """By step; what was evaluated after a step comes after it."""
    rows = sorted([*curve.train, *curve.evaluate], key=lambda row: (row["step"], row["kind"] != "train"))
    for row in rows:
        yield {name: value for name, value in row.items() if name != "attempt"}
