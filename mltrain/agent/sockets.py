"""The TCP sockets of another process, from /proc, and the end of its connections: no packet filter and no root is needed, only the right
to look into that process (ptrace).

`cut` takes hold of the process's own sockets (pidfd_getfd) and shuts them down: both ends see what they would see of a peer whose host
closed everything.
"""
from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PIDFD_GETFD = 438                             # the same number on every architecture; Linux 5.6
_ESTABLISHED, _LISTENING = "01", "0A"


def connected(pid: int) -> list[int]:
    """Its descriptors of established TCP connections."""
    return _descriptors(pid, _ESTABLISHED)


def listens(pid: int) -> bool:
    """Does it hold a listening TCP socket?"""
    return bool(_descriptors(pid, _LISTENING))


def may_take(pidfd: int) -> bool:
    """May this user take hold of that process's descriptors?"""
    try:
        os.close(_take(pidfd, 0))
    except OSError:
        return False
    return True


def cut(pid: int, pidfd: int) -> int:
    """Shut all its connections down, in both directions; how many they were. Raises PermissionError."""
    count = 0
    for fd in connected(pid):
        try:
            taken = _take(pidfd, fd)
        except PermissionError:
            raise
        except OSError:                                        # closed meanwhile
            continue
        with socket.socket(fileno=taken) as connection, suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
            count += 1
    return count


def shut_own() -> None:
    """The same for this process, from a thread beside the one that waits on them."""
    for fd in connected(os.getpid()):
        with suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:            # closed meanwhile, or another file by now
            connection.shutdown(socket.SHUT_RDWR)


def _take(pidfd: int, fd: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    taken: int = libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
    if taken < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return taken


def _descriptors(pid: int, state: str) -> list[int]:
    inodes = set(_inodes(pid, state))
    found = []
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}")[8:-1] in inodes:      # socket:[NUMBER]
                    found.append(int(name))
    return found


def _inodes(pid: int, state: str) -> Iterator[str]:
    """Of all TCP sockets in that state in the process's network."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == state:
                    yield fields[9]
