"""What does one record cost the loop, and what does it cost the thread that writes it?"""
from __future__ import annotations

import json
import os
import tempfile
from queue import SimpleQueue

from harness import compare, per_call

from mltrain.metrics.jsonl import JsonLines
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


if __name__ == "__main__":
    main()
