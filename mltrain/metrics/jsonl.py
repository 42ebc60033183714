"""The record of truth: one strict-JSON line a record in `DIRECTORY/metrics/attempt-0001.jsonl`, a file an attempt.

JSON has no nan and no infinity. Such a number is written as null, and its name and value are kept beside it, so that any JSON reader can
read the line and ours (`runs/curve.py`) gets the value back: {"loss": null, "nonfinite": {"loss": "nan"}}. What a full disk does not take
waits here until it does.
"""
from __future__ import annotations

import errno
import json
import math
import os
from collections import deque
from pathlib import Path

from mltrain.errors import StorageError
from mltrain.metrics.sink import Record

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WAITING = 10_000        # lines, a few megabytes


def attempt_file(directory: str | Path, attempt: int) -> Path:
    """Where the records of one attempt of a run lie."""
    return Path(directory) / "metrics" / f"attempt-{attempt:04d}.jsonl"


def to_line(record: Record) -> str:
    """A record as one line of strict JSON, without the line's end."""
    row: dict[str, object] = dict(record)
    lost = {name: str(value) for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)}
    if lost:
        row.update(dict.fromkeys(lost), nonfinite=lost)
    return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class JsonLines:
    """Appends each record at once (about 10 µs): what was written is there after a kill of the process.

    directory: of the run. attempt: number of this attempt, from 1. Raises StorageError if the file cannot be opened."""

    def __init__(self, directory: str | Path, attempt: int = 1) -> None:
        path = attempt_file(directory, attempt)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(f"cannot write metrics to {path}: {error.strerror}", "is the folder writable, is the disk full?") from None
        # A line that a kill or a full disk cut short must not swallow the one after it.
        size = os.fstat(self._file).st_size
        self._torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        self._late: deque[bytes] = deque()

    def write(self, record: Record) -> None:
        """Raises OSError for a record that is lost."""
        self._late.append(to_line(record).encode() + b"\n")
        try:
            self._catch_up()
        except OSError as error:
            if error.errno in _FULL and len(self._late) <= _WAITING:
                return
            self._late.popleft()
            raise

    def _catch_up(self) -> None:
        while self._late:
            line = (b"\n" if self._torn else b"") + self._late[0]
            written = os.write(self._file, line)
            self._torn = written < len(line)
            if self._torn:
                raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes of a record were written")
            self._late.popleft()

    def close(self) -> None:
        """Raises OSError if records wait still: they are lost."""
        try:
            self._catch_up()
            os.fsync(self._file)
        finally:
            os.close(self._file)
