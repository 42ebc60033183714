"""What does one record cost the loop, and what does it cost the thread that writes it, sink by sink?"""
from __future__ import annotations

import contextlib
import json
import os
import tempfile
from queue import SimpleQueue

from harness import compare, per_call

from mltrain.metrics.console import Console
from mltrain.metrics.jsonl import JsonLines
from mltrain.metrics.prometheus import Prometheus
from mltrain.metrics.sink import RunSink, Sink
from mltrain.metrics.tensorboard import TensorBoard
from mltrain.metrics.wandb import Wandb
from mltrain.metrics.writer import Metrics

RECORD = {
    "kind": "train", "step": 120, "time": 1.7e9, "steps": 1000, "loss": 2.314, "norm": 1.02, "lr": 1e-3, "weight": 4096.0,
    "samples": 3840, "tokens": 491520, "samples_per_second": 48.2, "tokens_per_second": 12345.6, "step_seconds": 0.081,
    "data_seconds": 3e-4, "memory_bytes": 432013312, "eta_seconds": 72.4,
}
CALLS = 2000


class Nothing:
    """A sink that does nothing: what is left is the queue and the thread."""

    def write(self, record: object) -> None: ...
    def close(self) -> None: ...


def main() -> None:
    metrics, queue = Metrics({"nothing": Nothing()}), SimpleQueue()
    print(compare("What does a record cost the loop?", {
        "Metrics.put": per_call(lambda: metrics.put(RECORD), CALLS),
        "a bare SimpleQueue": per_call(lambda: queue.put(RECORD), CALLS),
    }, unit="µs", limit="a bare SimpleQueue").markdown())
    metrics.close()

    with tempfile.TemporaryDirectory() as folder, open(os.path.join(folder, "plain"), "ab", buffering=0) as plain:
        sink = JsonLines(folder)
        print(compare("What does a line of the record of truth cost its thread?", {
            "JsonLines.write": per_call(lambda: sink.write(RECORD), CALLS),
            "json.dumps and write": per_call(lambda: plain.write(json.dumps(RECORD).encode() + b"\n"), CALLS),
        }, unit="µs", limit="json.dumps and write").markdown())
        sink.close()
    every_sink()


def every_sink() -> None:
    """Per record, called by the writer's thread: what the loop's cores may lose to it every `every` steps. wandb: offline."""
    os.environ["WANDB_MODE"] = "offline"
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        sinks: dict[str, Sink] = {"jsonl": JsonLines(folder), "console": Console(), "prometheus": Prometheus(interval=0.0),
                                  "tensorboard": TensorBoard(), "wandb, offline": Wandb()}
        for sink in sinks.values():
            if isinstance(sink, RunSink):
                sink.begin(folder, 1)
        table = compare("What does a record cost each sink?", {
            name: per_call(lambda sink=sink: sink.write(RECORD), CALLS // 10) for name, sink in sinks.items()}, unit="µs", limit="jsonl")
        for sink in sinks.values():
            sink.close()
    print(table.markdown())


if __name__ == "__main__":
    main()
