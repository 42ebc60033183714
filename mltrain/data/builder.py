"""From documents to shards: a round collects documents until one split has enough for a shard, then writes one shard for each split.

All splits are cut at the same document, so that an interrupted prepare has one place to go on from. A document's split follows from a hash
of its text: equal documents share a split, and adding a source moves no document that was there.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from mltrain.data import shard
from mltrain.data.format import Shard
from mltrain.data.shard import Tokens
from mltrain.data.tokenizer import Tokenizer

TRAIN, VALIDATION = "train", "validation"
_BATCH = 4 << 20              # bytes of text tokenised at once: large enough to vectorise, small enough to stay in the cache


def draw(document: bytes) -> float:
    """A number in [0, 1) that follows from the text alone."""
    return xxh3_64_intdigest(document) / 2.0 ** 64


class SplitBuilder:
    """The documents of one split in this round, as tokens."""

    def __init__(self, tokenizer: Tokenizer, batch: int) -> None:
        self.tokenizer, self.batch = tokenizer, batch
        self.waiting: list[bytes] = []
        self.waiting_bytes = self.text_bytes = self.tokens = self.rows = 0
        self.chunks: list[Tokens] = []
        self.lengths: list[NDArray[np.int64]] = []

    def add(self, document: bytes) -> None:
        self.waiting.append(document)
        self.waiting_bytes += len(document)
        self.rows += 1
        if self.waiting_bytes >= self.batch:
            self.encode()

    def encode(self) -> None:
        if self.waiting:
            tokens, lengths = self.tokenizer.encode(self.waiting)
            self.chunks.append(tokens)
            self.lengths.append(lengths)
            self.tokens += len(tokens)
            self.text_bytes += self.waiting_bytes
            self.waiting, self.waiting_bytes = [], 0

    def take(self, row: int, document: bytes) -> None:
        """Remove one document."""
        self.encode()
        tokens, lengths = self._joined(), np.concatenate(self.lengths)
        begin = int(lengths[:row].sum())
        self.chunks = [tokens[:begin], tokens[begin + int(lengths[row]):]]
        self.lengths = [np.delete(lengths, row)]
        self.tokens, self.text_bytes, self.rows = self.tokens - int(lengths[row]), self.text_bytes - len(document), self.rows - 1

    def _joined(self) -> Tokens:
        tokens: Tokens = np.concatenate(self.chunks, dtype=np.dtype(self.tokenizer.dtype))
        return tokens

    def write(self, path: Path) -> Shard:
        self.encode()
        return shard.write(path, self._joined(), np.concatenate(self.lengths), self.text_bytes)


class Round:
    """number: of this round, 0 is the first. holdout: share of documents for validation."""

    def __init__(self, number: int, tokenizer: Tokenizer, holdout: float, shard_tokens: int) -> None:
        self.number, self.holdout, self.shard_tokens = number, holdout, shard_tokens
        batch = min(_BATCH, shard_tokens)
        self.splits = {TRAIN: SplitBuilder(tokenizer, batch)}
        if holdout > 0:
            self.splits[VALIDATION] = SplitBuilder(tokenizer, batch)
        self._extreme: dict[str, tuple[float, int, bytes]] = {}

    def add(self, document: bytes) -> None:
        number = draw(document) if self.holdout else 1.0
        name = VALIDATION if number < self.holdout else TRAIN
        builder = self.splits[name]
        if self.number == 0:
            # Kept in case the other split ends up empty: train's document nearest to validation, and the other way round.
            distance = abs(number - self.holdout)
            if name not in self._extreme or distance < self._extreme[name][0]:
                self._extreme[name] = (distance, builder.rows, document)
        builder.add(document)

    @property
    def full(self) -> bool:
        return any(builder.tokens >= self.shard_tokens for builder in self.splits.values())

    @property
    def tokens(self) -> int:
        return sum(builder.tokens for builder in self.splits.values())

    def balance(self) -> None:
        """A small set may leave a split without a document. If nothing has been written yet, move the one that came nearest to it;
        a single document goes to train."""
        if self.number or VALIDATION not in self.splits:
            return
        rows = {name: builder.rows for name, builder in self.splits.items()}
        if rows[TRAIN] == 0 and rows[VALIDATION]:
            self._move(VALIDATION, TRAIN)
        elif rows[VALIDATION] == 0 and rows[TRAIN] > 1:
            self._move(TRAIN, VALIDATION)

    def _move(self, source: str, target: str) -> None:
        _, row, document = self._extreme[source]
        self.splits[source].take(row, document)
        self.splits[target].add(document)

    def write(self, folder: Path) -> dict[str, Shard]:
        """One shard for every split that has a document. Raises OSError."""
        return {name: builder.write(folder / f"{name}-{self.number:05d}.arrow") for name, builder in self.splits.items() if builder.rows}
