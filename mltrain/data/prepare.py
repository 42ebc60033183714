"""Sources -> a dataset: `mltrain data prepare SOURCE... --out FOLDER`.

Documents are read in a fixed order, tokenised a few megabytes at a time, dealt to train and validation by a hash of their text, and
written as shards into FOLDER.partial, which becomes FOLDER at the end. Interrupted at any moment, the same call goes on after the last
finished shard, and ends with the same fingerprint.
"""
from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from xxhash import xxh3_128_hexdigest

from mltrain.data import tokenizer as tokenizers
from mltrain.data.builder import TRAIN, Round
from mltrain.data.documents import Cursor, Reading, Skipped, SourceFile, find_files, read_documents
from mltrain.data.format import MANIFEST, Manifest, Shard, new_manifest
from mltrain.data.opening import read_manifest
from mltrain.data.tokenizer import Tokenizer
from mltrain.data.workplace import Done, Workplace, storage_errors
from mltrain.errors import DataError, MissingInput, UsageError

SHARD_TOKENS = 1 << 26        # 128 MiB of uint16
_EVERY_DOCUMENTS, _EVERY_BYTES = 256, 1 << 22             # how often progress is told


@dataclass(frozen=True)
class State:
    """How far a prepare is. bytes: of the sources. tokens: of this call."""

    bytes_done: int
    bytes_total: int
    documents: int
    tokens: int


Report = Callable[[State], None]


@dataclass(frozen=True)
class Recipe:
    """What a dataset is made from and how. Equal recipes give equal datasets."""

    files: list[SourceFile]
    tokenizer: Tokenizer
    tokenizer_file: bytes | None
    holdout: float
    shard_tokens: int
    reading: Reading

    def identity(self) -> str:
        """Files count by name, size and time of change: hashing terabytes to find out that nothing changed would take hours."""
        files = [[os.fsencode(file.name), file.size, file.modified] for file in self.files]
        parts = [1, files, self.tokenizer.info, self.holdout, self.shard_tokens, self.reading]
        return xxh3_128_hexdigest(msgspec.json.encode(parts))


