"""What a run printed: by attempt and rank, followed while it lives, or only what went wrong."""
from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mltrain.errors import MissingInput
from mltrain.runs import ledger
from mltrain.runs.layout import attempt_folder, ledger_file, log_file
from mltrain.runs.lease import is_live

_LOOK_SECONDS = 0.2      # how often a followed file is looked at
_LAST_LINES = 40         # of the culprit's log, where it holds no traceback


def logged_attempts(run: Path) -> list[int]:
    """Numbers of the attempts that have logs, oldest first."""
    folder = run / "attempts"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


def logged_ranks(run: Path, attempt: int) -> list[int]:
    found = (re.fullmatch(r"rank-(\d+)\.log", path.name) for path in attempt_folder(run, attempt).glob("rank-*.log"))
    return sorted(int(match[1]) for match in found if match)


def choose(run: Path, attempt: int | None, rank: int | None) -> list[tuple[int, Path]]:
    """[(rank, log)] of one attempt (None: the newest). rank None: all. Raises MissingInput (66) naming what there is."""
    known = logged_attempts(run)
    if not known or (attempt is not None and attempt not in known):
        there = f"it has {', '.join(map(str, known))}" if known else "its workers have not started"
        raise MissingInput(f"{run.name} has no logs" + (f" of attempt {attempt}" if attempt is not None else ""), there)
    number = known[-1] if attempt is None else attempt
    ranks = logged_ranks(run, number)
    if rank is not None and rank not in ranks:
        raise MissingInput(f"{run.name}, attempt {number}, has no rank {rank}", f"it has {', '.join(map(str, ranks)) or 'none yet'}")
    return [(each, log_file(run, number, each)) for each in ranks if rank is None or each == rank]


def text(run: Path, attempt: int | None = None, rank: int | None = 0) -> Iterator[str]:
    """The lines of one rank, or of all with their rank before each."""
    logs = choose(run, attempt, rank)
    for number, path in logs:
        with path.open(errors="replace") as file:
            for line in file:
                yield line if len(logs) == 1 else f"[rank {number}] {line}"


def follow(run: Path, rank: int | None = 0, *, from_end: bool = False) -> Iterator[str]:
    """The same, and on with what is printed until the run ends, through all its attempts."""
    places: dict[Path, int] = {}
    if from_end:
        places = {path: path.stat().st_size for attempt in logged_attempts(run) for path in attempt_folder(run, attempt).glob("rank-*.log")}
    first = (logged_attempts(run) or [1])[-1]
    while True:
        live = is_live(run)                                    # asked before reading: what was printed last is not missed
        for attempt in [number for number in logged_attempts(run) if number >= first]:
            for each in [number for number in logged_ranks(run, attempt) if rank is None or number == rank]:
                yield from _news(log_file(run, attempt, each), places, f"[rank {each}] " if rank is None else "")
        if not live:
            return
        time.sleep(_LOOK_SECONDS)


def _news(path: Path, places: dict[Path, int], prefix: str) -> Iterator[str]:
    with path.open("rb") as file:
        file.seek(places.get(path, 0))
        data = file.read()
    whole, newline, _ = data.rpartition(b"\n")
    places[path] = places.get(path, 0) + len(whole) + len(newline)
    for line in (whole + newline).decode(errors="replace").splitlines(keepends=True):
        yield prefix + line


def errors(run: Path, attempt: int | None = None) -> Iterator[str]:
    """For each failed attempt (or one): the cause from the ledger, then what the culprit printed last: its traceback, else its last
    lines."""
    for row in ledger.read(ledger_file(run)):
        if row["event"] == "attempt ended" and "cause" in row and attempt in (None, row["attempt"]):
            cause = row["cause"]
            yield f"attempt {row['attempt']}: {describe(cause)}; {row['reason']}\n"
            path = log_file(run, row["attempt"], cause["rank"])
            if path.is_file():
                yield from (f"  {line}\n" for line in _end_of(path))
            if cause.get("stack") and (stack := run / cause["stack"]).is_file():
                yield from (f"  {line}\n" for line in stack.read_text(errors="replace").splitlines())


def describe(cause: dict[str, Any]) -> str:
    """A cause as the ledger keeps it, in words."""
    code = cause["code"]
    how = f"exited with {code}" if code >= 0 else f"was killed by signal {-code}"
    error = f": {cause.get('type', '')} {cause.get('message', '')}".rstrip(": ") + (f" ({cause['where']})" if cause.get("where") else "")
    return f"rank {cause['rank']} (pid {cause['pid']}) {how}{error}" + (f" at step {cause['step']}" if cause["step"] >= 0 else "")


def _end_of(path: Path) -> list[str]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 16)))
        lines = file.read().decode(errors="replace").splitlines()
    starts = [number for number, line in enumerate(lines) if "Traceback (most recent call last)" in line]
    return lines[starts[-1]:][:200] if starts else lines[-_LAST_LINES:]
