"""The faults that `mltrain chaos` makes, each of them real, each from outside:

    kill     SIGKILL to a rank                        exit     a rank that beats leaves with exit code 1, 3 or 99 at its next beat
    stop     SIGSTOP: a hang                          slow     a rank has about half of the time for four seconds
    disk     no room for checkpoints (`no_room.py`)   network  a rank's connections are shut (`../sockets.py`)
    store    SIGKILL to the process that serves the attempt's store
    corrupt  one bit of the newest checkpoint is turned, and a rank killed, so that it is read; and the writers, so that it is the newest

A process is held by a pidfd, and must be a child of the run's agent: no other is ever hit.
"""
from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mltrain.agent import sockets
from mltrain.agent.chaos.no_room import is_small, no_room
from mltrain.agent.processes import descendants
from mltrain.errors import NodeUnfit, UsageError
from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file
from mltrain.runs.lease import is_live, read_lease
from mltrain.runs.outcome import pid_lives
from mltrain.runs.pulse import Page, page_of

KINDS = ("kill", "stop", "exit", "slow", "disk", "network", "store", "corrupt")
EXIT_CODES = (1, 3, 99)
ENDS = ("kill", "stop", "exit", "network", "corrupt")          # what brings the next attempt about
_SLOW_SECONDS, _SLICE_SECONDS, _FULL_SECONDS, _LOOK_SECONDS = 4.0, (0.02, 0.2), 12.0, 0.05
_GONE_SECONDS = 0.5      # of a killed writer; not so long that the run sees a hang
_WRITER = "mltrain.checkpoint.writer"
Checkpoints = Callable[[], Sequence[Sequence[Path]]]           # the files of each whole one, oldest first


@dataclass(frozen=True, slots=True)
class Victim:
    """A rank and what is around it. ranks: pid of each of them. checkpoints: None where nobody knows of any. draw: for what is left to
    chance."""

    run: Path
    rank: int
    pid: int
    ranks: dict[int, int]
    checkpoints: Checkpoints | None
    draw: random.Random
    code: int = 1


def agents_child(run: Path, pid: int) -> bool:
    holder = read_lease(run)
    return holder is not None and _parent(pid) == holder.pid


def check(kinds: Iterable[str], victim: Victim) -> None:
    """Before anything is done: can these be made here? Raises UsageError (64) where the run has not what it takes, NodeUnfit (69) where
    this machine or user has not."""
    for kind in kinds:
        if kind == "exit" and not _beats(victim.pid):
            raise UsageError("exit: this run's script does not beat, so no rank can be told to leave", "leave exit out of --faults")
        if kind == "network":
            with _held(victim.pid) as pidfd:
                if pidfd >= 0 and not sockets.may_take(pidfd):
                    raise NodeUnfit("network: this user may not take hold of another process's connections",
                                    "as root, or with kernel.yama.ptrace_scope=0; or leave network out of --faults")
            if not sockets.connected(victim.pid):
                raise UsageError("network: the ranks of this run have no connections", "leave network out of --faults")
        if kind == "store" and not _store(victim):
            raise UsageError("store: this run has no store process (its ranks meet through a file)", "leave store out of --faults")
        if kind == "corrupt" and victim.checkpoints is None:
            raise UsageError("corrupt: this run has no checkpoints of ours in a folder", "leave corrupt out of --faults")


def wanting(kind: str, victim: Victim) -> bool:
    """Must this fault wait? For a writer that can fail; for two checkpoints, so that one is left."""
    if kind == "disk" and victim.checkpoints is not None:
        return not is_small(victim.run) and not _writers(victim)
    if kind == "corrupt" and victim.checkpoints is not None:
        return len(victim.checkpoints()) < 2
    return False


