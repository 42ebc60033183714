"""Bytes of shards into tensors, under any sharding. torch.distributed.checkpoint's planner computes which rows of which piece go where; a
StorageReader hands it our manifest as its Metadata (nothing is unpickled: there is no `.metadata` file).

Bytes go straight to where they belong by one read with many targets, the tensors' own memory, and are hashed in pieces of 512 KiB right
after the read, while the processor's cache has them. A chunk is read whole if any byte of it is needed: else its digest tells nothing.
"""
from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy
import torch
import xxhash
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, TensorProperties, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader

from mltrain.checkpoint.catalog import damage_text, read_chunk
from mltrain.checkpoint.manifest import CHUNK, Manifest
from mltrain.checkpoint.shard import DTYPES, Tensor
from mltrain.checkpoint.storage import LocalStorage, Storage
from mltrain.errors import DataError

PIECE, VIEWS = 512 << 10, 256                                   # bytes hashed at once; targets of one read (the kernel takes 1024)


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes [begin, end) of a file that are wanted, and the memory they go to."""

    begin: int
    end: int
    target: memoryview


def torch_dtype(tensor: Tensor) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, DTYPES[tensor.dtype][1])
    return dtype


def load(storage: Storage, manifest: Manifest, state: dict[str, Any]) -> None:
    """Fills the tensors of `state` in place. No message between ranks: each reads for itself. This is `dcp.load(no_dist=True)` without
    its check per value, which costs more than the plan, and without its CheckpointException, a BaseException. Names and shapes must fit."""
    reader, planner = Reader(storage, manifest), DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(state, reader.read_metadata(), is_coordinator=True)
    reader.read_data(planner.finish_plan(planner.create_local_plan()), planner)


class Reader(StorageReader):
    """Serves `dcp.load(..., storage_reader=Reader(storage, manifest))`, digests checked. Raises DataError for damage."""

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        self._storage, self._manifest = storage, manifest

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """One reader, one manifest: there is nothing to reset."""

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """The manifest was read and checked before."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return False

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        entries: dict[str, Any] = {}
        for name, tensor in self._manifest.tensors.items():
            rest = tensor.shape[1:]
            chunks = [ChunkStorageMetadata(torch.Size([piece.first, *[0] * len(rest)]), torch.Size([piece.rows, *rest])) if tensor.shape
                      else ChunkStorageMetadata(torch.Size([]), torch.Size([])) for _, piece in self._manifest.pieces[name]]
            entries[name] = TensorStorageMetadata(TensorProperties(dtype=torch_dtype(tensor)), torch.Size(tensor.shape), chunks)
        return Metadata(entries)

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> torch.futures.Future[None]:
        segments: dict[int, list[Segment]] = {}
        through: list[tuple[ReadItem, torch.Tensor, torch.Tensor]] = []
        for item in plan.items:
            target = planner.resolve_tensor(item).detach()
            if target.numel():
                self._place(item, target, segments, through)
        while segments:                                         # bytes that are wanted twice are read in another pass
            now = {}
            for file, wanted in segments.items():
                now[file], segments[file] = _disjoint(wanted)
            read_segments(self._storage, self._manifest, now)
            segments = {file: later for file, later in segments.items() if later}
        for item, rows, target in through:
            for dim in range(1, rows.dim()):
                rows = rows.narrow(dim, item.storage_offsets[dim], item.lengths[dim])
            target.copy_(rows)
        done: torch.futures.Future[None] = torch.futures.Future()
        done.set_result(None)
        return done

    def _place(self, item: ReadItem, target: torch.Tensor, segments: dict[int, list[Segment]],
               through: list[tuple[ReadItem, torch.Tensor, torch.Tensor]]) -> None:
        """Whole contiguous rows in this processor's memory are read into place; anything else goes through rows of its own."""
        name = item.storage_index.fqn
        tensor, (file, piece) = self._manifest.tensors[name], self._manifest.pieces[name][item.storage_index.index or 0]
        rows = target
        whole_rows = list(item.lengths[1:]) == list(tensor.shape[1:])
        if not whole_rows or not target.is_contiguous() or target.device.type != "cpu":
            rows = torch.empty([*item.lengths[:1], *tensor.shape[1:]], dtype=torch_dtype(tensor))
            through.append((item, rows, target))
        begin = piece.begin + (item.storage_offsets[0] if item.storage_offsets else 0) * tensor.row_bytes
        memory = memoryview(rows.view(-1).view(torch.uint8).numpy().data)
        segments.setdefault(file, []).append(Segment(begin, begin + len(memory), memory))


