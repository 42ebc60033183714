"""What a record is and what a sink is: the two methods to write for a new place where numbers go."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Value = str | int | float | bool | None
# {"kind": "train" | "evaluate" | "note", "step": int, "time": seconds since 1970, …numbers}; a note has "text".
Record = Mapping[str, Value]


class Sink(Protocol):
    """Called from one thread, in order. An exception costs this sink the record and, the third time in a row, its place; it never reaches
    the loop."""

    def write(self, record: Record) -> None:
        """Take one record. It is shared with other sinks: do not change it. Numbers may be nan or infinite."""

    def close(self) -> None:
        """Write out what is held back. Called once, after the last record; nothing is written afterwards."""