@dataclass(frozen=True)
class Prepared:
    """already: it was there before. resumed: shards of an interrupted prepare were used."""

    manifest: Manifest
    already: bool
    resumed: bool
    skipped: Skipped
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the list of shards."""
        counts = {name: {"documents": split.documents, "tokens": split.tokens, "text_bytes": split.text_bytes, "shards": len(split.shards)}
                  for name, split in self.manifest.splits.items()}
        return {"fingerprint": self.manifest.fingerprint, "vocabulary": self.manifest.tokenizer.vocabulary, "splits": counts,
                "already": self.already, "resumed": self.resumed, "skipped": asdict(self.skipped), "seconds": round(self.seconds, 3)}


def prepare(sources: list[str], out: str | os.PathLike[str], *, tokenizer: str = "bytes", holdout: float = 0.05,
            shard_tokens: int = SHARD_TOKENS, field: str = "text", strict: bool = False, report: Report | None = None) -> Prepared:
    """Make a dataset. tokenizer: bytes, or the path of a Hugging Face tokenizer.json. holdout: share of the documents for validation.
    shard_tokens: about how many tokens a shard has. Raises UsageError, DataError, MissingInput, StorageError; nothing is lost then."""
    began, target = time.monotonic(), target_of(out)
    _check_arguments(sources, holdout, shard_tokens)
    kind, content = _open_tokenizer(tokenizer)
    recipe = Recipe(find_files(sources), kind, content, holdout, shard_tokens, Reading(field, strict))
    present = _present(target, recipe.identity())
    if present:
        return Prepared(present, True, False, Skipped(), time.monotonic() - began)
    place = Workplace(target, recipe.identity())
    try:
        resumed, skipped = bool(place.rounds), Skipped()
        manifest = place.manifest or _make(recipe, place, skipped, report)
        with storage_errors(place.folder, "what is finished is kept: run the same command again"):
            place.publish(manifest, {} if content is None else {tokenizers.FILE: content})
        return Prepared(manifest, False, resumed, skipped, time.monotonic() - began)
    finally:
        place.close()


def _make(recipe: Recipe, place: Workplace, skipped: Skipped, report: Report | None) -> Manifest:
    """All rounds that are not done yet."""
    start = Cursor()
    if place.rounds:
        last = place.rounds[-1]
        start = Cursor(last.file, last.at)
        for reason, count in last.skipped.items():
            setattr(skipped, reason, count)
    progress = _Progress(recipe.files, report)
    current = Round(len(place.rounds), recipe.tokenizer, recipe.holdout, recipe.shard_tokens)
    for document, cursor in read_documents(recipe.files, recipe.reading, skipped, start):
        current.add(document)
        progress.update(cursor, current)
        if current.full:
            _write(current, place, cursor, skipped)
            progress.tokens += current.tokens
            current = Round(current.number + 1, recipe.tokenizer, recipe.holdout, recipe.shard_tokens)
    current.balance()
    _write(current, place, Cursor(len(recipe.files), 0), skipped)
    shards: dict[str, list[Shard]] = {name: [] for name in current.splits}
    for done in place.rounds:
        for name, shard in done.shards.items():
            shards[name].append(shard)
    if not shards[TRAIN]:
        raise DataError("the sources hold no text" + _because(skipped), "give text files, folders, .jsonl or .parquet files")
    return new_manifest(recipe.tokenizer.dtype, recipe.tokenizer.info, shards, recipe.identity())


def _write(current: Round, place: Workplace, cursor: Cursor, skipped: Skipped) -> None:
    kept = "what is finished is kept: run the same command again" if place.rounds else "then run the same command again"
    with storage_errors(place.folder, kept):
        shards = current.write(place.folder)
        if shards:
            counts = {reason: count for reason, count in asdict(skipped).items() if isinstance(count, int)}
            place.finish_round(Done(shards, cursor.file, cursor.at, counts))


def _because(skipped: Skipped) -> str:
    left_out = [f"{count} {reason}" for reason, count in asdict(skipped).items() if isinstance(count, int) and count]
    return f" (skipped: {', '.join(left_out)})" if left_out else ""


class _Progress:
    """Tells report now and then how far we are."""

    def __init__(self, files: list[SourceFile], report: Report | None) -> None:
        self.report, self.documents, self.tokens, self._told = report, 0, 0, 0
        self.before = [0]
        for file in files:
            self.before.append(self.before[-1] + file.size)
        self.rows = {index for index, file in enumerate(files) if file.path.suffix == ".parquet"}     # their cursors count rows, not bytes

    def update(self, cursor: Cursor, current: Round) -> None:
        self.documents += 1
        if self.report is None:
            return
        done = self.before[cursor.file] + (0 if cursor.file in self.rows else cursor.at)
        if self.documents % _EVERY_DOCUMENTS == 0 or done - self._told > _EVERY_BYTES:
            self._told = done
            self.report(State(done, self.before[-1], self.documents, self.tokens + current.tokens))


def target_of(out: str | os.PathLike[str]) -> Path:
    text = os.fspath(out)
    if "://" in text:
        raise UsageError(f"--out {text}: a dataset is prepared in a local folder", "copy the folder to the store afterwards")
    return Path(os.path.abspath(os.path.expanduser(text)))


def _check_arguments(sources: list[str], holdout: float, shard_tokens: int) -> None:
    if not sources:
        raise UsageError("no source given", "a source is a text file, a folder, a .jsonl or .parquet file, or python:stdlib")
    if not 0 <= holdout < 1:
        raise UsageError(f"--holdout {holdout} is not a share of the documents: 0 <= holdout < 1")
    if not 1 <= shard_tokens <= 1 << 34:
        raise UsageError(f"--shard-tokens {shard_tokens} is not between 1 and 2**34")


def _open_tokenizer(name: str) -> tuple[Tokenizer, bytes | None]:
    if name == "bytes":
        return tokenizers.Bytes(), None
    try:
        content = Path(name).expanduser().read_bytes()
    except FileNotFoundError:
        raise MissingInput(f"tokenizer {name} is not there", "bytes, or the path of a Hugging Face tokenizer.json") from None
    except OSError as error:
        raise MissingInput(f"tokenizer {name} cannot be read: {error.strerror}") from None
    return tokenizers.HuggingFace(content, name), content


def _present(out: Path, inputs: str) -> Manifest | None:
    """The dataset that is there already, if it was made the same way; refuse to touch anything else."""
    if not out.exists() or out.is_dir() and not any(out.iterdir()):
        return None
    if not (out / MANIFEST).exists():
        raise UsageError(f"{out} exists and is no dataset", "choose another --out")
    manifest = read_manifest(out)[1]
    if manifest.inputs != inputs:
        raise UsageError(f"{out} holds a dataset made from other sources, files that changed since, or with other arguments",
                         f"choose another --out, or remove it first: rm -r {out}")
    return manifest
