"""The ledger: what happened to a run, one JSON line an event, each line chained to the one before it by a hash.

A row is {"seq", "time", "event", ...fields, "prev", "sha"}: sha = sha256 of the canonical row without sha, prev = sha of the row before.
Rows are redacted before they are hashed, so keeping a secret out never breaks the chain. Appending is one write with O_APPEND under a
lock, then fsync. A last line torn by a crash is moved to ledger.torn and the next append records that; nothing else ever changes a
written line.
"""
from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from mltrain.errors import DataError, MissingInput, StorageError
from mltrain.runs.atomic import FILE_MODE
from mltrain.trust.digest import plain, sha256_json
from mltrain.trust.redact import redact_data

Row = dict[str, Any]
ROOT = "0" * 64          # prev of the first row
ROLLED_BACK, CANCEL, ACCEPTED = "rolled back", "cancel requested", "damage accepted"
_RESERVED = {"seq", "time", "event", "prev", "sha"}


class Ledger:
    """Appends to one file. Several processes may do so in turn (launch, agent, resume): each append looks at the last line under a lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: str, moment: float | None = None, /, **fields: object) -> Row:
        """Write one row and return it as written. moment: when it happened (default: now). Raises StorageError (74)."""
        return self.extend([(event, moment, fields)])[-1]

    def extend(self, rows: list[tuple[str, float | None, dict[str, Any]]]) -> list[Row]:
        """The same for many (event, moment, fields) with one fsync. Those that are on the disk are taken off the list, also where a later
        one cannot be written."""
        for _, _, fields in rows:
            if clash := _RESERVED & fields.keys():
                raise ValueError(f"a ledger row has its own {', '.join(sorted(clash))}")
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            try:
                os.fchmod(fd, FILE_MODE)
                fcntl.flock(fd, fcntl.LOCK_EX)
                return self._extend(fd, rows)
            finally:
                os.close(fd)
        except OSError as error:
            hint = "is the disk full, or the run directory read-only?"
            raise StorageError(f"{self.path}: cannot be written: {error.strerror}", hint) from None

    def _extend(self, fd: int, rows: list[tuple[str, float | None, dict[str, Any]]]) -> list[Row]:
        last, torn = self._repair(fd)
        if torn:
            last = _write(fd, last, "repaired", {"moved": "ledger.torn", "bytes": len(torn)})
        written: list[Row] = []
        try:
            for event, moment, fields in rows:
                last = _write(fd, last, event, fields, moment)
                written.append(last)
        finally:
            os.fsync(fd)
            del rows[:len(written)]
        return written

    def _repair(self, fd: int) -> tuple[Row | None, bytes]:
        """The last whole row, and what came after it (moved aside, cut off): the remains of a write that a crash interrupted."""
        end = os.fstat(fd).st_size
        keep, last = _last_row(fd, end)
        if keep == end:
            return last, b""
        torn = os.pread(fd, end - keep, keep)
        aside = os.open(self.path.with_name("ledger.torn"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, FILE_MODE)
        try:
            os.write(aside, torn + b"\n")
            os.fsync(aside)
        finally:
            os.close(aside)
        os.ftruncate(fd, keep)
        return last, torn


def _last_row(fd: int, end: int) -> tuple[int, Row | None]:
    """(offset after the last whole row, that row), reading backwards: a ledger may have grown long."""
    tail, start = b"", end
    while start > 0:
        size = min(1 << 16, start)
        start -= size
        tail = os.pread(fd, size, start) + tail
        newline = tail.rfind(b"\n")
        while newline >= 0:
            before = tail.rfind(b"\n", 0, newline)
            if before < 0 and start > 0:
                break                                          # the line begins further up
            row = _parse(tail[before + 1:newline])
            if row is not None:
                return start + newline + 1, row
            newline = before
    return 0, None


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    kinds: dict[str, Any] = {"sha": str, "seq": int, "event": str, "time": (int, float)}
    return row if isinstance(row, dict) and all(isinstance(row.get(name), kind) for name, kind in kinds.items()) else None


def _write(fd: int, last: Row | None, event: str, fields: dict[str, Any], moment: float | None = None) -> Row:
    body = redact_data(plain({"time": round(moment or time.time(), 3), "event": event, **fields}))
    assert isinstance(body, dict)
    row: Row = {"seq": last["seq"] + 1 if last else 1, **body, "prev": last["sha"] if last else ROOT}
    row["sha"] = sha256_json(row)
    line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
    if os.write(fd, line) != len(line):
        raise OSError(28, "no space left on device")           # a torn line now, which the next append moves aside
    return row


def read(path: Path) -> list[Row]:
    """All whole rows, oldest first (a torn last line is left out). A ledger that is not there has none."""
    if not path.is_file():
        return []
    return [row for line in path.read_bytes().splitlines() if (row := _parse(line)) is not None]


def verify(path: Path) -> int:
    """Check every row and its link. Returns the number of rows; raises DataError (65) naming the first bad line, MissingInput (66)."""
    if not path.is_file():
        raise MissingInput(f"{path}: there is no ledger", "is this a run directory?")
    return _follow(path, list(enumerate(path.read_bytes().split(b"\n"), 1)), 0, ROOT)


def verify_for_resume(path: Path) -> None:
    """The same for what a resume goes by: what came before damage that was accepted does not count, nor does a last line that a crash
    tore. Raises DataError (65)."""
    *lines, _torn = enumerate(path.read_bytes().split(b"\n"), 1) if path.is_file() else [(0, b"")]
    rows = [_parse(line) for _, line in lines]
    begin = max((at for at, row in enumerate(rows) if row and row["event"] == ACCEPTED), default=0)
    accepted = rows[begin] if begin else None
    _follow(path, lines[begin:], accepted["seq"] - 1 if accepted else 0, accepted["prev"] if accepted else ROOT)


def _follow(path: Path, lines: list[tuple[int, bytes]], count: int, previous: str) -> int:
    """Along the chain. count, previous: number and digest of the row before the first line. Returns the number of the last row."""
    for number, line in lines:
        if not line:
            continue
        row = _parse(line)
        if row is None:
            raise DataError(f"{path}:{number}: not a row of a ledger", "the line was cut or overwritten")
        sha = row.pop("sha")
        if row["seq"] != count + 1 or row.get("prev") != previous:
            raise DataError(f"{path}:{number}: does not follow the row before it", "a row was removed, added or moved")
        if sha256_json(row) != sha:
            raise DataError(f"{path}:{number}: was changed after it was written", "its digest does not fit its content")
        previous, count = sha, count + 1
    return count


def retired(path: Path) -> list[tuple[int, int]]:
    """[(step, attempt)] of all roll-backs: checkpoints above `step` made by attempts up to `attempt` are off the branch. A worker's own row
    says under which number it saves: a checkpoint folder that knew the attempt's has given it a later one."""
    return [(int(row["step"]), max(int(row["attempt"]), int(row.get("saves_as", 0)))) for row in read(path) if row["event"] == ROLLED_BACK]


def saved_step(path: Path) -> int:
    """The newest saved step of the branch, as far as the ledger knows; 0 before the first."""
    saved: list[int] = []
    for row in read(path):
        if row["event"] == "saved":
            saved.append(int(row["step"]))
        elif row["event"] == ROLLED_BACK:                      # by hand: to a step that is there; by a worker: to what is there at most
            saved = [step for step in saved if step <= row["step"]] + [int(row["step"])] * ("why" not in row)
    return max(saved, default=0)


def attempts(path: Path) -> int:
    """Number of the newest attempt; 0 before the first."""
    return max((int(row["attempt"]) for row in read(path) if row["event"] == "attempt started"), default=0)
