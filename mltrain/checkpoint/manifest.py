"""What a step consists of, as JSON: a sidecar for each shard, and the manifest that joins them. The manifest is written last: a step
without one does not exist.

    step-00000020/rank-00000.a0001.safetensors   rank 0's part, written by attempt 1
    step-00000020/rank-00000.a0001.json          its sidecar: pieces, digests; with rank 0 also all tensors, progress and plain state
    step-00000020/manifest.a0001.json            the commit: the sidecars' content joined, and the sha256 of itself

Whoever joins the same sidecars writes the same bytes, so it does not matter who does, nor how often. What is read is checked as if an
enemy had written it: a digest in a file tells of accidents only.
"""
from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from mltrain.checkpoint.shard import TENSOR_LIMIT, Piece, Table, checked_piece, checked_tensor, natural
from mltrain.errors import DataError

FORMAT, CHUNK = 1, 16 << 20                                     # bytes that one digest covers
MANIFEST_LIMIT, WORLD_LIMIT = 1 << 30, 1 << 20                  # bytes; ranks
STEP_NAME = re.compile(r"step-(\d{8,19})")
SHARD_NAME = re.compile(r"rank-(\d{5,7})\.a(\d{4,9})\.safetensors")
MANIFEST_NAME = re.compile(r"manifest\.a(\d{4,9})\.json")
# all that we ever write, with its attempt
FILE_NAME = re.compile(r"(?:manifest|rank-\d{5,7})\.a(\d{4,9})\.(?:json|safetensors)(?:\.\d+\.tmp)?")


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def shard_name(step: int, attempt: int, rank: int) -> str:
    return f"{step_name(step)}/rank-{rank:05d}.a{attempt:04d}.safetensors"


def sidecar_name(step: int, attempt: int, rank: int) -> str:
    return f"{step_name(step)}/rank-{rank:05d}.a{attempt:04d}.json"


def manifest_name(step: int, attempt: int) -> str:
    return f"{step_name(step)}/manifest.a{attempt:04d}.json"


@dataclass(frozen=True, slots=True)
class File:
    """A shard. chunks: xxh3-128 of each CHUNK bytes, in hex."""

    name: str
    bytes: int
    chunks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A committed step. pieces: tensor name -> [(index of its file, piece)] in order of rows, without gap or overlap."""

    step: int
    attempt: int
    world: int
    saved: float
    progress: dict[str, int]
    plain: dict[str, Any]
    files: tuple[File, ...]
    tensors: Table
    pieces: dict[str, list[tuple[int, Piece]]]
    sha256: str

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def encode(document: dict[str, Any]) -> bytes:
    """Canonical JSON with the document's own digest in it."""
    content = _canonical({key: value for key, value in document.items() if key != "sha256"})
    return _canonical({**document, "sha256": hashlib.sha256(content).hexdigest()})


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def decode(data: bytes, where: str) -> dict[str, Any]:
    """The document, if it is to the byte what `encode` wrote. Raises DataError naming `where`."""
    try:
        document = json.loads(data) if len(data) <= MANIFEST_LIMIT else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or encode(document) != data:
        raise DataError(f"{where}: damaged (its content does not have the digest that stands in it)")
    return document


def join(sidecars: list[dict[str, Any]], step: int, attempt: int) -> dict[str, Any]:
    """The manifest of a step from the sidecars of all its ranks, in order. Raises DataError when they do not make up one whole state."""
    head = sidecars[0]
    for sidecar in sidecars:
        if (sidecar["state"], sidecar["world"]) != (head["state"], len(sidecars)):
            raise DataError(f"step {step}: rank {sidecar['rank']} and rank 0 hold states of other names, types or shapes",
                            "every rank must save the same names")
    tensors = {name: {"dtype": dtype, "shape": shape, "pieces": []} for name, (dtype, shape) in head["tensors"].items()}
    for number, sidecar in enumerate(sidecars):
        for name, (first, rows, begin, end) in sidecar["pieces"].items():
            tensor = tensors[name]
            offset, lengths = ([first, *[0] * len(tensor["shape"][1:])], [rows, *tensor["shape"][1:]]) if tensor["shape"] else ([], [])
            tensor["pieces"].append({"offset": offset, "lengths": lengths, "file": number, "bytes": [begin, end]})
    for tensor in tensors.values():
        tensor["pieces"].sort(key=lambda piece: (piece["offset"], piece["lengths"], piece["file"]))
    document = {
        "format": FORMAT, "chunk_bytes": CHUNK, "step": step, "attempt": attempt, "world": len(sidecars), "tensors": tensors,
        "progress": head["progress"], "plain": head["plain"], "saved": head["saved"],
        "files": [{"name": s["file"], "bytes": s["bytes"], "xxh3_128": s["xxh3_128"]} for s in sidecars],
    }
    try:
        _checked(document, "")                                  # nothing is committed that would be refused when read
    except ValueError as error:
        raise DataError(f"step {step}: the parts of {len(sidecars)} ranks are no whole state: {error}") from None
    return document


