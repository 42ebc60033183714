"""status.json: how far a run is, replaced atomically about once a second by its agent, and read without touching anything else.

States: queued running stopped (saved, resumable) done failed cancelled, and lost, which nobody writes: the reader derives it when a run
says it is running but its agent is gone.
"""
from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from types import NoneType
from typing import Any

from mltrain.errors import DataError, NodeUnfit, StorageError
from mltrain.runs import ledger
from mltrain.runs.atomic import write_json
from mltrain.runs.layout import config_file, ledger_file, name_of, status_file
from mltrain.runs.lease import STALE_SECONDS, is_live
from mltrain.trust.digest import plain
from mltrain.trust.redact import redact_data

LIVE_STATES, ENDED_STATES = ("queued", "running"), ("done", "failed", "cancelled", "stopped")
FRESH_SECONDS = 3.0      # agents beat once a second: an older beat of a process that is gone means that the run is lost
Status = dict[str, Any]
_MAYBE = (int, float, NoneType)
_KINDS: dict[str, tuple[Any, object]] = {        # what readers rely on: kind, and what stands for an absent one
    "state": (str, ""), "step": (int, 0), "steps": ((int, NoneType), None), "samples": (int, 0), "tokens": (int, 0), "attempts": (int, 0),
    "loss": (_MAYBE, None), "started": (_MAYBE, None), "ended": (_MAYBE, None), "goodput": (_MAYBE, None),
    "spent": (dict, {}), "account": (dict, {}), "stragglers": (list, []), "host": (str, ""),
    "pid": (int, 0), "beat": (_MAYBE, 0), "ranks": (list, []), "code": ((int, NoneType), None), "reason": (str, ""),
}


def new_status(run: Path, launcher: str = "local", steps: int | None = None, **fields: object) -> Status:
    """What is known of a run that has not started. steps: how many it is to make; None if nobody knows."""
    status: Status = {
        "id": run.name, "name": name_of(run), "state": "queued", "step": 0, "steps": steps, "samples": 0, "tokens": 0, "loss": None,
        "attempts": 0, "launcher": launcher, "directory": str(run.absolute()), "started": None, "ended": None, "goodput": None,
        "host": socket.gethostname(), "pid": os.getpid(), "beat": round(time.time(), 3)}
    return {**status, **fields}


def write_status(run: Path, status: Status, *, durable: bool = False) -> None:
    """Replace status.json. durable: survive a power cut too (for the last word of a run; not once a second)."""
    value = redact_data(plain(status))
    assert isinstance(value, dict)
    if isinstance(value.get("loss"), str):                     # nan and inf: JSON has no number for them
        value["loss"] = None
    write_json(status_file(run), value, durable=durable)


def last_status(run: Path) -> Status:
    """status.json as written, or what can be said without one. Raises DataError (65) if it is damaged."""
    path = status_file(run)
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return new_status(run, steps=_steps(run), beat=path.parent.stat().st_mtime, pid=0)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}", "is it yours, is the disk there?") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not _is_right(value):
        raise DataError(f"{path}: not the status of a run", f"mltrain resume {run.name} writes it anew")
    here = {"id": run.name, "name": name_of(run), "directory": str(run.absolute())}      # a folder may have been moved or copied
    return {**new_status(run), **value, **here}


def _is_right(value: Status) -> bool:
    kinds = all(isinstance(value.get(name, usual), kind) for name, (kind, usual) in _KINDS.items())
    return kinds and value.get("state", "queued") in (*LIVE_STATES, *ENDED_STATES) and all(
        isinstance(rank, dict) and {"rank", "host", "pid", "phase", "step"} <= rank.keys() for rank in value.get("ranks", []))


def read_status(run: Path) -> Status:
    """The same, with the state a reader should believe: `lost` when the run says it lives, but its pulse is old and its agent gone."""
    status = last_status(run)
    if status["state"] in LIVE_STATES and _is_lost(run, status):
        status["state"] = "lost"
    return status


def restored_status(run: Path) -> Status:
    """The same for whoever is about to act on the run: a damaged status.json is first written anew, from the ledger."""
    try:
        return read_status(run)
    except DataError:
        rows = ledger.read(ledger_file(run))
    last = next((row for row in reversed(rows) if row["event"] in (*ENDED_STATES, "attempt started")), {})
    ended = last.get("event") in ENDED_STATES
    status = new_status(run, steps=_steps(run), attempts=ledger.attempts(ledger_file(run)), pid=0, beat=0.0)
    status["state"] = last["event"] if ended else "running" if last else "queued"
    if ended:
        status.update(step=last.get("step") or 0, code=last.get("code"), reason=last.get("reason", ""), ended=last["time"])
    write_status(run, status, durable=True)
    return read_status(run)


def brief(run: Path) -> Status:
    """The same without the ranks, for a list of runs; a damaged one does not hide the others."""
    try:
        status = read_status(run)
    except (DataError, StorageError) as error:
        return {**new_status(run), "state": "lost", "reason": error.message}
    return {key: value for key, value in status.items() if key not in ("ranks", "account")}


def wait(run: Path, limit: float) -> Status:
    """Until no agent holds the run any more. Raises NodeUnfit (69) after `limit` seconds."""
    give_up = time.monotonic() + limit
    while is_live(run):
        if time.monotonic() > give_up:
            raise NodeUnfit(f"{run.name} has not ended within {limit:.0f} s", f"it was asked to; see mltrain logs {run.name} -f")
        time.sleep(0.02)
    status = last_status(run)
    return {**status, "state": "lost"} if status["state"] in LIVE_STATES else status


def _is_lost(run: Path, status: Status) -> bool:
    age = time.time() - float(status["beat"] or 0)
    if status["host"] != socket.gethostname():
        return age > STALE_SECONDS
    return age > FRESH_SECONDS and not is_live(run) and not pid_lives(int(status["pid"]))


def pid_lives(pid: int) -> bool:
    """Does this process run here (a zombie does not)?"""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _steps(run: Path) -> int | None:
    """The number of steps that the run's own configuration names."""
    try:
        steps = json.loads(config_file(run).read_text())["tree"]["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return steps if isinstance(steps, int) else None
