"""Where a dataset's files come from: a local folder (files are mapped) or any fsspec URL (files are read into memory of the same kind).

    Store("data/stdlib").map("train-00000.arrow")     an mmap either way: page-aligned, unmapped when nobody holds it
"""
from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mltrain.errors import DataError, MissingInput, StorageError, UsageError
from mltrain.extras import require

_CLIENTS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
_BLOCK = 16 << 20


class Store:
    """A folder of read-only files. path: a local path, file://..., or a URL whose scheme fsspec knows."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path).removeprefix("file://")
        self.filesystem: Any = None
        if "://" in self.path:
            self.filesystem, self.root = _remote(self.path)
        else:
            self.root = os.path.expanduser(self.path)

    def where(self, name: str) -> str:
        """For messages."""
        return f"{self.path.rstrip('/')}/{name}"

    def exists(self, name: str = "") -> bool:
        if self.filesystem is None:
            return os.path.exists(os.path.join(self.root, name))
        with self._errors(name):
            return bool(self.filesystem.exists(self._key(name)))

    def read(self, name: str, limit: int) -> bytes:
        """The whole file. Raises DataError if it is longer than limit bytes."""
        with self._errors(name), self._open(name) as file:
            content: bytes = file.read(limit + 1)
        if len(content) > limit:
            raise DataError(f"{self.where(name)} is longer than the {limit} bytes such a file may have")
        return content

    def size(self, name: str) -> int:
        with self._errors(name):
            if self.filesystem is None:
                return os.stat(os.path.join(self.root, name)).st_size
            return int(self.filesystem.size(self._key(name)))

    def map(self, name: str, size: int) -> mmap.mmap:
        """The file's bytes, read-only where it is local. size > 0: what it must have, else DataError."""
        actual = self.size(name)
        if actual != size or not size:
            raise DataError(f"{self.where(name)} has {actual} bytes, the manifest says {size}: truncated or replaced",
                            "copy it again, or prepare the dataset again")
        with self._errors(name), self._open(name) as file:
            if self.filesystem is None:
                return _map(file.fileno(), size)
            memory = mmap.mmap(-1, size)
            view, at = memoryview(memory), 0
            while at < size and (count := file.readinto(view[at:at + _BLOCK])):
                at += count
            view.release()
        if at < size:
            raise StorageError(f"{self.where(name)} ended after {at} of {size} bytes")
        return memory

    def _open(self, name: str) -> Any:
        """A binary file. Any: what fsspec's backends return has no common type."""
        return open(os.path.join(self.root, name), "rb") if self.filesystem is None else self.filesystem.open(self._key(name), "rb")

    def _key(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise MissingInput(f"{self.where(name)} is not there") from None
        except PermissionError as error:
            raise MissingInput(f"{self.where(name)} cannot be read: {error.strerror or error}") from None
        except IsADirectoryError:
            raise DataError(f"{self.where(name)} is a folder, not a file") from None
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.where(name)} cannot be read: {error}") from None


def _map(descriptor: int, size: int) -> mmap.mmap:
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, size, prot=mmap.PROT_READ, trackfd=False)
    return mmap.mmap(descriptor, size, prot=mmap.PROT_READ)      # keeps a descriptor a shard: see allow_descriptors


def allow_descriptors(count: int) -> None:
    """Make room for count open files more than usual, as far as the system lets us."""
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 512
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _remote(path: str) -> tuple[Any, str]:
    """fsspec filesystem and the path within it."""
    import fsspec  # only remote paths pay for it
    scheme = path.partition("://")[0]
    if scheme in _CLIENTS:
        require(_CLIENTS[scheme], f"reading {scheme}:// paths")
    try:
        filesystem, root = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{path}: {error}") from None
    return filesystem, root
