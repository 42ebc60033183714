"""What a record is and what a sink is: the two methods to write for a new place where numbers go, and one more for a sink that wants to
know whose numbers they are."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

Value = str | int | float | bool | None
# {"kind": "train" | "evaluate" | "note", "step": int, "time": seconds since 1970, …numbers}; a note has "text".
Record = Mapping[str, Value]
_HEAD = ("step", "steps", "time")         # where a number belongs, and not a number to be drawn


class Sink(Protocol):
    """Called from one thread, in order. An exception costs this sink the record and, the third time in a row, its place; it never reaches
    the loop."""

    def write(self, record: Record) -> None:
        """Take one record. It is shared with other sinks: do not change it. Numbers may be nan or infinite."""

    def close(self) -> None:
        """Write out what is held back. Called once, after the last record; nothing is written afterwards."""


@runtime_checkable
class RunSink(Sink, Protocol):
    """A sink that is told its run."""

    def begin(self, directory: str, attempt: int, anew: bool = False) -> None:
        """Once, before the first record, on the loop's thread: only take note. directory: of the run. attempt: from 1. anew: what will be
        written replaces all that was written for this run before (a replay)."""


def numbers(record: Record) -> Iterator[tuple[str, float]]:
    """(train/loss, value) of each number of a train or evaluate record; nothing of a note."""
    kind = record["kind"]
    if kind != "note":
        for name, value in record.items():
            if isinstance(value, (int, float)) and name not in _HEAD:
                yield f"{kind}/{name}", float(value)
