"""A dataset on disk: a folder of Arrow IPC shards and manifest.json, which is written last. A folder without a manifest is no dataset.

    FOLDER/manifest.json            this module
    FOLDER/train-00000.arrow        one uncompressed record batch; column `tokens`, a row a document (shard.py)
    FOLDER/validation-00000.arrow
    FOLDER/tokenizer.json           only if the tokenizer is a file

The manifest holds, for every shard, its digest and where its buffers lie in the file, so opening a dataset needs no Arrow library.
`fingerprint` is a hash over all of that: equal for equal data, wherever it lies and whenever it was made.
A manifest may come from anybody: it is read strictly, names cannot leave the folder, and no number in it is believed before the shard
itself agrees.
"""
from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from xxhash import xxh3_128_hexdigest

from mltrain.errors import DataError

MANIFEST, VERSION, COLUMN = "manifest.json", 1, "tokens"
LARGEST_MANIFEST = 1 << 28
DTYPES = {"large_list<uint16>": "uint16", "large_list<uint32>": "uint32"}

Count = Annotated[int, Meta(ge=0, le=1 << 48)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_SPLIT = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class Buffers(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a list column lies in its shard's file, in bytes from the beginning. offsets: int64 [rows + 1]; values: the flat tokens."""

    offsets: Count
    values: Count
    values_bytes: Count


class Shard(Struct, frozen=True, forbid_unknown_fields=True):
    """One file. text_bytes: UTF-8 bytes of its documents, without separators. digest: xxh3-128 of the file."""

    name: str
    rows: Count
    tokens: Count
    text_bytes: Count
    bytes: Count
    digest: Digest
    columns: dict[str, Buffers]


class Split(Struct, frozen=True, forbid_unknown_fields=True):
    documents: Count
    tokens: Count
    text_bytes: Count
    shards: list[Shard]


class TokenizerInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """kind: bytes or huggingface. Ids are below vocabulary. separator: id at the beginning of every document. digest: of tokenizer.json."""

    kind: str
    vocabulary: Annotated[int, Meta(ge=2, le=1 << 32)]
    separator: Count
    digest: Digest | None = None


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """inputs: hash of what the dataset was prepared from and how; no part of the fingerprint, as the same data may come by other ways."""

    format: Annotated[str, Meta(pattern="^mltrain.dataset$")]
    version: int
    schema: dict[str, str]
    tokenizer: TokenizerInfo
    splits: dict[str, Split]
    inputs: str = ""
    fingerprint: str = ""

    @property
    def dtype(self) -> str:
        return DTYPES[self.schema[COLUMN]]


def split_of(shards: list[Shard]) -> Split:
    """A split's totals from its shards."""
    return Split(sum(s.rows for s in shards), sum(s.tokens for s in shards), sum(s.text_bytes for s in shards), shards)


def fingerprint(manifest: Manifest) -> str:
    """32 hexadecimal digits over everything but `inputs` and the fingerprint itself."""
    bare = msgspec.structs.replace(manifest, fingerprint="", inputs="")
    return xxh3_128_hexdigest(msgspec.json.encode(bare, order="sorted"))


def new_manifest(dtype: str, tokenizer: TokenizerInfo, splits: dict[str, list[Shard]], inputs: str) -> Manifest:
    made = Manifest("mltrain.dataset", VERSION, {COLUMN: f"large_list<{dtype}>"}, tokenizer,
                    {name: split_of(shards) for name, shards in splits.items()}, inputs)
    return msgspec.structs.replace(made, fingerprint=fingerprint(made))


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode(text: bytes, where: str) -> Manifest:
    """Read a manifest from anywhere. where: its path, for messages. Raises DataError (65) for anything that is not exactly right."""
    if len(text) > LARGEST_MANIFEST:
        raise DataError(f"{where} has {len(text)} bytes; a manifest has at most {LARGEST_MANIFEST}")
    try:
        _check_version(text, where)
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{where} is damaged: {error}", "prepare the dataset again, or copy it again from where it came") from None
    _check_schema(manifest, where)
    _check_names(manifest, where)
    for name, split in manifest.splits.items():
        if split != split_of(split.shards):
            raise DataError(f"{where}: the totals of split {name} are not the sums of its shards")
    if manifest.fingerprint != fingerprint(manifest):
        raise DataError(f"{where}: the fingerprint does not match; the manifest was edited or damaged", "prepare the dataset again")
    return manifest


class _Head(Struct):
    format: str = ""
    version: int = 0


def _check_version(text: bytes, where: str) -> None:
    """First of all: a manifest of a later version may hold fields that are not known here."""
    head = msgspec.json.decode(text, type=_Head)
    if head.format != "mltrain.dataset":
        raise DataError(f"{where} is not the manifest of an mltrain dataset (format {head.format[:40]!r})")
    if head.version != VERSION:
        raise DataError(f"{where} has format version {head.version}; this mltrain reads version {VERSION}",
                        "prepare the dataset again, or use a newer mltrain")


def _check_schema(manifest: Manifest, where: str) -> None:
    if list(manifest.schema) != [COLUMN] or manifest.schema[COLUMN] not in DTYPES:
        raise DataError(f"{where}: schema {manifest.schema} is not {{'tokens': 'large_list<uint16>' or 'large_list<uint32>'}}")
    tokenizer = manifest.tokenizer
    if not tokenizer.separator < tokenizer.vocabulary <= (1 << 16 if manifest.dtype == "uint16" else 1 << 32):
        raise DataError(f"{where}: separator {tokenizer.separator}, vocabulary {tokenizer.vocabulary} do not fit {manifest.dtype} tokens")


def _check_names(manifest: Manifest, where: str) -> None:
    seen: set[str] = set()
    for split, content in manifest.splits.items():
        if not _SPLIT.fullmatch(split):
            raise DataError(f"{where}: {split[:80]!r} is not a name for a split")
        for shard in content.shards:
            if not _NAME.fullmatch(shard.name):
                raise DataError(f"{where}: shard name {shard.name[:80]!r} does not stay inside the dataset's folder")
            if shard.name in seen:
                raise DataError(f"{where}: shard {shard.name} is listed twice")
            if list(shard.columns) != [COLUMN]:
                raise DataError(f"{where}: shard {shard.name} has columns {list(shard.columns)}, not {[COLUMN]}")
            seen.add(shard.name)
