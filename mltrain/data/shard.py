"""One shard: an Arrow IPC file with a single uncompressed record batch, `tokens: large_list<uint16|uint32>`, a row a document.

Any Arrow reader opens it. We write it so that the flat tokens begin on a page boundary, find once where its buffers lie (`find_buffers`,
with pyarrow), and from then on read it as views on the mapped file (`check`, `Documents`: numpy alone). Nothing in a file is believed:
whatever a view will rest on is compared with the file's size first.
"""
from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128

from mltrain.data.format import COLUMN, Buffers, Shard
from mltrain.errors import DataError, StorageError

Tokens = NDArray[np.uint16] | NDArray[np.uint32]
PAGE, _MAGIC = 4096, b"ARROW1"
_AGAIN = "prepare the dataset again, or copy the shard again from where it came"


def write(path: Path, tokens: Tokens, lengths: NDArray[np.int64], text_bytes: int) -> Shard:
    """Write documents (their tokens one after the other, and how many each has) and force them to disk. Raises OSError."""
    import pyarrow as pa
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    pad = _padding(len(lengths), tokens.dtype)
    with open(path, "wb") as sink:
        _write_batch(pa.PythonFile(sink, "w"), offsets, tokens, pad)
        sink.flush()
        os.fsync(sink.fileno())
    with open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    rows, dtype, buffers = find_buffers(content, path.name)
    if (rows, dtype, buffers.values_bytes) != (len(lengths), str(tokens.dtype), tokens.nbytes):
        raise StorageError(f"{path} reads back differently from what was written to it")
    return Shard(path.name, rows, len(tokens), text_bytes, len(content), digest(content), {COLUMN: buffers})


def _write_batch(sink: Any, offsets: NDArray[np.int64], tokens: Tokens, pad: int) -> None:
    import pyarrow as pa
    column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(tokens))
    schema = pa.schema([pa.field(COLUMN, column.type, nullable=False)], {"pad": " " * pad})
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch([column], schema=schema))


def _padding(rows: int, dtype: np.dtype[Any]) -> int:
    """Spaces in the schema's metadata that move the values to a page boundary, found on a batch with the same rows but one token."""
    import pyarrow as pa
    offsets, pad = np.zeros(rows + 1, np.int64), 8
    offsets[-1] = 1
    for _ in range(2):                       # the first spaces may also change the padding of what precedes them
        sink = pa.BufferOutputStream()
        _write_batch(sink, offsets, np.zeros(1, dtype), pad)
        pad += -find_buffers(sink.getvalue(), "")[2].values % PAGE
    return pad


def find_buffers(content: Any, where: str) -> tuple[int, str, Buffers]:
    """Rows, type of the tokens, and places of the buffers in a file's bytes (anything with the buffer protocol). Raises DataError."""
    import pyarrow as pa
    try:
        column, dtype = _read_column(content, where)
    except (pa.ArrowException, OSError, ValueError) as error:          # ValueError: names in the schema that are no UTF-8
        raise DataError(f"{where} is not a readable Arrow file: {str(error).splitlines()[0][:200]}", _AGAIN) from None
    # Presence of a validity buffer, not null_count: counting would read a buffer that nobody has checked.
    missing, offsets, missing_values, values = column.buffers()
    if missing is not None or missing_values is not None or column.offset or column.values.offset:
        raise DataError(f"{where}: column {COLUMN} has nulls or begins at an offset", _AGAIN)
    if offsets is None or values is None:
        raise DataError(f"{where}: column {COLUMN} lacks a buffer", _AGAIN)
    base, size = np.frombuffer(content, np.uint8).ctypes.data, len(memoryview(content))
    begin, first, used = offsets.address - base, values.address - base, len(column.values) * np.dtype(dtype).itemsize
    if not (0 <= begin <= size - offsets.size and 0 <= first <= size - values.size):
        raise DataError(f"{where}: column {COLUMN} does not lie in the file itself: compressed?", _AGAIN)
    if offsets.size < 8 * (len(column) + 1) or values.size < used:
        raise DataError(f"{where}: column {COLUMN} is longer than its buffers", _AGAIN)
    return len(column), dtype, Buffers(begin, first, used)


