"""What is in a dataset (`data inspect`), and whether it still is what was written (`data verify`)."""
from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mltrain.data import shard as shards_
from mltrain.data.format import COLUMN, Manifest, Shard
from mltrain.data.mapped import Mapped
from mltrain.data.opening import read_manifest
from mltrain.data.prepare import Report, State
from mltrain.data.shard import Documents
from mltrain.data.store import Store
from mltrain.data.tokenizer import Tokenizer, open_tokenizer
from mltrain.errors import DataError, MissingInput

_EXCERPT_TOKENS = 200


def inspect(path: str | os.PathLike[str], documents: int = 3) -> dict[str, Any]:
    """Plain data: manifest's counts, and for each split a histogram of document lengths and the beginnings of some documents, spread
    evenly. Reads 8 bytes a document. Raises MissingInput, DataError."""
    store, manifest = read_manifest(path)
    tokenizer = open_tokenizer(store, manifest.tokenizer)
    info = tokenizer.info
    return {
        "path": store.path, "fingerprint": manifest.fingerprint, "version": manifest.version, "schema": manifest.schema,
        "tokenizer": {"kind": info.kind, "vocabulary": info.vocabulary, "separator": info.separator},
        "splits": {name: _inspect_split(store, manifest, name, tokenizer, documents) for name in manifest.splits},
    }


def _inspect_split(store: Store, manifest: Manifest, name: str, tokenizer: Tokenizer, wanted: int) -> dict[str, Any]:
    split = manifest.splits[name]
    shards = Mapped(store, split.shards, manifest.dtype).documents()
    lengths = np.concatenate([np.zeros(0, np.int64), *(shard.lengths() for shard in shards)])
    chosen = np.unique(np.linspace(0, max(len(lengths) - 1, 0), min(wanted, len(lengths)), dtype=np.int64))
    return {
        "documents": split.documents, "tokens": split.tokens, "text_bytes": split.text_bytes, "bytes": sum(s.bytes for s in split.shards),
        "shards": len(split.shards), "lengths": _histogram(lengths),
        "examples": [_excerpt(shards, int(row), tokenizer) for row in chosen],
    }


def _histogram(lengths: NDArray[np.int64]) -> list[dict[str, int]]:
    """Documents by length in tokens, in powers of two: {from, to (exclusive), documents, tokens}."""
    bins = np.zeros(len(lengths), np.int64)
    np.log2(np.maximum(lengths, 1), out=bins, casting="unsafe")
    return [{"from": 1 << power, "to": 2 << power, "documents": int((bins == power).sum()), "tokens": int(lengths[bins == power].sum())}
            for power in np.unique(bins).tolist()]


def _excerpt(shards: list[Documents], row: int, tokenizer: Tokenizer) -> dict[str, Any]:
    document = row
    for shard in shards:
        if row < shard.shard.rows:
            tokens = shard.tokens(row)
            return {"document": document, "tokens": len(tokens), "text": tokenizer.decode(tokens[:_EXCERPT_TOKENS])}
        row -= shard.shard.rows
    raise IndexError(document)


def verify(path: str | os.PathLike[str], report: Report | None = None) -> dict[str, Any]:
    """Read every shard: its digest, its Arrow structure, the places of its buffers, all offsets, all token ids. Returns {path, fingerprint,
    shards, bytes, problems: [{shard, problem, code}]}; raises only if there is no dataset or no readable manifest."""
    store, manifest = read_manifest(path)
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    total, done, problems = sum(shard.bytes for shard in shards), 0, []
    for shard in shards:
        try:
            _verify_shard(store, manifest, shard)
        except (DataError, MissingInput) as error:
            problems.append({"shard": shard.name, "problem": error.message, "code": error.code})
        done += shard.bytes
        if report:
            report(State(done, total, 0, 0))
    try:
        open_tokenizer(store, manifest.tokenizer)
    except (DataError, MissingInput) as error:
        problems.append({"shard": "tokenizer.json", "problem": error.message, "code": error.code})
    return {"path": store.path, "fingerprint": manifest.fingerprint, "shards": len(shards), "bytes": total, "problems": problems}


def _verify_shard(store: Store, manifest: Manifest, shard: Shard) -> None:
    where = store.where(shard.name)
    content = store.map(shard.name, shard.bytes)
    shards_.check(shard, content, manifest.dtype, where)
    if shards_.digest(content) != shard.digest:
        raise DataError(f"{where} is not what was written: its digest differs")
    rows, dtype, buffers = shards_.find_buffers(content, where)
    if (rows, dtype, buffers) != (shard.rows, manifest.dtype, shard.columns[COLUMN]):
        raise DataError(f"{where}: the manifest says other things about its columns than the file")
    largest = shards_.largest_token(shard, content, dtype)
    if largest >= manifest.tokenizer.vocabulary:
        raise DataError(f"{where} holds token {largest}, but the vocabulary ends at {manifest.tokenizer.vocabulary - 1}")
