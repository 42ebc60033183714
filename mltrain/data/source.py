"""What a recipe's `data` names: a prepared dataset of tokens, cut into windows for training and validation."""
from __future__ import annotations

import os
import sys
from functools import cached_property
from typing import Annotated, Any

from msgspec import Meta

from mltrain.data.builder import TRAIN, VALIDATION
from mltrain.data.dataset import Dataset, open_split, some_of
from mltrain.data.format import MANIFEST, Manifest
from mltrain.data.opening import read_manifest
from mltrain.data.prepare import Prepared, Report, prepare, target_of
from mltrain.data.store import Store
from mltrain.data.tokenizer import Tokenizer, open_tokenizer
from mltrain.data.workplace import Busy, wait_for_other
from mltrain.errors import MissingInput

Positive = Annotated[int, Meta(ge=1)]


class Tokens:
    """Windows of `sequence` tokens (and one more, the last target) of a dataset made by `mltrain data prepare`.

    path: its folder, or an fsspec URL. source: what to prepare it from if it is not there (see `prepare`). validation_samples: how many
    windows of the validation split count, the first ones of a fixed shuffle (default: all).
    Nothing is read before it is needed; fingerprint and counts come from the manifest alone."""

    def __init__(self, path: str, sequence: Positive, source: str | list[str] | None = None,
                 validation_samples: Positive | None = None) -> None:
        self.path, self.sequence, self.validation_samples = path, sequence, validation_samples
        self.sources = [source] if isinstance(source, str) else list(source or [])

    @cached_property
    def _opened(self) -> tuple[Store, Manifest]:
        return read_manifest(self.path)

    @property
    def manifest(self) -> Manifest:
        return self._opened[1]

    @property
    def fingerprint(self) -> str:
        """Of the dataset, whatever the sequence. Raises MissingInput, DataError."""
        return self.manifest.fingerprint

    @cached_property
    def train(self) -> Dataset:
        """Raises MissingInput (66) if the dataset is not there, DataError (65) if it is damaged or shorter than the sequence."""
        return open_split(*self._opened, TRAIN, self.sequence)

    @cached_property
    def validation(self) -> Dataset | None:
        """None if nothing was held out."""
        store, manifest = self._opened
        if VALIDATION not in manifest.splits or not manifest.splits[VALIDATION].shards:
            return None
        dataset = open_split(store, manifest, VALIDATION, self.sequence)
        return dataset if self.validation_samples is None else some_of(dataset, self.validation_samples)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return open_tokenizer(self._opened[0], self.manifest.tokenizer)

    def describe(self) -> dict[str, Any]:
        """What a run records of its data. bytes_per_token: UTF-8 bytes of text for each token (separators count as tokens), of the
        validation split if there is one: bits per byte = loss / ln 2 / bytes_per_token."""
        tokenizer, splits = self.manifest.tokenizer, self.manifest.splits
        held_out = splits.get(VALIDATION, splits[TRAIN])
        counted = held_out if held_out.tokens else splits[TRAIN]
        return {
            "path": self.path, "fingerprint": self.fingerprint, "sequence": self.sequence, "dtype": self.manifest.dtype,
            "tokenizer": tokenizer.kind, "vocabulary": tokenizer.vocabulary, "separator": tokenizer.separator,
            "bytes_per_token": counted.text_bytes / counted.tokens,
            "documents": {name: split.documents for name, split in splits.items()},
            "tokens": {name: split.tokens for name, split in splits.items()},
            "samples": {TRAIN: len(self.train), VALIDATION: 0 if self.validation is None else len(self.validation)},
        }

    def prepare(self, report: Report | None = None) -> Prepared | None:
        """Make sure the dataset is there: if it is not, prepare it from `source`. Returns None if it was there. Raises MissingInput (66)
        with the command to run if there is no source. Call it in one process, before the workers start."""
        if Store(self.path).exists(MANIFEST):
            return None
        if not self.sources:
            raise MissingInput(f"no dataset at {self.path}", f"make it: mltrain data prepare SOURCE... --out {os.fspath(self.path)}")
        while True:
            try:
                prepared = prepare(self.sources, self.path, report=report)
            except Busy:                         # two runs that begin at once on a new machine: one makes the data, both use it
                print(f"mltrain: waiting for another process that prepares {self.path}", file=sys.stderr, flush=True)
                wait_for_other(target_of(self.path))
            else:
                self.__dict__.pop("_opened", None)
                return prepared
