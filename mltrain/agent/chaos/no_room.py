"""A full disk, for a while, made from outside without root.

On a small file system of its own (at most a gigabyte, neither the root's nor that of temporary files) a file without a name takes all that
is free, to the last byte: ENOSPC for everybody there. Elsewhere others would suffer, so the processes that write may not make a file
grow (RLIMIT_FSIZE by prlimit): EFBIG, for them alone.
"""
from __future__ import annotations

import errno
import os
import resource
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SMALL_BYTES, _LARGEST_PIECE = 1 << 30, 1 << 28


def is_small(folder: Path) -> bool:
    """Is this a file system that may be filled?"""
    size, shared = os.statvfs(folder), {os.stat("/").st_dev, os.stat(tempfile.gettempdir()).st_dev}
    return size.f_blocks * size.f_frsize <= _SMALL_BYTES and os.stat(folder).st_dev not in shared


@contextmanager
def no_room(folder: Path, writers: Iterable[int]) -> Iterator[Callable[[], None]]:
    """Within the block there is none: in `folder` if it is small, else for these processes. Gives a function that takes what has become
    free meanwhile."""
    if is_small(folder):
        with tempfile.TemporaryFile(dir=folder) as ballast:    # it has no name: it goes with us, however we end
            _fill(ballast.fileno())
            yield lambda: _fill(ballast.fileno())
        return
    before: dict[int, tuple[int, int]] = {}
    try:
        for pid in writers:
            with suppress(ProcessLookupError):
                before[pid] = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[pid][1]))
        yield lambda: None
    finally:
        for pid, limits in before.items():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def _fill(fd: int) -> None:
    """To the last byte."""
    size, piece = os.fstat(fd).st_size, _LARGEST_PIECE
    while piece:
        try:
            os.posix_fallocate(fd, size, piece)
            size += piece
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            piece //= 2
