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
from typing import Any

from mltrain.errors import DataError, NodeUnfit
from mltrain.runs.atomic import write_json
from mltrain.runs.layout import config_file, name_of, status_file
from mltrain.runs.lease import STALE_SECONDS, is_live
from mltrain.trust.digest import plain
from mltrain.trust.redact import redact_data

LIVE_STATES, ENDED_STATES = ("queued", "running"), ("done", "failed", "cancelled", "stopped")
FRESH_SECONDS = 3.0      # agents beat once a second: an older beat of a process that is gone means that the run is lost
Status = dict[str, Any]


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
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return new_status(run, steps=_steps(run), beat=path.parent.stat().st_mtime, pid=0)
    except (ValueError, UnicodeDecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DataError(f"{path}: not the status of a run", "mltrain resume RUN writes it anew")
    return {**new_status(run), **value}


def read_status(run: Path) -> Status:
    """The same, with the state a reader should believe: `lost` when the run says it lives, but its pulse is old and its agent gone."""
    status = last_status(run)
    if status["state"] in LIVE_STATES and _is_lost(run, status):
        status["state"] = "lost"
    return status


def brief(run: Path) -> Status:
    """The same without the ranks, for a list of runs; a damaged one does not hide the others."""
    try:
        status = read_status(run)
    except DataError as error:
        return {**new_status(run), "state": "lost", "reason": error.message}
    return {key: value for key, value in status.items() if key != "ranks"}


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
