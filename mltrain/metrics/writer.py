"""The queue between the loop and the sinks: the loop only enqueues, one thread writes.

What may happen to a sink never happens to the loop. A sink that raises loses that record; after three failures in a row it is switched off,
a note says so, and the others go on. A sink that hangs holds up its neighbours (they share the thread) until the queue is full; then
records are counted and dropped. Cost of `put`: about 1 µs.
"""
from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Annotated

from msgspec import Meta

from mltrain.metrics.jsonl import JsonLines
from mltrain.metrics.sink import Record, RunSink, Sink
from mltrain.trust.redact import holds_secret, redact

FAILURES = 3            # in a row, then a sink is switched off
WAITING = 100_000       # records that may wait for a sink that hangs; about 50 MB


@dataclass(slots=True)
class _Outlet:
    """A sink and how it fares. failures: in a row. dropped: records it did not take, in all."""

    sink: Sink
    failures: int = 0
    dropped: int = 0

    @property
    def off(self) -> bool:
        return self.failures >= FAILURES


class Metrics:
    """Where the numbers of a run go. One per run, on rank 0.

    sinks: by name, written in this order, after the record of truth. every: train records are due at step 1, at every `every`-th and at the
    last. directory: of the run; there the record of truth is kept (`jsonl.py`) unless `sinks` has one of the name jsonl. attempt: number
    of this attempt. steps: the run's last step, if known. Raises StorageError if the record of truth cannot be opened."""

    def __init__(self, sinks: dict[str, Sink] | None = None, every: Annotated[int, Meta(ge=1)] = 10, directory: str | None = None,
                 attempt: int = 1, steps: int | None = None) -> None:
        self.every, self.steps = max(1, every), steps
        named = dict(sinks or {})
        if directory is not None and "jsonl" not in named:
            named = {"jsonl": JsonLines(directory, attempt), **named}
        for sink in named.values():
            if directory is not None and isinstance(sink, RunSink):
                sink.begin(directory, attempt)
        self._outlets = {name: _Outlet(sink) for name, sink in named.items()}
        self._queue: SimpleQueue[Record | None] = SimpleQueue()
        self._overflow, self._closed, self._step = 0, False, 0
        self._thread = Thread(target=self._drain, name="mltrain-metrics", daemon=True)
        self._thread.start()

    def due(self, step: int) -> bool:
        """Whether the train record of this step should be put."""
        return step == 1 or step % self.every == 0 or step == self.steps

    def put(self, record: Record) -> None:
        """Enqueue a record, and leave it unchanged afterwards. Never waits, never raises."""
        if self._queue.qsize() < WAITING:
            self._queue.put(record)
        else:
            self._overflow += 1

    def note(self, text: str, step: int) -> None:
        """Enqueue a sentence for people."""
        self.put({"kind": "note", "step": step, "time": time.time(), "text": text})

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Write out what waits, then close the sinks; give up after the timeout: a sink that hangs must not keep a run from ending."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            print(f"mltrain: {self._queue.qsize()} metrics records were not written within {timeout_seconds:g} s", file=sys.stderr)

    def dropped(self) -> dict[str, int]:
        """Records lost so far, by sink; `queue` counts those that no sink was offered. Only names that lost any."""
        lost = {name: outlet.dropped for name, outlet in self._outlets.items()} | {"queue": self._overflow}
        return {name: count for name, count in lost.items() if count}

    def _drain(self) -> None:
        while (record := self._queue.get()) is not None:
            step = record.get("step")
            self._step = step if isinstance(step, int) else self._step
            record = _without_secret(record)
            for name, outlet in list(self._outlets.items()):
                self._offer(name, outlet, record)
        for name, count in self.dropped().items():
            self._tell(f"metrics: {name} dropped {count} records")
        for name, outlet in self._outlets.items():
            try:
                outlet.sink.close()
            except Exception as error:  # noqa: BLE001 a sink is foreign code; whatever it raises, the others must be closed
                print(f"mltrain: metrics: closing {name} failed: {_named(error)}", file=sys.stderr)

    def _offer(self, name: str, outlet: _Outlet, record: Record) -> None:
        if outlet.off:
            outlet.dropped += 1
            return
        try:
            outlet.sink.write(record)
            outlet.failures = 0
        except Exception as error:  # noqa: BLE001 a sink is foreign code; whatever it raises is counted and told, and the run goes on
            outlet.failures += 1
            outlet.dropped += 1
            if outlet.off:
                self._tell(f"metrics: {name} is switched off after {FAILURES} failures in a row, dropped {outlet.dropped}: {_named(error)}")

    def _tell(self, text: str) -> None:
        """A note to the sinks that still work. Never silent: without any, to stderr."""
        working = [(name, outlet) for name, outlet in self._outlets.items() if not outlet.off]
        for name, outlet in working:
            self._offer(name, outlet, {"kind": "note", "step": self._step, "time": time.time(), "text": text})
        if not working:
            print(f"mltrain: {text}", file=sys.stderr)


def _without_secret(record: Record) -> Record:
    """Names are user code's, too (of evaluations). One look at all of them together: a search for each would cost more than the line."""
    if holds_secret("\n".join(record)):
        record = {redact(name): value for name, value in record.items()}
    return {name: redact(value) if isinstance(value, str) else value for name, value in record.items()}


def _named(error: BaseException) -> str:
    return redact(f"{type(error).__name__}: {error}")
