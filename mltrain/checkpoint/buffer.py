"""One snapshot buffer: anonymous shared memory (memfd) that trainer and writer both map. All that the two must agree on is in it.

    control area, 1 MiB    64-bit words (below), text of an error, then a JSON document (step, progress, plain state, where to write)
    image, page-aligned    the shard file to come: safetensors header and data

The trainer clears `sealed`, copies, writes the document, sets `sealed`. Whoever sees the flag sees all before it; whoever finds it cleared
finds nothing. A sealed snapshot is settled once `written` or `failed` equals its sequence, and only then may the buffer be used again.
"""
from __future__ import annotations

import json
import mmap
import os
from typing import Any

from mltrain.errors import ConfigError, NodeUnfit

CONTROL, _ERROR_AT, _DOCUMENT_AT = 1 << 20, 256, 4096           # bytes
_SEQUENCE, _SEALED, _BEGUN, _WRITTEN, _FAILED, _IMAGE_BYTES, _DOCUMENT_BYTES, _ERROR_BYTES = range(8)


def allocate(image_bytes: int) -> int:
    """A memfd for an image of that size, its memory reserved: what is missing is said here, not by the kernel in the middle of a copy."""
    size = CONTROL + -(-image_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
    free = _free_memory()
    if free is not None and size > free:
        raise NodeUnfit(f"a checkpoint buffer of this rank needs {size >> 20} MiB of memory, {free >> 20} MiB are free",
                        "a save keeps two copies of the rank's state in memory: use more ranks or fewer per node")
    fd = os.memfd_create("mltrain-snapshot", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        os.close(fd)
        raise NodeUnfit(f"a checkpoint buffer of {size >> 20} MiB cannot be had: {error.strerror}",
                        "is there a limit on memory or (ulimit -f) on the size of files?") from None
    return fd


def _free_memory() -> int | None:
    """Bytes that this process may still take, by the machine and by its cgroup (version 2); None where the kernel does not tell."""
    limits = []
    try:
        with open("/proc/meminfo") as file:
            limits += [int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:")]
        with open("/proc/self/cgroup") as file:
            group = "/sys/fs/cgroup" + file.read().strip().rpartition("::")[2]
        values = {}
        for name in ("max", "current", "stat"):
            with open(f"{group}/memory.{name}") as file:
                values[name] = file.read()
        cache = sum(int(line.split()[1]) for line in values["stat"].splitlines() if line.startswith(("inactive_file ", "active_file ")))
        limits.append(int(values["max"]) - int(values["current"]) + cache)
    except (OSError, ValueError):
        pass                                                    # no /proc, no cgroup v2, or "max"
    return min(limits, default=None)


class Buffer:
    """A mapped buffer. Its pages are touched on mapping: the first touch of a page costs ten times its copy."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.map = mmap.mmap(fd, 0, mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))
        self.bytes = memoryview(self.map)
        self._words = self.bytes[:64].cast("Q")                 # an aligned 8-byte store is one store; struct.pack_into is eight

    @property
    def sequence(self) -> int:
        """Number of the snapshot in here; 0 when there was none."""
        return self._words[_SEQUENCE]

    @property
    def sealed(self) -> bool:
        return bool(self._words[_SEALED])

    @property
    def settled(self) -> bool:
        return not self.sealed or self.sequence in (self._words[_WRITTEN], self._words[_FAILED])

    @property
    def begun(self) -> bool:
        """A writer has taken this snapshot up."""
        return self._words[_BEGUN] == self.sequence

    @property
    def written(self) -> bool:
        return self.sealed and self.sequence == self._words[_WRITTEN]

    @property
    def error(self) -> str:
        """Why the snapshot could not be written; empty when it was not tried or went well."""
        if not self.sealed or self._words[_FAILED] != self.sequence:
            return ""
        return bytes(self.bytes[_ERROR_AT:_ERROR_AT + self._words[_ERROR_BYTES]]).decode(errors="replace")

    @property
    def image(self) -> memoryview:
        """The shard: exactly the bytes of the file."""
        return self.bytes[CONTROL:CONTROL + self._words[_IMAGE_BYTES]]

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(bytes(self.bytes[_DOCUMENT_AT:_DOCUMENT_AT + self._words[_DOCUMENT_BYTES]]))
        return document

    def open(self) -> None:
        """From here on the buffer holds nothing, until it is sealed."""
        self._words[_SEALED] = 0

    def seal(self, sequence: int, image_bytes: int, document: bytes) -> None:
        """The flag comes last (x86 keeps the order of stores; elsewhere the system call that rings the writer is the barrier)."""
        self.bytes[_DOCUMENT_AT:_DOCUMENT_AT + len(document)] = document
        self._words[_DOCUMENT_BYTES], self._words[_IMAGE_BYTES], self._words[_SEQUENCE] = len(document), image_bytes, sequence
        self._words[_SEALED] = 1

    def mark_begun(self) -> None:
        self._words[_BEGUN] = self.sequence

    def mark_written(self) -> None:
        self._words[_WRITTEN] = self.sequence

    def mark_failed(self, error: str) -> None:
        text = error.encode()[:_DOCUMENT_AT - _ERROR_AT]
        self.bytes[_ERROR_AT:_ERROR_AT + len(text)] = text
        self._words[_ERROR_BYTES], self._words[_FAILED] = len(text), self.sequence

    def try_again(self) -> None:
        """A failed snapshot counts as sealed and not yet settled."""
        self._words[_FAILED] = 0


def encode_document(document: dict[str, Any]) -> bytes:
    """The control area's JSON. Raises ConfigError when the plain state in it is no JSON or too large."""
    try:
        text = json.dumps(document).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"checkpoint: the plain state is no JSON: {error}",
                          "use dicts with string keys, lists, numbers, strings, booleans, None") from None
    if len(text) > CONTROL - _DOCUMENT_AT:
        raise ConfigError(f"checkpoint: the plain state has {len(text)} bytes of JSON, {CONTROL - _DOCUMENT_AT} fit",
                          "large states belong into tensors")
    return text