def _disjoint(wanted: list[Segment]) -> tuple[list[Segment], list[Segment]]:
    """Sorted segments that do not overlap, and the others."""
    now: list[Segment] = []
    later: list[Segment] = []
    for segment in sorted(wanted, key=lambda s: s.begin):
        (now if not now or segment.begin >= now[-1].end else later).append(segment)
    return now, later


def read_segments(storage: Storage, manifest: Manifest, wanted: dict[int, list[Segment]]) -> None:
    """wanted: file -> segments, sorted and disjoint. Chunks that nobody needs are not read. Raises DataError for damage."""
    fds: dict[int, int] = {}
    try:
        if isinstance(storage, LocalStorage):
            for file in wanted:
                fds[file] = _open(storage, manifest, file)
        jobs = [(file, chunk, segments) for file, all_segments in wanted.items() for chunk, segments in _by_chunk(all_segments).items()]
        with ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0)))) as pool:
            for _ in pool.map(lambda job: _read(storage, manifest, fds, *job), jobs):
                pass
    finally:
        for fd in fds.values():
            os.close(fd)


def _open(storage: LocalStorage, manifest: Manifest, file: int) -> int:
    name = manifest.files[file].name
    try:
        return os.open(storage.path(name), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None


def _by_chunk(segments: list[Segment]) -> dict[int, list[Segment]]:
    chunks: dict[int, list[Segment]] = {}
    for segment in segments:
        for chunk in range(segment.begin // CHUNK, -(-segment.end // CHUNK)):
            chunks.setdefault(chunk, []).append(segment)
    return chunks


def _read(storage: Storage, manifest: Manifest, fds: dict[int, int], file: int, chunk: int, segments: list[Segment]) -> None:
    begin = chunk * CHUNK
    end = min(begin + CHUNK, manifest.files[file].bytes)
    if file in fds:
        if _read_in_place(fds[file], begin, end, segments) != manifest.files[file].chunks[chunk]:
            raise DataError(damage_text(manifest, file, begin, end))
        return
    data = memoryview(read_chunk(storage, manifest, file, chunk))
    for at, length, target in _views(begin, end, segments):
        if target is not None:                                  # numpy copies without the interpreter's lock, slices of memoryview do not
            numpy.copyto(numpy.frombuffer(target, "u1"), numpy.frombuffer(data[at - begin:at - begin + length], "u1"))


def _views(begin: int, end: int, segments: list[Segment]) -> Iterator[tuple[int, int, memoryview | None]]:
    """(position, length, memory) that cover [begin, end) of a file in order, at most PIECE each. memory is None where nobody wants it."""
    def cut(low: int, high: int, segment: Segment | None) -> Iterator[tuple[int, int, memoryview | None]]:
        for at in range(low, high, PIECE):
            length = min(PIECE, high - at)
            yield at, length, None if segment is None else segment.target[at - segment.begin:at - segment.begin + length]
    at = begin
    for segment in segments:
        low, high = max(begin, segment.begin), min(end, segment.end)
        yield from cut(at, low, None)
        yield from cut(low, high, segment)
        at = high
    yield from cut(at, end, None)


def _read_in_place(fd: int, begin: int, end: int, segments: list[Segment]) -> str:
    """Reads a chunk, wanted bytes to their targets, the others to scratch (each gap to its own place: all are hashed after the read)."""
    digest, scratch = xxhash.xxh3_128(), memoryview(bytearray(2 * PIECE))
    batch: list[memoryview] = []
    start = at = begin
    for position, length, target in _views(begin, end, segments):
        if at - start + length > 2 * PIECE or len(batch) >= VIEWS:
            _fill(fd, start, batch, digest)
            start, batch = at, []
        batch.append(scratch[at - start:at - start + length] if target is None else target)
        at = position + length
    _fill(fd, start, batch, digest)
    hexdigest: str = digest.hexdigest()
    return hexdigest


def _fill(fd: int, start: int, batch: list[memoryview], digest: Any) -> None:
    """Network file systems may read less than asked for. What is beyond the file's end stays as it is: the digest will be wrong."""
    total = sum(map(len, batch))
    try:
        if batch and os.preadv(fd, batch, start) != total:
            at = start
            for view in batch:
                at += _read_fully(fd, view, at)
    except OSError as error:
        raise DataError(f"a shard cannot be read: {error.strerror}") from None
    for view in batch:
        digest.update(view)


def _read_fully(fd: int, view: memoryview, at: int) -> int:
    done = 0
    while done < len(view) and (n := os.preadv(fd, [view[done:]], at + done)):
        done += n
    return len(view)