def parse(data: bytes, step: int, attempt: int, where: str) -> Manifest:
    """A manifest as read from a storage, every number in it checked. Raises DataError naming `where`."""
    try:
        manifest = _checked(decode(data, where), where)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise DataError(f"{where}: damaged: {error!r}"[:400]) from None
    if (manifest.step, manifest.attempt) != (step, attempt):
        raise DataError(f"{where}: this is the manifest of step {manifest.step}, attempt {manifest.attempt}")
    return manifest


def _checked(document: dict[str, Any], where: str) -> Manifest:
    if document["format"] != FORMAT:
        raise DataError(f"{where}: format {str(document['format'])[:20]} is unknown to this mltrain, which reads {FORMAT}",
                        "upgrade mltrain-core")
    if document["chunk_bytes"] != CHUNK or len(document["tensors"]) > TENSOR_LIMIT or not 0 < natural(document["world"]) <= WORLD_LIMIT:
        raise ValueError("chunk_bytes, number of tensors or world")
    files = tuple(_file(row, natural(document["step"]), natural(document["attempt"])) for row in document["files"])
    if len({file.name for file in files}) != len(files):
        raise ValueError("a file is named twice")
    tensors, pieces = {}, {}
    for name, row in document["tensors"].items():
        tensors[name] = checked_tensor(name, row["dtype"], row["shape"])
        pieces[name] = [_piece(name, tensors, piece, files) for piece in row["pieces"]]
        _check_cover(name, tensors, pieces[name])
    progress = {key: natural(document["progress"][key]) for key in ("step", "samples", "tokens")}
    if not isinstance(document["plain"], dict):
        raise ValueError("plain is no object")
    return Manifest(document["step"], document["attempt"], document["world"], float(document["saved"]), progress, document["plain"], files,
                    tensors, pieces, str(document.get("sha256", "")))


def _file(row: dict[str, Any], step: int, attempt: int) -> File:
    match = SHARD_NAME.fullmatch(row["name"])                   # also: no way out of the folder
    if not match or int(match[2]) != attempt:
        raise ValueError(f"not a shard of attempt {attempt}: {str(row['name'])[:80]}")
    size, chunks = natural(row["bytes"]), row["xxh3_128"]
    if len(chunks) != -(-size // CHUNK) or not all(isinstance(c, str) and re.fullmatch("[0-9a-f]{32}", c) for c in chunks):
        raise ValueError(f"{row['name']}: digests")
    return File(f"{step_name(step)}/{row['name']}", size, tuple(chunks))


def _piece(name: str, tensors: Table, row: dict[str, Any], files: tuple[File, ...]) -> tuple[int, Piece]:
    tensor, number, (begin, end) = tensors[name], natural(row["file"]), row["bytes"]
    rest = list(tensor.shape[1:])
    first, rows = (row["offset"][0], row["lengths"][0]) if tensor.shape else (0, 1)
    whole = ([first, *[0] * len(rest)], [rows, *rest]) if tensor.shape else ([], [])
    if (row["offset"], row["lengths"]) != whole:
        raise ValueError(f"{name[:80]}: a piece that is not whole rows")
    return number, checked_piece(name, tensor, first, rows, natural(begin), natural(end), files[number].bytes)


def _check_cover(name: str, tensors: Table, pieces: list[tuple[int, Piece]]) -> None:
    """Every row once, in order."""
    at = 0
    for _, piece in pieces:
        if piece.first != at or (piece.rows == 0 and tensors[name].nbytes):
            raise ValueError(f"{name[:80]}: row {min(at, piece.first)} is there twice or not at all")
        at += piece.rows
    if at != tensors[name].rows:
        raise ValueError(f"{name[:80]}: row {at} is missing")