def make(kind: str, victim: Victim) -> str:
    """Makes one fault; what it was, "" if its process had just ended."""
    who = f"{kind} rank {victim.rank} (pid {victim.pid})"
    if kind == "disk":
        return f"disk: {_disk(victim)}"
    if kind == "store":
        return _kill_store(victim)
    with _held(victim.pid) as pidfd, suppress(ProcessLookupError):
        if pidfd < 0 or not agents_child(victim.run, victim.pid):
            return ""
        if kind == "exit":
            _order_exit(victim)
            return f"{who} with {victim.code}"
        if kind == "network":
            count = sockets.cut(victim.pid, pidfd)
            return f"{who}: {count} connection{'s' * (count != 1)} shut"
        if kind == "slow":
            _slow(pidfd, victim.draw)
            return who
        if kind == "corrupt":
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)    # from here on nobody can save a newer one
            _end_writers(victim)
            where = _turn_a_bit(victim)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return f"corrupt: {where}; killed rank {victim.rank} (pid {victim.pid})"
        signal.pidfd_send_signal(pidfd, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        return who
    return ""


@contextmanager
def _held(pid: int) -> Iterator[int]:
    """A pidfd, -1 if it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        yield -1
        return
    try:
        yield pidfd
    finally:
        os.close(pidfd)


@contextmanager
def page(pid: int) -> Iterator[Page | None]:
    found = page_of(pid)
    try:
        yield found
    finally:
        if found:
            found.close()


def _beats(pid: int) -> bool:
    with page(pid) as found:
        return found is not None and bool(found.read().beats)


def _order_exit(victim: Victim) -> None:
    with page(victim.pid) as found:
        if found:
            found.order_exit(victim.code)


def _slow(pidfd: int, draw: random.Random) -> None:
    """In slices of unequal length: equal ones could fall in step with whoever looks now and then, who would see a stopped process."""
    end = time.monotonic() + _SLOW_SECONDS
    while time.monotonic() < end:
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
            time.sleep(draw.uniform(*_SLICE_SECONDS))
        finally:
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        time.sleep(draw.uniform(*_SLICE_SECONDS))


def _disk(victim: Victim) -> str:
    """Until a save has failed, at most for a while."""
    path, end = ledger_file(victim.run), time.monotonic() + _FULL_SECONDS
    failed, before = _failed_saves(path), time.monotonic()
    with no_room(victim.run, _writers(victim)) as again:
        while is_live(victim.run) and time.monotonic() < end and _failed_saves(path) == failed:
            time.sleep(_LOOK_SECONDS)
            again()
    how = "filled to the last byte" if is_small(victim.run) else "its writers could write nothing"
    return f"{how} for {time.monotonic() - before:.1f} s"


def _failed_saves(path: Path) -> int:
    return sum(row["event"] == "save failed" for row in ledger.read(path))


def _writers(victim: Victim) -> list[int]:
    """Those of our checkpoints; of other scripts the ranks themselves."""
    if victim.checkpoints is None:
        return [*victim.ranks.values()]
    return [child for pid in victim.ranks.values() for child in descendants(pid) if _WRITER in _command(child)]


def _store(victim: Victim) -> int:
    """Pid of the process that serves the attempt's store: a child of the agent that listens and is no rank. 0: there is none."""
    holder = read_lease(victim.run)
    children = descendants(holder.pid) if holder else ()
    mine = (pid for pid in children if pid not in victim.ranks.values() and agents_child(victim.run, pid))
    return next((pid for pid in mine if sockets.listens(pid)), 0)


def _kill_store(victim: Victim) -> str:
    pid = _store(victim)
    with _held(pid) as pidfd, suppress(ProcessLookupError):
        if pid and pidfd >= 0 and agents_child(victim.run, pid):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return f"store (pid {pid}) killed"
    return ""


def _end_writers(victim: Victim) -> None:
    """What is still on its way to the disk, or tried again, would be a newer checkpoint, and hide the damaged one."""
    pids = _writers(victim)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + _GONE_SECONDS
    while any(map(pid_lives, pids)) and time.monotonic() < end:
        time.sleep(0.001)


def _turn_a_bit(victim: Victim) -> str:
    assert victim.checkpoints is not None
    path = victim.draw.choice(list(victim.checkpoints()[-1]))
    with path.open("r+b") as file:
        at = victim.draw.randrange(os.fstat(file.fileno()).st_size)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << victim.draw.randrange(8)]))
    return f"a bit of byte {at} of {path.parent.name}/{path.name} turned"


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
