"""TensorBoard: event files in RUN/tensorboard, one an attempt, one curve over all of them.

    tensorboard --logdir runs                    all runs, each as `NAME-…/tensorboard`

Only the package tensorboard is used (its record format and messages), neither torch.utils.tensorboard nor TensorFlow. Each record is
with the kernel when `write` returns: a kill loses nothing. An attempt begins with the mark that tells TensorBoard to drop what earlier
files have from that step on.
"""
from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from mltrain.errors import StorageError
from mltrain.extras import require
from mltrain.metrics.sink import Record, numbers

_OURS = re.compile(r"events\.out\.tfevents\.\d{10}\.a\d{4}")


class TensorBoard:
    """folder: where event files go (default: RUN/tensorboard). Raises NodeUnfit (69) if the package is missing."""

    def __init__(self, folder: str | None = None) -> None:
        self._messages = require("tensorboard.compat.proto.event_pb2", "the metrics sink tensorboard")
        self._summary = require("tensorboard.compat.proto.summary_pb2", "the metrics sink tensorboard")
        self._record_writer = require("tensorboard.summary.writer.record_writer", "the metrics sink tensorboard").RecordWriter
        self._folder = Path(folder) if folder else None
        self._attempt, self._anew = 1, False
        self._replaced: list[Path] = []
        self._writer: Any = None

    def begin(self, directory: str, attempt: int, anew: bool = False) -> None:
        self._folder = self._folder or Path(directory, "tensorboard")
        self._attempt, self._anew = attempt, anew

    def write(self, record: Record) -> None:
        values = [self._summary.Summary.Value(tag=name, simple_value=value) for name, value in numbers(record)]
        if not values:
            return
        step = int(record["step"] or 0)
        if self._writer is None:
            self._open(step)
        self._put(wall_time=float(record["time"] or 0), step=step, summary=self._summary.Summary(value=values))

    def close(self) -> None:
        """The new curve is whole: what it replaces may go."""
        if self._writer is not None:
            self._writer.close()
            for old in self._replaced:
                old.unlink(missing_ok=True)

    def _open(self, step: int) -> None:
        folder = self._folder or Path("tensorboard")
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(path for path in folder.iterdir() if _OURS.fullmatch(path.name))
        self._replaced = there if self._anew else []
        path = _unused(folder, self._attempt, there)
        try:
            self._writer = self._record_writer(path.open("xb", buffering=0))
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}", "is the folder writable, is the disk full?") from None
        self._put(wall_time=time.time(), file_version="brain.Event:2")
        start = self._messages.SessionLog(status=self._messages.SessionLog.START)
        self._put(wall_time=time.time(), step=0 if self._anew else step, session_log=start)

    def _put(self, **fields: Any) -> None:
        self._writer.write(self._messages.Event(**fields).SerializeToString())


def _unused(folder: Path, attempt: int, there: list[Path]) -> Path:
    """TensorBoard reads files in order of their names: a new one must come after all that are there, however fast attempts follow."""
    second = int(time.time())
    last = max((int(path.name.split(".")[3]) for path in there), default=0)
    return folder / f"events.out.tfevents.{max(second, last + 1)}.a{attempt:04d}"
