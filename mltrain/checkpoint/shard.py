"""One rank's part of a step: a plain safetensors file. Here: its header, written so that the data begins on a page, read within limits.

The header carries, as `__metadata__`, what a safetensors file has no place for: which rows of which global tensor each piece is (`layout`)
and a digest over all names, types and shapes (`state`), by which shards of different states are never joined.
"""
from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from mltrain.errors import DataError

PAGE = 4096                                                     # bytes
HEADER_LIMIT, NAME_LIMIT, TENSOR_LIMIT, RANK_LIMIT = 100 << 20, 1024, 1_000_000, 16      # the first is the safetensors library's own
# safetensors' name of an element type -> (its size in bytes, torch's name)
DTYPES = {
    "F64": (8, "float64"), "F32": (4, "float32"), "F16": (2, "float16"), "BF16": (2, "bfloat16"), "I64": (8, "int64"), "I32": (4, "int32"),
    "I16": (2, "int16"), "I8": (1, "int8"), "U8": (1, "uint8"), "U16": (2, "uint16"), "U32": (4, "uint32"), "U64": (8, "uint64"),
    "BOOL": (1, "bool"), "F8_E4M3": (1, "float8_e4m3fn"), "F8_E5M2": (1, "float8_e5m2"),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A whole tensor: dtype as in DTYPES, global shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return DTYPES[self.dtype][0] * math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one index of dimension 0 (of the element, for a scalar)."""
        return DTYPES[self.dtype][0] * math.prod(self.shape[1:])

    @property
    def rows(self) -> int:
        return self.shape[0] if self.shape else 1


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows [first, first + rows) of a tensor, as bytes [begin, end) of a file. Tensors are cut along dimension 0 only."""

    first: int
    rows: int
    begin: int
    end: int


Table = dict[str, Tensor]                                       # name -> whole tensor: one state


@dataclass(frozen=True, slots=True)
class Header:
    """What a shard says of itself. tensors, pieces: what is in this file. state: `state_digest` of the whole state. whole: all tensors
    of the state, if this shard (rank 0's) carries the list."""

    tensors: Table
    pieces: dict[str, Piece]
    state: str
    whole: Table | None


def state_digest(table: Table) -> str:
    """One string for the names, types and shapes of a state."""
    text = json.dumps([[name, t.dtype, list(t.shape)] for name, t in sorted(table.items())])
    return hashlib.sha256(text.encode()).hexdigest()


def build_header(table: Table, rows: dict[str, tuple[int, int]], whole: bool = True) -> tuple[bytes, dict[str, Piece]]:
    """Header of a shard that holds rows (first, number) of some tensors of a state, and where each piece will lie in the file.
    whole: with the list of all tensors of the state. Largest elements come first, so each piece is aligned to its element without holes."""
    pieces, header, at = {}, {}, 0
    for name in sorted(rows, key=lambda name: (-DTYPES[table[name].dtype][0], name)):
        tensor, (first, number) = table[name], rows[name]
        end = at + number * tensor.row_bytes
        shape = [number, *tensor.shape[1:]] if tensor.shape else []
        header[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [at, end]}
        pieces[name], at = Piece(first, number, at, end), end
    layout = {name: [list(table[name].shape), piece.first] for name, piece in pieces.items()}
    metadata = {"layout": json.dumps(layout), "state": state_digest(table)}
    if whole:
        metadata["tensors"] = json.dumps({name: [t.dtype, list(t.shape)] for name, t in table.items()})
    text = json.dumps({"__metadata__": metadata, **header}).encode()
    text += b" " * (-(8 + len(text)) % PAGE)
    start = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {n: Piece(p.first, p.rows, start + p.begin, start + p.end) for n, p in pieces.items()}


def read_header(data: bytes | memoryview, size: int, where: str) -> Header:
    """Parses the first bytes of a shard of `size` bytes. `data` needs only hold the header;
    what it claims is checked against limits and `size` before anything is allocated for it. Raises DataError naming `where`."""
    length = header_length(data, size, where)
    if len(data) < 8 + length:
        raise DataError(f"{where}: the header is cut")
    try:
        header = json.loads(bytes(data[8:8 + length]))
        metadata = header.pop("__metadata__")
        layout, state = json.loads(metadata["layout"]), metadata["state"]
        if not isinstance(state, str) or len(header) > TENSOR_LIMIT or layout.keys() != header.keys():
            raise ValueError("it does not tell which rows of which tensors it holds")
        entries = {name: _entry(name, entry, layout[name], 8 + length, size) for name, entry in header.items()}
        whole = json.loads(metadata["tensors"]) if "tensors" in metadata else None
        table = None if whole is None else {name: checked_tensor(name, *row) for name, row in whole.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise DataError(f"{where}: the safetensors header is damaged: {error}"[:400]) from None
    return Header({n: t for n, (t, _) in entries.items()}, {n: p for n, (_, p) in entries.items()}, state, table)


def build_plain_header(table: Table) -> bytes:
    """Header of a plain safetensors file of whole tensors; their bytes follow in the order of `plain_order`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}               # what transformers asks for
    at = 0
    for name in plain_order(table):
        end = at + table[name].nbytes
        header[name] = {"dtype": table[name].dtype, "shape": list(table[name].shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % PAGE)
    return len(text).to_bytes(8, "little") + text


def plain_order(table: Table) -> list[str]:
    """Largest elements first, as in a shard: each tensor is aligned without holes."""
    return sorted(table, key=lambda name: (-DTYPES[table[name].dtype][0], name))


def read_plain_header(data: bytes, size: int, where: str) -> tuple[Table, dict[str, Piece]]:
    """Tensors and their places in a safetensors file of `size` bytes that anybody may have written. Raises DataError naming `where`."""
    length = header_length(data, size, where)
    try:
        header = json.loads(data[8:8 + length])
        header.pop("__metadata__", None)
        if len(header) > TENSOR_LIMIT:
            raise ValueError(f"{len(header)} tensors")
        entries = {name: _entry(name, entry, [entry["shape"], 0], 8 + length, size) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise DataError(f"{where}: the safetensors header is damaged: {error}"[:400]) from None
    return {n: t for n, (t, _) in entries.items()}, {n: p for n, (_, p) in entries.items()}


def header_length(data: bytes | memoryview, size: int, where: str) -> int:
    """Bytes of the JSON header, from the first 8 bytes of a file of `size` bytes."""
    length = int.from_bytes(bytes(data[:8]), "little")
    if len(data) < 8 or not 2 <= length <= min(HEADER_LIMIT, size - 8):
        raise DataError(f"{where}: not a safetensors file, or its header is damaged (it claims {length} bytes)")
    return length


def _entry(name: str, entry: dict[str, Any], layout: list[Any], start: int, size: int) -> tuple[Tensor, Piece]:
    begin, end = entry["data_offsets"]
    tensor = checked_tensor(name, entry["dtype"], layout[0])
    rows = entry["shape"][0] if entry["shape"] else 1
    if list(entry["shape"][1:]) != list(tensor.shape[1:]) or len(entry["shape"]) != len(tensor.shape):
        raise ValueError(f"{name[:80]}: piece {entry['shape']} of a tensor {list(tensor.shape)}")
    return tensor, checked_piece(name, tensor, layout[1], rows, start + natural(begin), start + natural(end), size)


def natural(value: object) -> int:
    """An integer of 0 … 2⁶²: JSON also has true, 1.0 and numbers that no file is long enough for."""
    if type(value) is not int or not 0 <= value <= 1 << 62:
        raise ValueError(f"not a size: {str(value)[:40]}")
    return value


def checked_tensor(name: str, dtype: object, shape: object) -> Tensor:
    """ValueError unless name, element type and shape are within the limits."""
    if not 0 < len(name) <= NAME_LIMIT:
        raise ValueError(f"a tensor's name has {len(name)} characters")
    if dtype not in DTYPES:
        raise ValueError(f"{name[:80]}: unknown element type {str(dtype)[:40]}")
    if not isinstance(shape, list) or len(shape) > RANK_LIMIT:
        raise ValueError(f"{name[:80]}: not a shape")
    tensor = Tensor(str(dtype), tuple(natural(n) for n in shape))
    if math.prod(n for n in tensor.shape if n) * DTYPES[tensor.dtype][0] > 1 << 62:
        raise ValueError(f"{name[:80]}: larger than any file")
    return tensor


def checked_piece(name: str, tensor: Tensor, first: object, rows: object, begin: int, end: int, size: int) -> Piece:
    """ValueError unless the rows are inside the tensor and the bytes, as many as they need, inside the file."""
    piece = Piece(natural(first), natural(rows), begin, end)
    if piece.first + piece.rows > tensor.rows:
        raise ValueError(f"{name[:80]}: rows {piece.first} to {piece.first + piece.rows} of {tensor.rows}")
    if end > size or end - begin != piece.rows * tensor.row_bytes:
        raise ValueError(f"{name[:80]}: bytes {begin} to {end} of a file of {size}")
    return piece
