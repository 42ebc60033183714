"""The weights of a step, out of its shards, as one plain safetensors file in a folder that any program reads. Nothing is held in memory
but a few chunks; the folder appears at once when all of it is on the disk.
"""
from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mltrain.checkpoint.catalog import Chunks, content_digest
from mltrain.checkpoint.manifest import Manifest
from mltrain.checkpoint.shard import Piece, Tensor, build_plain_header, plain_order
from mltrain.checkpoint.storage import LocalStorage, Storage, sync_folder
from mltrain.checkpoint.weights import CONFIG, WEIGHTS, as_manifest, hash_file, weights_in
from mltrain.errors import DataError, StorageError, UsageError


@dataclass(frozen=True, slots=True)
class Part:
    """What a tensor of the export is: rows [first, first + rows) of a tensor of the state."""

    source: str
    first: int
    rows: int


def all_weights(manifest: Manifest) -> dict[str, Part]:
    """Parameters and buffers, whole, under their canonical names."""
    return {name: Part(source, 0, manifest.tensors[source].rows) for name, source in weights_in(manifest.tensors).items()}


def write(storage: Storage, manifest: Manifest, parts: Mapping[str, Part], config: dict[str, Any], to: str | os.PathLike[str]) -> str:
    """Writes model.safetensors and config.json (with the digest in it) into a new folder. Returns the digest, taken by reading what was
    written. Raises UsageError (64) if the folder is there, DataError (65) for a damaged checkpoint, StorageError (74)."""
    target = Path(to).absolute()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UsageError(f"{to} is there already", "choose another folder, or remove it")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        out = LocalStorage(str(unfinished))
        out.write(WEIGHTS, _bytes(storage, manifest, parts))
        digest = content_digest(out, as_manifest(out, hash_file(out, WEIGHTS)))
        out.publish(CONFIG, json.dumps({**config, "digest": digest}, indent=2).encode() + b"\n")
        os.rename(unfinished, target)
        sync_folder(str(target.parent))
        return digest
    except OSError as error:
        raise StorageError(f"{to}: cannot be written: {error.strerror or error}", "is the disk full, or the folder read-only?") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _bytes(storage: Storage, manifest: Manifest, parts: Mapping[str, Part]) -> Iterator[bytes | memoryview]:
    table = {name: _tensor(manifest.tensors[part.source], part) for name, part in parts.items()}
    yield build_plain_header(table)
    chunks = Chunks(storage, manifest)
    for name in plain_order(table):
        part, row_bytes = parts[name], table[name].row_bytes
        for file, piece in manifest.pieces[part.source]:
            first, end = max(part.first, piece.first), min(part.first + part.rows, piece.first + piece.rows)
            if first < end:
                begin = piece.begin + (first - piece.first) * row_bytes
                yield from chunks.parts(file, Piece(first, end - first, begin, begin + (end - first) * row_bytes))


def _tensor(source: Tensor, part: Part) -> Tensor:
    if part.first + part.rows > source.rows:
        raise DataError(f"{part.source} has {source.rows} rows, not {part.first + part.rows}")
    return Tensor(source.dtype, (part.rows, *source.shape[1:])) if source.shape else source
