"""Writes sealed snapshots to a storage and commits them. A process of its own session without torch, which outlives the trainer:

    python -m mltrain.checkpoint.writer BUFFER_FD,BUFFER_FD BELL_FD TRAINER_PIDFD

A byte on the bell says "look"; it carries nothing, all state is in the buffers. When the trainer is gone (its pidfd, or the end of the
bell) the writer finishes what is sealed and ends. For a remote storage the same `settle` runs in a thread of the trainer.
"""
from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xxhash

from mltrain.checkpoint import retention
from mltrain.checkpoint.buffer import Buffer
from mltrain.checkpoint.manifest import CHUNK, decode, encode, join, manifest_name, parse, shard_name, sidecar_name, step_name
from mltrain.checkpoint.shard import read_header
from mltrain.checkpoint.storage import LocalStorage, Storage, open_storage
from mltrain.errors import DataError, MltrainError, StorageError

PAUSES = (0.2, 1.0, 3.0)                                        # seconds before the second, third and fourth try
COMMIT_RETRY, ORPHAN_SECONDS = 0.5, 5.0                         # seconds; see `Uncommitted`


def settle(buffer: Buffer, alive: bool = True) -> bool:
    """Writes one sealed snapshot, retrying. Never raises for a storage: the outcome is marked in the buffer. alive: the trainer lives,
    so older checkpoints may be pruned. Returns whether the step is committed (False: other ranks are not done, or it failed)."""
    buffer.mark_begun()
    document, error = buffer.document(), ""
    for pause in (0.0, *PAUSES):
        time.sleep(pause)
        try:
            committed = _write(open_storage(document["path"]), buffer.image, document, alive)
            buffer.mark_written()
            return committed
        except MltrainError as failure:                         # the state itself is wrong: no retry helps
            error = failure.message
            break
        except Exception as failure:  # noqa: BLE001  object-store clients raise classes of their own
            error = getattr(failure, "strerror", None) or f"{type(failure).__name__}: {failure}"
    _leave_nothing(document)
    buffer.mark_failed(error)
    return False


def _leave_nothing(document: dict[str, Any]) -> None:
    """An empty folder of a step that could not be written goes again; one with anybody's files stays."""
    storage = open_storage(document["path"])
    if isinstance(storage, LocalStorage):
        with contextlib.suppress(OSError):
            os.rmdir(storage.path(step_name(document["step"])))


def _write(storage: Storage, image: memoryview, document: dict[str, Any], alive: bool) -> bool:
    step, attempt, rank = document["step"], document["attempt"], document["rank"]
    if _committed_before(storage, image, document):
        return True
    name = shard_name(step, attempt, rank)
    with ThreadPoolExecutor(1) as beside:                       # hashing releases the interpreter, as does the write
        digests = beside.map(xxhash.xxh3_128_hexdigest, _parts(image))
        storage.write(name, _parts(image))
        header = read_header(image, len(image), name)
        pieces = {n: [p.first, p.rows, p.begin, p.end] for n, p in header.pieces.items()}
        sidecar = {"file": name.rpartition("/")[2], "bytes": len(image), "xxh3_128": list(digests), "rank": rank,
                   "world": document["world"], "state": header.state, "pieces": pieces}
    if header.whole is not None:
        sidecar |= {"tensors": {name: [t.dtype, list(t.shape)] for name, t in header.whole.items()}}
        sidecar |= {key: document[key] for key in ("progress", "plain", "saved")}
    storage.publish(sidecar_name(step, attempt, rank), encode(sidecar))
    return commit(storage, document, alive)


def _parts(image: memoryview) -> Iterator[memoryview]:
    return (image[at:at + CHUNK] for at in range(0, len(image), CHUNK))


