"""One live attempt a run: whoever holds the lock on RUN/lease.json may start workers. The kernel drops the lock when its holder
dies, however it dies; between hosts that do not share locks the heartbeat inside the file decides."""
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mltrain.errors import StorageError, UsageError
from mltrain.runs.atomic import FILE_MODE

STALE_SECONDS = 30.0     # a holder on another host that has not beaten for so long is dead (its agents fence themselves long before)
_WIDTH = 512             # the file has one size, so that a beat is a single write in place: a rename would leave the lock behind


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a run: host, process, attempt number, and when it last said so (seconds since 1970)."""

    host: str
    pid: int
    attempt: int
    beat: float


class Lease:
    """Held by the agent from its first to its last moment. Children do not inherit it (the descriptor closes on exec)."""

    def __init__(self, run: Path) -> None:
        self.path, self._fd, self._attempt, self._locked = run / "lease.json", -1, 0, False

    def acquire(self, attempt: int = 0, *, force: bool = False) -> None:
        """Take it, or raise UsageError (64) naming the holder. A dead holder's lease is taken over. force: whoever holds it; agents of
        several nodes have other means to know that its holder is done (agent/hosts/shared.py)."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}", "the run directory must be writable") from None
        run = self.path.parent
        holder = read_lease(run)
        self._locked = _lock(fd)
        if not self._locked and not force:
            os.close(fd)
            raise UsageError(f"{run.name} is live already ({describe(holder)})", "follow it with: mltrain logs RUN -f") from None
        if not force and holder and holder.host != socket.gethostname() and time.time() - holder.beat < STALE_SECONDS:
            os.close(fd)
            hint = f"if that host is gone, wait {STALE_SECONDS:.0f} s"
            raise UsageError(f"{run.name} is live already ({describe(holder)})", hint)
        with contextlib.suppress(OSError):                     # a file system without owners
            os.fchmod(fd, FILE_MODE)
        self._fd = fd
        try:
            self.beat(attempt)
        except OSError as error:
            self.release()
            if not self.path.stat().st_size:                   # ours, and of no use to anybody; so may be its folder
                self.path.unlink()
                with contextlib.suppress(OSError):
                    run.rmdir()
            raise StorageError(f"{self.path}: cannot be written: {error.strerror}", "is the disk full?") from None

    def beat(self, attempt: int | None = None) -> None:
        """Say that the holder lives; cheap enough for once a second."""
        self._attempt = self._attempt if attempt is None else attempt
        text = json.dumps(asdict(Holder(socket.gethostname(), os.getpid(), self._attempt, round(time.time(), 3))))
        self._locked = self._locked or _lock(self._fd)         # taken by force: as soon as the other lets go of it
        os.pwrite(self._fd, text.encode().ljust(_WIDTH - 1) + b"\n", 0)

    def abandon(self) -> None:
        """Let go of a lease that another has taken by force: its words stay."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def release(self) -> None:
        """Give it back: the next holder need not wait, on whatever host it is."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):                 # a full disk; the lock goes with the descriptor anyway
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def read_lease(run: Path) -> Holder | None:
    """Who last held the run, None if nobody does by the file's own word.
    Says nothing about whether that process still lives: see `is_live`."""
    for _ in range(3):                                         # a reader may fall into the middle of a beat
        try:
            values = json.loads((run / "lease.json").read_text() or "null")
            return Holder(**values) if values else None
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, OSError):
            time.sleep(0.002)
    return None


def is_live(run: Path) -> bool:
    """Does an agent hold this run now? On its own host the lock decides, from elsewhere the age of its beat."""
    holder = read_lease(run)
    if holder is None:
        return False
    if holder.host != socket.gethostname():
        return time.time() - holder.beat < STALE_SECONDS
    try:
        fd = os.open(run / "lease.json", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


def describe(holder: Holder | None) -> str:
    return f"attempt {holder.attempt}, process {holder.pid} on {holder.host}" if holder else "by a process that has not yet said its name"
