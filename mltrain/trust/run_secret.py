"""The secret of one run: a file (mode 0600, at least 32 bytes) that every node of the run can read and nobody else. Agents prove to each
other that they hold it (`agent/hosts/link.py`); it is never sent."""
from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from mltrain.errors import ConfigError, StorageError
from mltrain.trust.redact import register

LEAST_BYTES, MOST_BYTES = 32, 65536


def make_secret(path: Path) -> None:
    """A new secret at `path`, for its owner alone. Raises ConfigError (78) if something is there already, StorageError (74)."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path} exists already", "a run's secret is never replaced: use it, or name another file") from None
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}", "the run's secret must be written there") from None
    with os.fdopen(fd, "wb") as file:
        file.write(secrets.token_hex(32).encode())         # text, so that it can be pasted and redacted
        file.flush()
        os.fsync(fd)


def read_secret(path: Path) -> bytes:
    """All of the file, as it is. Raises ConfigError (78) if it is missing, no plain file, open to others, or too short to be a secret.
    Its content is never in the message."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)     # never waits for the writer of a named pipe
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "name the file of the run's secret: the same on every node, mode 0600") from None
    try:
        found = os.fstat(fd)                                # of what was opened: the name may mean another file by now
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{path} is not a plain file", "name the file of the run's secret: the same on every node, mode 0600")
        if found.st_mode & 0o077:
            raise ConfigError(f"{path} may be read by others (mode {found.st_mode & 0o777:04o})", f"chmod 600 {path}")
        secret = os.read(fd, MOST_BYTES + 1)
    finally:
        os.close(fd)
    if not LEAST_BYTES <= len(secret) <= MOST_BYTES:
        raise ConfigError(f"{path}: {min(len(secret), MOST_BYTES + 1)} bytes are no secret of a run",
                          f"from {LEAST_BYTES} to {MOST_BYTES} random bytes, the same on every node: openssl rand -hex 32")
    if secret.isascii():
        register(secret.decode().strip())
    return secret
