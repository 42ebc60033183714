"""Weights alone, in a plain safetensors file: `export` writes one, and a run may begin with one, in whatever way its state is cut.

Names there are canonical module names: `parameters/NAME` and `buffers/NAME` of a state without what stands before the stroke.
"""
from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import xxhash

from mltrain.checkpoint import planner
from mltrain.checkpoint.catalog import content_digest
from mltrain.checkpoint.manifest import CHUNK, File, Manifest
from mltrain.checkpoint.ranks import Ranks
from mltrain.checkpoint.restore import check_tables, packed, raise_packed
from mltrain.checkpoint.shard import header_length, read_plain_header
from mltrain.checkpoint.storage import Storage, open_storage
from mltrain.errors import DataError, MissingInput, MltrainError, StorageError

if TYPE_CHECKING:
    import torch

WEIGHTS, CONFIG = "model.safetensors", "config.json"                # of an exported folder
PREFIXES = ("parameters/", "buffers/")


def weights_in(names: Iterable[str]) -> dict[str, str]:
    """Canonical name -> name in the state. A state that has neither prefix (of a loop of one's own) is all weights."""
    names = list(names)
    return {name.partition("/")[2]: name for name in names if name.startswith(PREFIXES)} or {name: name for name in names}


def find_weights(path: str | os.PathLike[str]) -> tuple[Storage, str]:
    """Where weights lie: (storage, file name). path: an exported folder or a safetensors file, local or as a URL. Raises MissingInput."""
    text = os.fspath(path)
    folder, name = os.path.split(text) if text.endswith(".safetensors") else (text, WEIGHTS)
    storage = open_storage(folder or ".")
    try:
        there = storage.list()
    except NotADirectoryError:
        there = {}
    if name not in there:
        raise MissingInput(f"there are no weights at {text}" + ("" if text.endswith(".safetensors") else f" (no {WEIGHTS} in it)"),
                           "make them: mltrain checkpoint export RUN --to FOLDER")
    return storage, name


def hash_file(storage: Storage, name: str) -> File:
    """Reads all of a file, once."""
    size = storage.list()[name]
    chunks = tuple(xxhash.xxh3_128_hexdigest(storage.read(name, at, min(at + CHUNK, size))) for at in range(0, size, CHUNK))
    return File(name, size, chunks)


def as_manifest(storage: Storage, file: File) -> Manifest:
    """A safetensors file as a step of one file, for whoever reads steps. Raises DataError."""
    where = f"{storage.root}/{file.name}"
    start = storage.read(file.name, 0, 8)
    table, pieces = read_plain_header(storage.read(file.name, 0, 8 + header_length(start, file.bytes, where)), file.bytes, where)
    return Manifest(0, 0, 1, 0.0, {}, {}, (file,), table, {name: [(0, piece)] for name, piece in pieces.items()}, "")


def begin_with(path: str | os.PathLike[str], state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Fills the parameters and buffers of `state` in place; the rest stays. Returns {"path", "digest"}, the digest being that of
    `export`. With several ranks a collective. Raises MissingInput, DataError (changed since it was exported), ConfigError (names, shapes
    or types differ), on all ranks alike."""
    ranks = Ranks.current()
    offer = ranks.broadcast(_offer(path) if ranks.rank == 0 else None)
    raise_packed(offer["error"])
    raise_packed(ranks.first(_fill(path, state, offer)))
    return {"path": os.fspath(path), "digest": offer["digest"]}


def _offer(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What rank 0 found: the file with the digests of its chunks, or its error."""
    try:
        storage, name = find_weights(path)
        file = hash_file(storage, name)
        digest, said = content_digest(storage, as_manifest(storage, file)), _config(storage)
        if name == WEIGHTS and said.get("digest", digest) != digest:
            raise DataError(f"{storage.root}/{name} is not what was exported: its digest is not that of {CONFIG}", "export it again")
        return {"error": None, "file": [file.name, file.bytes, file.chunks], "digest": digest, "task": said.get("task")}
    except MltrainError as error:
        return {"error": packed(error)}
    except Exception as error:  # noqa: BLE001  remote clients raise classes of their own, and the other ranks must hear of it
        return {"error": packed(StorageError(f"{os.fspath(path)}: cannot be read: {error}"))}


def _config(storage: Storage) -> dict[str, Any]:
    """What an export says of itself; {} of a file that somebody else wrote."""
    try:
        said = json.loads(storage.read(CONFIG))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _fill(path: str | os.PathLike[str], state: Mapping[str, torch.Tensor], offer: dict[str, Any]) -> dict[str, Any] | None:
    """None, or the packed error."""
    try:
        from mltrain.checkpoint.reader import load
        storage, name = find_weights(path)
        file = File(name, offer["file"][1], tuple(offer["file"][2]))
        manifest, names = as_manifest(storage, file), weights_in(state)
        table = planner.describe({public: state[name] for public, name in names.items()})
        hint = f"the model must be the one that was exported: task: {json.dumps(offer['task'])}" if offer["task"] else (
            "names are canonical module names of the task, such as model.embedding.weight")
        check_tables(manifest.tensors, table, os.fspath(path), hint)
        renamed = replace(manifest, tensors={names[n]: t for n, t in manifest.tensors.items()},
                          pieces={names[n]: p for n, p in manifest.pieces.items()})
        load(storage, renamed, {name: state[name] for name in names.values()})
        return None
    except MltrainError as error:
        return packed(error)
    except Exception as error:  # noqa: BLE001  other ranks wait for this one's word
        return packed(StorageError(f"{os.fspath(path)}: {type(error).__name__}: {error}"))
