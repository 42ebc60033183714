"""What the kernel tells about a process: its state, the processor time that it and its descendants have used; and whether memory ran
out."""
from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Process:
    """state: one letter of /proc/PID/stat (R running, S sleeping, D uninterruptible wait, T stopped). cpu: seconds of processor time, of
    its descendants too. own: of the process alone."""

    state: str
    cpu: float
    own: float


def look(pid: int) -> Process | None:
    """None when it is gone. 10 us a process."""
    found = _stat(pid)
    if found is None:
        return None
    state, own, waited = found
    below = sum(each[1] + each[2] for child in descendants(pid) if (each := _stat(child)))
    return Process(state, own + waited + below, own)


def starved(pid: int) -> float:
    """Seconds in which its first thread could run and had no processor; 0 where the kernel does not count them."""
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def waits_in(pid: int) -> str:
    """The kernel function a process sleeps in; "" if unknown."""
    try:
        name = Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return ""
    return name if name != "0" else ""


def _stat(pid: int) -> tuple[str, float, float] | None:
    """(state, seconds of its own, seconds of children it has waited for)"""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()       # the name before it may contain anything
    except OSError:
        return None
    user, system, child_user, child_system = map(int, fields[11:15])
    return fields[0].decode(), (user + system) / _TICKS, (child_user + child_system) / _TICKS


def descendants(pid: int) -> Iterator[int]:
    """Children, and theirs."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:                                            # ended meanwhile, or a kernel that does not tell
            continue
        for child in children:
            yield child
            yield from descendants(child)


def memory_kills() -> int:
    """How often the kernel has ended a process for want of memory: in our control group if it counts them, else on this machine."""
    for file in (*_counters(), Path("/proc/vmstat")):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return 0


def _counters() -> Iterator[Path]:
    """Where our control group counts: version 2 (0::/path), then version 1 (N:memory:/path)."""
    try:
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for number, controllers, path in groups:
        if number == "0":
            yield _CGROUPS / path.lstrip("/") / "memory.events"
        elif controllers == "memory":
            yield _CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control"