def _committed_before(storage: Storage, image: memoryview, document: dict[str, Any]) -> bool:
    """A committed shard is never written again: the same bytes are done (a writer died after its commit), others are refused."""
    step, attempt = document["step"], document["attempt"]
    name = manifest_name(step, attempt)
    if name.rpartition("/")[2] not in storage.list(step_name(step)):
        return False
    manifest = parse(storage.read(name), step, attempt, name)
    if manifest.files[document["rank"]].chunks != tuple(map(xxhash.xxh3_128_hexdigest, _parts(image))):
        raise StorageError(f"step {step} of attempt {attempt} is there already, with another state")
    return True


def commit(storage: Storage, document: dict[str, Any], alive: bool = True) -> bool:
    """Writes the manifest if every rank's sidecar is there. Two may do so at once: they write the same bytes, and one is first.
    The first prunes. Returns whether the step is committed."""
    step, attempt = document["step"], document["attempt"]
    there = storage.list(step_name(step))
    if manifest_name(step, attempt).rpartition("/")[2] in there:
        return True
    names = [sidecar_name(step, attempt, rank) for rank in range(document["world"])]
    if not all(name.rpartition("/")[2] in there for name in names):
        return False
    manifest = join([decode(storage.read(name), name) for name in names], step, attempt)
    first = storage.publish(manifest_name(step, attempt), encode(manifest), exclusive=True)
    if first and alive and document["keep"]:
        retention.prune(storage, document["keep"], (step, attempt), document["held"], document["retired"])
    return True


class Uncommitted:
    """Steps whose own shard is written while other ranks' are not. The last writer commits, so nothing needs to be done but on file
    systems that show another host's files late: there a second look after a while is what commits."""

    def __init__(self) -> None:
        self._documents: dict[int, dict[str, Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._documents)

    def add(self, document: dict[str, Any]) -> None:
        self._documents[document["step"]] = document
        while len(self._documents) > 4:                         # other ranks failed: these will never be whole
            del self._documents[min(self._documents)]

    def look(self, alive: bool) -> None:
        for step, document in list(self._documents.items()):
            try:
                if commit(open_storage(document["path"]), document, alive):
                    del self._documents[step]
            except (OSError, DataError):
                del self._documents[step]                       # the trainer sees that no manifest comes


def serve(buffers: Sequence[Buffer], bell: socket.socket, trainer: int) -> None:
    """Until the trainer is gone and all that it sealed is settled."""
    uncommitted, deadline, alive = Uncommitted(), None, True
    while True:
        pending = [buffer for buffer in buffers if not buffer.settled]
        if pending:
            oldest = min(pending, key=lambda buffer: buffer.sequence)
            if not settle(oldest, alive=alive and not _gone(bell, trainer)) and oldest.written:
                uncommitted.add(oldest.document())
            continue
        if not alive:
            deadline = deadline or time.monotonic() + ORPHAN_SECONDS
            if not uncommitted or time.monotonic() > deadline:
                return
            time.sleep(COMMIT_RETRY)
        else:
            alive = _heard(bell, trainer, COMMIT_RETRY if uncommitted else None)
        uncommitted.look(alive)


def _heard(bell: socket.socket, trainer: int, seconds: float | None) -> bool:
    """Waits for the bell; False when the trainer is gone. Its forked children may hold the bell's other end, so its pidfd decides."""
    sources = [bell.fileno(), *([trainer] if trainer >= 0 else [])]
    ready, _, _ = select.select(sources, [], [], seconds)
    if trainer in ready:
        return False
    try:
        return bell.fileno() not in ready or bool(bell.recv(4096))
    except ConnectionError:
        return False


def _gone(bell: socket.socket, trainer: int) -> bool:
    if trainer >= 0:
        return bool(select.select([trainer], [], [], 0)[0])
    try:
        return not bell.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def main(argv: list[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)                   # sent to all processes of a job: what is sealed is finished first
    buffers = [Buffer(int(fd)) for fd in argv[0].split(",")]
    serve(buffers, socket.socket(fileno=int(argv[1])), int(argv[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
