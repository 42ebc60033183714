"""Looks at a machine that cost milliseconds: memory, room for temporary files, the run's file system and its clock, the devices.

Bad is what belongs to this machine and keeps any worker from running on it; then another machine is better. A run's own file system is
shared: that it is full is told, and is no machine's fault.
"""
from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mltrain.errors import NodeUnfit
from mltrain.health.finding import Finding
from mltrain.health.gpus import Gpus

MEMORY_BYTES = 128 << 20             # a worker that has imported torch and has no model yet
TEMPORARY_BYTES, RUN_BYTES = 16 << 20, 64 << 20
SKEW_SECONDS, LARGE_SKEW_SECONDS = 2.0, 15.0     # of 30 s after which another host's lease counts as dead (runs/lease.py)
_MIB, _GIB = 1 << 20, 1 << 30


def look(run: Path | None, workers: int, gpus: Gpus) -> list[Finding]:
    """Everything; what is as it should be, too."""
    findings = [memory(workers), *temporary()]
    if run is not None:
        findings += [room(run), *clock(run)]
    return [*findings, *gpus.look()]


def memory(workers: int) -> Finding:
    free, limits = available()
    text, least = f"{_amount(free)} free{limits}", MEMORY_BYTES * max(workers, 1)
    if free < least:
        return Finding("memory", "bad", f"{text}; {workers} workers need {_amount(least)} before they have a model",
                       "something else holds it: look at `ps aux --sort -rss`", NodeUnfit.code)
    return Finding("memory", "ok", text)


def available() -> tuple[int, str]:
    """Bytes that processes could have, and what limits them: the machine, or a control group of ours."""
    free, limits = _available_here(), ""
    for folder in _groups():
        if (limit := _number(folder / "memory.max")) is None or (used := _number(folder / "memory.current")) is None:
            continue
        left = limit - used + _reclaimable(folder)
        if left < free:
            free, limits = left, f" of {_amount(limit)} that the control group may have"
    return max(free, 0), limits


def _available_here() -> int:
    with contextlib.suppress(OSError), open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 1 << 62                                             # not this kind of machine


def _groups(root: Path = Path("/sys/fs/cgroup")) -> Iterator[Path]:
    """Our control group and those above it (version 2)."""
    try:
        own = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), None)
    except OSError:
        return
    if own is not None:
        folder = root / own.strip("/")
        while folder != root and root in folder.parents:
            yield folder
            folder = folder.parent
        yield root


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _reclaimable(folder: Path) -> int:
    """The page cache that counts as used."""
    with contextlib.suppress(OSError):
        for line in (folder / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                return int(line.split()[1])
    return 0


def temporary() -> list[Finding]:
    """Where stores, compilers and libraries put their files."""
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError as error:
        return [Finding("temporary files", "bad", str(error.strerror or error), "set TMPDIR to a folder with room", NodeUnfit.code)]
    found = _room(Path(folder), TEMPORARY_BYTES, "temporary files")
    if found.state != "ok":
        return [Finding(found.name, "bad", found.value, f"clear {folder}, or set TMPDIR to a folder with room", NodeUnfit.code)]
    return [found]


def room(run: Path) -> Finding:
    """Shared by all nodes: a warning."""
    return _room(run, RUN_BYTES, "room for the run")


def _room(folder: Path, least: int, name: str) -> Finding:
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return Finding(name, "warn", f"{folder}: {error.strerror}", "is it mounted?")
    free = found.f_bavail * found.f_frsize
    if found.f_files and not found.f_favail:
        return Finding(name, "warn", f"{folder} has no inodes left", "remove files")
    text = f"{_amount(free)} free in {folder}"
    return Finding(name, "warn", text, "make room: what cannot be written waits") if free < least else Finding(name, "ok", text)


def clock(run: Path, now: Callable[[], float] = time.time) -> list[Finding]:
    """Ours against that of the run's file system, which all nodes share: on a network file system the server's. A new file says what time
    it is there. Nothing where no file can be made."""
    path = run / f".clock-{socket.gethostname()}-{secrets.token_hex(4)}"
    try:
        before = now()
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            theirs, after = os.fstat(fd).st_mtime, now()
        finally:
            os.close(fd)
            path.unlink()
    except OSError:
        return []
    skew = before - theirs if theirs < before else after - theirs if theirs > after else 0.0
    skew = 0.0 if abs(skew) < 1.0 else skew                    # some file systems count in whole seconds
    text = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the clock of {run}" if skew else f"that of {run}"
    hint = "set the clock: chronyc makestep, or timedatectl set-ntp true"
    if abs(skew) > LARGE_SKEW_SECONDS:
        return [Finding("clock", "bad", text, hint, NodeUnfit.code)]
    return [Finding("clock", "warn", text, hint) if abs(skew) > SKEW_SECONDS else Finding("clock", "ok", text)]


def _amount(count: float) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"
