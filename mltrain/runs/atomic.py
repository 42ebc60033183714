"""Files that are never half written: a temporary file beside the target, fsync, rename, fsync of the folder.
Mode 0640 whatever the umask."""
from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from mltrain.errors import StorageError

FILE_MODE, FOLDER_MODE = 0o640, 0o750


def write_bytes(path: Path, data: bytes, *, mode: int = FILE_MODE, durable: bool = True) -> None:
    """Replace path by data in one move. durable=False skips the fsyncs (for a file that is rewritten every second)."""
    temporary = None
    try:
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}", "is the disk full, or the folder read-only?") from None
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_text(path: Path, text: str, *, mode: int = FILE_MODE, durable: bool = True) -> None:
    write_bytes(path, text.encode("utf-8", "backslashreplace"), mode=mode, durable=durable)


def write_json(path: Path, value: object, *, mode: int = FILE_MODE, durable: bool = True) -> None:
    """value: plain data; numbers JSON cannot hold must be gone by now (`trust.digest.plain`)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", mode=mode, durable=durable)


def sync_folder(path: Path) -> None:
    """Make a rename or a new name in this folder survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