def _read_column(content: Any, where: str) -> tuple[Any, str]:
    """The Arrow array (unchecked) and the type of its tokens."""
    import pyarrow as pa
    with pa.ipc.open_file(pa.py_buffer(content)) as reader:
        if reader.num_record_batches != 1:
            raise DataError(f"{where}: {reader.num_record_batches} record batches instead of one", _AGAIN)
        batch = reader.get_batch(0)
    batch.validate()          # lengths and sizes of buffers fit each other, as far as metadata tells
    kind = {pa.large_list(pa.uint16()): "uint16", pa.large_list(pa.uint32()): "uint32"}
    dtype = kind.get(batch.schema.field(0).type) if batch.schema.names == [COLUMN] else None
    if dtype is None:
        found = ", ".join(f"{field.name}: {field.type}" for field in batch.schema)[:200]
        raise DataError(f"{where} holds {found or 'no column'}, not {COLUMN}: large_list of uint16 or uint32", _AGAIN)
    return batch.column(0), dtype


def digest(content: mmap.mmap) -> str:
    """xxh3-128 of the whole file, a block at a time so that other threads get their turn."""
    state, view = xxh3_128(), memoryview(content)
    for at in range(0, len(view), 1 << 24):
        state.update(view[at:at + (1 << 24)])
    view.release()
    return state.hexdigest()


def check(shard: Shard, content: mmap.mmap, dtype: str, where: str) -> None:
    """Everything that views on the shard rest on: buffers inside the file and aligned, offsets from 0 to the number of tokens, never
    falling. Raises DataError before anything outside the file could be read. Cost: 8 bytes read for each document."""
    buffers, item = shard.columns[COLUMN], np.dtype(dtype).itemsize
    problem = ""
    if content[:6] != _MAGIC or content[-6:] != _MAGIC:
        problem = "it is not an Arrow file"
    elif buffers.values_bytes != shard.tokens * item or buffers.values + buffers.values_bytes > len(content) or buffers.values % item:
        problem = f"column {COLUMN}: {shard.tokens} tokens at byte {buffers.values} do not lie in its {len(content)} bytes"
    elif buffers.offsets + 8 * (shard.rows + 1) > len(content) or buffers.offsets % 8:
        problem = f"column {COLUMN}: the offsets of {shard.rows} rows at byte {buffers.offsets} do not lie in its {len(content)} bytes"
    elif not _rising(np.frombuffer(content, np.int64, shard.rows + 1, buffers.offsets), shard.tokens):
        problem = f"column {COLUMN}: its offsets do not rise from 0 to {shard.tokens}"
    if problem:
        raise DataError(f"{where} is damaged: {problem}", _AGAIN)


def _rising(offsets: NDArray[np.int64], end: int) -> bool:
    return bool(offsets[0] == 0 and offsets[-1] == end and (offsets[1:] >= offsets[:-1]).all())


@dataclass(frozen=True)
class Documents:
    """Documents of one checked shard. content is kept for as long as there are views on it."""

    shard: Shard
    content: mmap.mmap
    dtype: str

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document, [rows]."""
        offsets = np.frombuffer(self.content, np.int64, self.shard.rows + 1, self.shard.columns[COLUMN].offsets)
        return np.diff(offsets)

    def tokens(self, row: int) -> Tokens:
        """Tokens of one document: a view on the file."""
        buffers = self.shard.columns[COLUMN]
        begin, end = np.frombuffer(self.content, np.int64, 2, buffers.offsets + 8 * row).tolist()
        item = np.dtype(self.dtype).itemsize
        view: Tokens = np.frombuffer(self.content, self.dtype, end - begin, buffers.values + begin * item)
        return view


def largest_token(shard: Shard, content: mmap.mmap, dtype: str) -> int:
    """Of a checked shard; -1 if it has none."""
    buffers = shard.columns[COLUMN]
    values = np.frombuffer(content, dtype, shard.tokens, buffers.values)
    return int(values.max()) if len(values) else -1
