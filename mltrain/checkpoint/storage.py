"""Where files lie: a local folder (atomic, fsynced) or any fsspec URL (one object a file). Names are relative to it:
`step-00000020/manifest.a0001.json`.

A storage promises little: a file appears whole or not at all, and an exclusive publish succeeds once. Everything else follows from the
order of writing: shards, then their sidecars, then one manifest.
"""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Any, Protocol

from mltrain.errors import ConfigError
from mltrain.extras import require

Bytes = bytes | memoryview
CLIENTS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs"}


class Storage(Protocol):
    """root: what a message calls this place. Errors are OSError (remote clients may raise others)."""

    root: str

    def write(self, name: str, parts: Iterable[Bytes]) -> None:
        """A large file, from parts in order; whole, and on the disk, when this returns."""

    def publish(self, name: str, data: bytes, exclusive: bool = False) -> bool:
        """A small file, at once. exclusive: False is returned, and nothing written, if it exists already."""
        ...

    def read(self, name: str, begin: int = 0, end: int | None = None) -> bytes:
        """Bytes [begin, end) of a file; fewer at its end."""
        ...

    def list(self, folder: str = "") -> dict[str, int]:
        """Name -> size of what lies directly in a folder (-1 for folders); empty when the folder is not there."""
        ...

    def delete(self, name: str) -> None:
        """A file, or an empty folder. Not being there is fine."""


def sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class LocalStorage:
    """A folder. Temporary names end in .tmp: they count as nothing and are pruned."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def _folder(self, name: str) -> str:
        """Makes the folder of a file. Its own entry is synced: a power cut must not take a folder with committed files in it."""
        folder = os.path.dirname(self.path(name))
        if not os.path.isdir(folder):
            os.makedirs(folder, 0o750, exist_ok=True)
            sync_folder(os.path.dirname(folder))
        return folder

    def write(self, name: str, parts: Iterable[Bytes]) -> None:
        folder, temporary = self._folder(name), f"{self.path(name)}.{os.getpid()}.tmp"
        try:
            fd = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o640)
            try:
                for part in parts:
                    left = memoryview(part)
                    while left:
                        left = left[os.write(fd, left):]
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, self.path(name))
        except BaseException:
            _remove(temporary)                                  # a full disk gets its room back
            raise
        sync_folder(folder)

    def publish(self, name: str, data: bytes, exclusive: bool = False) -> bool:
        folder, temporary = self._folder(name), f"{self.path(name)}.{os.getpid()}.tmp"
        try:
            fd = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o640)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            first = _link(temporary, self.path(name)) if exclusive else _replace(temporary, self.path(name))
        finally:
            _remove(temporary)
        sync_folder(folder)
        return first

    def read(self, name: str, begin: int = 0, end: int | None = None) -> bytes:
        with open(self.path(name), "rb") as file:
            file.seek(begin)
            return file.read() if end is None else file.read(max(0, end - begin))

    def list(self, folder: str = "") -> dict[str, int]:
        sizes: dict[str, int] = {}
        try:
            with os.scandir(self.path(folder)) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):       # a temporary file of another writer has just got its name
                        sizes[entry.name] = -1 if entry.is_dir() else entry.stat().st_size
        except FileNotFoundError:
            return {}
        return sizes

    def delete(self, name: str) -> None:
        path = self.path(name)
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        else:
            _remove(path)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _replace(temporary: str, path: str) -> bool:
    os.replace(temporary, path)
    return True


def _link(temporary: str, path: str) -> bool:
    """A hard link is the one operation that makes a file whole and only once; some file systems (FAT, some FUSE) have none."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except PermissionError:
        if os.path.exists(path):
            return False
        os.replace(temporary, path)
    return True


class RemoteStorage:
    """Any fsspec file system. An object appears when its upload ends; exclusive creation is the store's (`mode="create"`)."""

    def __init__(self, url: str) -> None:
        protocol = url.partition("://")[0]
        if package := CLIENTS.get(protocol):
            require(package, f"a checkpoint path {protocol}://")
        import fsspec
        from fsspec.core import url_to_fs
        if protocol not in fsspec.available_protocols():
            raise ConfigError(f"no file system is known for {url}", f"known: {' '.join(sorted(fsspec.available_protocols()))}")
        self.files, self._base = url_to_fs(url)
        self.root = url.rstrip("/")

    def path(self, name: str) -> str:
        return f"{self._base.rstrip('/')}/{name}" if name else str(self._base)

    def write(self, name: str, parts: Iterable[Bytes]) -> None:
        self.files.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)
        with self.files.open(self.path(name), "wb") as file:      # cut off midway it has no sidecar, and so counts as nothing
            for part in parts:
                file.write(part)

    def publish(self, name: str, data: bytes, exclusive: bool = False) -> bool:
        self.files.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)
        try:
            self.files.pipe_file(self.path(name), data, **({"mode": "create"} if exclusive else {}))
        except FileExistsError:
            return False
        return True

    def read(self, name: str, begin: int = 0, end: int | None = None) -> bytes:
        data: bytes = self.files.cat_file(self.path(name), start=begin, end=end)
        return data

    def list(self, folder: str = "") -> dict[str, int]:
        self.files.invalidate_cache()
        try:
            rows: list[dict[str, Any]] = self.files.ls(self.path(folder), detail=True)
        except FileNotFoundError:
            return {}
        return {row["name"].rstrip("/").rpartition("/")[2]: -1 if row["type"] == "directory" else int(row["size"]) for row in rows}

    def delete(self, name: str) -> None:
        try:
            if self.files.isdir(self.path(name)):
                self.files.rmdir(self.path(name))
            else:
                self.files.rm_file(self.path(name))
        except FileNotFoundError:
            pass


def open_storage(path: str | os.PathLike[str]) -> LocalStorage | RemoteStorage:
    text = os.fspath(path)
    if text.startswith(("file://", "local://")):
        return LocalStorage(text.partition("://")[2])
    return RemoteStorage(text) if "://" in text else LocalStorage(text)
