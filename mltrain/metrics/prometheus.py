"""Prometheus: the newest numbers of a run, as a text file (for node_exporter's textfile collector, and for machines nobody can reach) and,
if a port is given, on http://127.0.0.1:PORT/metrics. Never on another address: who may see them is not for a training process to decide.

    mltrain_step mltrain_steps mltrain_loss mltrain_gradient_norm mltrain_learning_rate mltrain_samples_total mltrain_tokens_total
    mltrain_samples_per_second mltrain_tokens_per_second mltrain_step_seconds{phase="data"|"compute"} mltrain_memory_bytes
    mltrain_evaluation{name=...} mltrain_restarts_total mltrain_goodput_ratio mltrain_spent_seconds{class=...}
    mltrain_straggler_ratio{rank=...,host=...,phase=...}
    mltrain_last_step_timestamp

All carry run="ID". The alert that everybody wants: time() - mltrain_last_step_timestamp > 600.
"""
from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mltrain.extras import require
from mltrain.metrics.sink import Record
from mltrain.runs.layout import status_file

LOOPBACK = "127.0.0.1"
_GAUGES = {
    "step": ("mltrain_step", "Optimizer steps done."), "steps": ("mltrain_steps", "Optimizer steps of the whole run."),
    "loss": ("mltrain_loss", "Training loss of the newest record."),
    "norm": ("mltrain_gradient_norm", "Norm of the gradient before clipping."), "lr": ("mltrain_learning_rate", "Learning rate."),
    "samples_per_second": ("mltrain_samples_per_second", "Samples a second."),
    "tokens_per_second": ("mltrain_tokens_per_second", "Tokens a second."),
    "memory_bytes": ("mltrain_memory_bytes", "Peak of allocated device memory, or resident memory without a device."),
    "time": ("mltrain_last_step_timestamp", "When the newest record was made, in seconds since 1970."),
}
_COUNTERS = {"samples": ("mltrain_samples", "Samples trained on."), "tokens": ("mltrain_tokens", "Tokens trained on.")}


class Prometheus:
    """path: of the text file (default: RUN/metrics.prom), replaced atomically every `interval` seconds and at the end. port: of the
    endpoint (default: none; 0: any free one, see `port`). Raises NodeUnfit (69) if the package is missing, OSError if the port is taken."""

    def __init__(self, path: str | None = None, port: int | None = None, interval: float = 5.0) -> None:
        self._client = require("prometheus_client", "the metrics sink prometheus")
        self._families = require("prometheus_client.core", "the metrics sink prometheus")
        self._path, self._wanted_port, self._interval = Path(path) if path else None, port, interval
        self._directory: Path | None = None
        self._attempt, self._written = 1, 0.0
        self._train: Record = {}
        self._evaluation: Record = {}
        self._registry = self._client.CollectorRegistry()
        self._registry.register(self)
        self._server: Any = None

    def begin(self, directory: str, attempt: int, anew: bool = False) -> None:
        self._directory, self._attempt = Path(directory), attempt
        if self._path is None:
            self._path = self._directory / "metrics.prom"
        if anew:                                # a replay ends in a moment: nobody would come by
            self._wanted_port = None

    @property
    def port(self) -> int | None:
        """Where the endpoint is; None if there is none (yet)."""
        return int(self._server.server_port) if self._server else None

    def write(self, record: Record) -> None:
        if record["kind"] == "note":
            return
        if record["kind"] == "train":
            self._train = record
        else:
            self._evaluation = record
        if self._wanted_port is not None and self._server is None:
            self._server, _ = self._client.start_http_server(self._wanted_port, addr=LOOPBACK, registry=self._registry)
        if time.monotonic() - self._written >= self._interval:
            self._write_file()

    def close(self) -> None:
        if self._train or self._evaluation:
            self._write_file()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _write_file(self) -> None:
        self._written = time.monotonic()
        if self._path is not None:
            self._client.write_to_textfile(str(self._path), self._registry)

    def collect(self) -> Iterator[Any]:
        """What the client asks for when somebody wants to see the numbers."""
        run = self._directory.name if self._directory else ""
        for name, (metric, text) in _GAUGES.items():
            if (value := _number(self._train, name)) is not None:
                yield self._gauge(metric, text, {"run": run}, value)
        for name, (metric, text) in _COUNTERS.items():
            if (value := _number(self._train, name)) is not None:
                yield self._counter(metric, text, run, value)
        yield self._counter("mltrain_restarts", "Attempts after the first.", run, self._attempt - 1)
        yield self._phases(run)
        yield self._evaluations(run)
        status = self._status()
        if (goodput := _number(status, "goodput")) is not None:
            yield self._gauge("mltrain_goodput_ratio", "Share of the time that went into steps that count.", {"run": run}, goodput)
        if isinstance(spent := status.get("spent"), dict):
            yield self._spent(run, spent)
        yield self._stragglers(run, status.get("stragglers"))

    def _gauge(self, name: str, text: str, labels: dict[str, str], value: float) -> Any:
        family = self._families.GaugeMetricFamily(name, text, labels=list(labels))
        family.add_metric(list(labels.values()), value)
        return family

    def _counter(self, name: str, text: str, run: str, value: float) -> Any:
        family = self._families.CounterMetricFamily(name, text, labels=["run"])
        family.add_metric([run], value)
        return family

    def _phases(self, run: str) -> Any:
        family = self._families.GaugeMetricFamily("mltrain_step_seconds", "Mean seconds of a step, by phase.", labels=["run", "phase"])
        whole, data = _number(self._train, "step_seconds"), _number(self._train, "data_seconds")
        if whole is not None and data is not None:
            family.add_metric([run, "data"], data)
            family.add_metric([run, "compute"], max(0.0, whole - data))
        return family

    def _evaluations(self, run: str) -> Any:
        family = self._families.GaugeMetricFamily("mltrain_evaluation", "Results of the newest evaluation.", labels=["run", "name"])
        for name in self._evaluation:
            if name not in ("step", "time") and (value := _number(self._evaluation, name)) is not None:
                family.add_metric([run, name], value)
        return family

    def _spent(self, run: str, spent: dict[str, float]) -> Any:
        family = self._families.GaugeMetricFamily("mltrain_spent_seconds", "Where the run's time went so far.", labels=["run", "class"])
        for name in spent:
            if (value := _number(spent, name)) is not None:
                family.add_metric([run, name], value)
        return family

    def _stragglers(self, run: str, slow: object) -> Any:
        family = self._families.GaugeMetricFamily("mltrain_straggler_ratio", "Ranks that are slow now: their work by that of the others.",
                                                  labels=["run", "rank", "host", "phase"])
        for row in slow if isinstance(slow, list) else []:
            family.add_metric([run, *(str(row[name]) for name in ("rank", "host", "phase"))], row["ratio"])
        return family

    def _status(self) -> dict[str, Any]:
        """As the agent last wrote it."""
        if self._directory is None:
            return {}
        try:
            status = json.loads(status_file(self._directory).read_text())
        except (OSError, ValueError):
            return {}
        return status if isinstance(status, dict) else {}


def _number(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    return float(value) if isinstance(value, (int, float)) else None
