"""A folder whose file system does not answer, like that of a server that is gone: whoever touches what is in it waits in the kernel, and
after SIGKILL waits uninterruptibly (state D). Needs /dev/fuse and the right to mount; the kernel is the only other party."""
from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_INIT, _NODEV, _NOSUID, _FORCE, _DETACH = 26, 4, 2, 1, 2


@contextmanager
def stalled(folder: Path) -> Iterator[bool]:
    """Whoever waits there is let go at the end. False: nothing may be mounted here, the folder is an ordinary one."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder.mkdir()
    try:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    options = f"fd={fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}".encode()
    if libc.mount(b"stalled", os.fsencode(folder), b"fuse", _NODEV | _NOSUID, options) != 0:
        os.close(fd)
        yield False
        return
    thread = threading.Thread(target=_swallow, args=(fd,), daemon=True)
    thread.start()
    try:
        yield True
    finally:
        libc.umount2(os.fsencode(folder), _FORCE | _DETACH)    # ends the connection, and every wait with it
        thread.join(20)
        os.close(fd)


def _swallow(fd: int) -> None:
    """Greet the kernel, then take every request and answer none."""
    while True:
        try:
            request = os.read(fd, 1 << 17)
        except OSError:                                        # unmounted
            return
        _, operation, number, _ = struct.unpack("<IIQQ", request[:24])
        if operation == _INIT:
            answer = struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 0, 0, 1 << 16, 1, 0, 0, 0)
            os.write(fd, struct.pack("<IiQ", 16 + len(answer), 0, number) + answer)
