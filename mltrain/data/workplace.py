"""FOLDER.partial: where a dataset is made. It becomes FOLDER in one rename, when everything is on disk; a reader never sees half a dataset.

    journal      first line: hash of the inputs; then a line a round: its shards, and the cursor where the next round begins
    lock         held while a prepare is at work; the kernel lets go of it however the process dies
"""
from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from mltrain.data import format
from mltrain.data.format import MANIFEST, Manifest, Shard
from mltrain.errors import DataError, StorageError, UsageError

_JOURNAL, _LOCK = "journal", "lock"


class Busy(StorageError):
    """Another process is preparing the same dataset."""


def wait_for_other(out: Path) -> None:
    """Returns when no process is preparing this dataset (finished, failed or killed)."""
    with suppress(FileNotFoundError), open(_partial(out) / _LOCK, "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)


def _partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


class Begun(Struct):
    inputs: str


class Done(Struct):
    """One finished round. skipped: counts so far, by reason."""

    shards: dict[str, Shard]
    file: int
    at: int
    skipped: dict[str, int]


@contextmanager
def storage_errors(what: Path, kept: str) -> Iterator[None]:
    """OSError -> StorageError (74). kept: what the user can rely on."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(f"cannot write {what}: {error.strerror or error}", f"free some space; {kept}" if full else kept) from None


class Workplace:
    """Raises UsageError if it belongs to a prepare with other inputs, StorageError if it cannot be made or another prepare is at work."""

    def __init__(self, out: Path, inputs: str) -> None:
        self.out, self.inputs = out, inputs
        self.folder = _partial(out)
        self.rounds: list[Done] = []
        self.manifest: Manifest | None = None              # there if all was done but the last rename
        with storage_errors(self.folder, "nothing was changed"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
        try:
            self._read()
        except BaseException:
            journal = self.folder / _JOURNAL
            if not (self.folder / MANIFEST).exists() and (not journal.exists() or not journal.stat().st_size):
                shutil.rmtree(self.folder, ignore_errors=True)           # a full disk: it could not even begin
            os.close(self._lock)
            raise

    def _take_lock(self) -> int:
        path = self.folder / _LOCK
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or path.stat().st_ino != os.fstat(descriptor).st_ino:      # it finished between our open and our lock
                raise BlockingIOError
        except BlockingIOError:
            os.close(descriptor)
            raise Busy(f"another prepare is at work on {self.out}", "wait for it, or choose another --out") from None
        return descriptor

    def _read(self) -> None:
        manifest, path = self.folder / MANIFEST, self.folder / _JOURNAL
        if manifest.exists():
            self.manifest = format.decode(manifest.read_bytes(), str(manifest))
            self._check_inputs(self.manifest.inputs)
            return
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []      # what follows the last line end was torn off
        try:
            if lines:
                self._check_inputs(msgspec.json.decode(lines[0], type=Begun).inputs)
            self.rounds = [msgspec.json.decode(line, type=Done) for line in lines[1:]]
        except msgspec.MsgspecError as error:
            raise DataError(f"{path} is damaged: {error}", f"remove it and begin again: rm -r {self.folder}") from None
        self._clean(lines)

    def _check_inputs(self, inputs: str) -> None:
        if inputs != self.inputs:
            raise UsageError(f"{self.folder} is an unfinished prepare with other sources, files that changed since, or other arguments",
                             f"run that one again to finish it, or remove it: rm -r {self.folder}")

    def _clean(self, lines: list[bytes]) -> None:
        """Remove what an interrupted round left."""
        path = self.folder / _JOURNAL
        with storage_errors(self.folder, "nothing was changed"):
            if not lines:
                self._append(Begun(self.inputs))
            else:
                os.truncate(path, sum(len(line) + 1 for line in lines))
            keep = {shard.name for done in self.rounds for shard in done.shards.values()} | {_JOURNAL, _LOCK}
            for entry in self.folder.iterdir():
                if entry.name not in keep:
                    entry.unlink()

    def _append(self, line: Begun | Done) -> None:
        with open(self.folder / _JOURNAL, "ab") as journal:
            journal.write(msgspec.json.encode(line) + b"\n")
            journal.flush()
            os.fsync(journal.fileno())

    def finish_round(self, done: Done) -> None:
        """Its shards are on disk: from here on they count."""
        self._append(done)
        self.rounds.append(done)

    def publish(self, manifest: Manifest, files: dict[str, bytes]) -> None:
        """Write the other files, the manifest, and make the folder visible under its name. Raises OSError."""
        for name, content in {**files, MANIFEST: format.encode(manifest)}.items():
            self._write(name, content)
        for name in (_JOURNAL, _LOCK):
            (self.folder / name).unlink(missing_ok=True)
        _sync(self.folder)
        os.rename(self.folder, self.out)
        _sync(self.out.parent)

    def _write(self, name: str, content: bytes) -> None:
        temporary = self.folder / f"{name}.new"
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, self.folder / name)

    def close(self) -> None:
        """Leave what is worth going on with; remove what is not."""
        if not self.rounds and not (self.folder / MANIFEST).exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
