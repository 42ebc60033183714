"""What a loader reads: a fixed number of samples, fetched by id.

    ds = open_dataset("data/stdlib", "train", sequence=256)
    ds.fetch(np.array([3, 1])) -> {"tokens": uint16 [2, 257]}

A sample is a window of sequence + 1 tokens at stride `sequence`: inputs are [:, :-1], targets [:, 1:]. Windows do not cross shards.
Tokens are delivered in their stored type: half the bytes to send to an accelerator, which widens them itself.
"""
from __future__ import annotations

import os
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from xxhash import xxh3_128_hexdigest

from mltrain.data.format import COLUMN, Manifest
from mltrain.data.gather import Places, Windows, windows_of
from mltrain.data.mapped import Mapped
from mltrain.data.opening import read_manifest
from mltrain.data.order import Ids, SampleOrder
from mltrain.data.store import Store
from mltrain.errors import DataError

Batch = dict[str, torch.Tensor]      # column name -> [k, ...]


class Dataset(Protocol):
    """The contract. schema: column -> element type. fingerprint: equal for equal samples in equal order.
    tokens_per_sample: how many a sample adds to the count of tokens."""

    schema: dict[str, str]
    tokens_per_sample: int

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def fetch(self, ids: Ids) -> Batch:
        """Samples by id, in this order: column -> [k, ...]. Raises IndexError for an id outside."""


@runtime_checkable
class Located(Protocol):
    """A dataset that can check the ids of many batches at once: fetch(ids) is gather(locate(ids))."""

    def locate(self, ids: Ids) -> Places: ...

    def gather(self, places: Places) -> Batch: ...


class TokenDataset:
    """Windows of one split. Counts and fingerprint come from the manifest; shards are mapped and checked at the first sample."""

    def __init__(self, store: Store, manifest: Manifest, split: str, sequence: int) -> None:
        if sequence < 1:
            raise DataError(f"a sequence has at least one token, not {sequence}")
        self.store, self.manifest, self.split, self.sequence = store, manifest, split, sequence
        self.shards = manifest.splits[split].shards
        self.schema = {COLUMN: manifest.dtype}
        self.tokens_per_sample = sequence
        self.fingerprint = xxh3_128_hexdigest(f"{manifest.fingerprint} {split} {sequence}".encode())
        self._length = sum(windows_of(shard.tokens, sequence + 1, sequence) for shard in self.shards)

    def __len__(self) -> int:
        return self._length

    @cached_property
    def windows(self) -> Windows:
        return Windows(Mapped(self.store, self.shards, self.manifest.dtype), self.sequence + 1, self.sequence)

    def locate(self, ids: Ids) -> Places:
        return self.windows.locate(ids)

    def gather(self, places: Places) -> Batch:
        return {COLUMN: torch.from_numpy(self.windows.gather(places))}

    def fetch(self, ids: Ids) -> Batch:
        return self.gather(self.locate(np.asarray(ids, np.int64)))


class Subset:
    """Some samples of a dataset, by their ids. Ids of the subset are 0 .. len(ids) - 1."""

    def __init__(self, dataset: Dataset, ids: Ids) -> None:
        self.dataset, self.chosen = dataset, ids
        self.schema, self.tokens_per_sample = dataset.schema, dataset.tokens_per_sample
        self.fingerprint = xxh3_128_hexdigest(f"{dataset.fingerprint} {xxh3_128_hexdigest(ids.tobytes())}".encode())

    def __len__(self) -> int:
        return len(self.chosen)

    def fetch(self, ids: Ids) -> Batch:
        return self.dataset.fetch(self.chosen[np.asarray(ids, np.int64)])


def some_of(dataset: Dataset, count: int) -> Dataset:
    """The first `count` samples of one fixed shuffle, for a validation of fixed cost; the whole dataset if it has no more."""
    if count >= len(dataset):
        return dataset
    return Subset(dataset, SampleOrder(len(dataset), seed=0).ids(0, count))


def open_dataset(path: str | os.PathLike[str], split: str, sequence: int) -> TokenDataset:
    """Open one split. path: a local folder or an fsspec URL. Raises DataError, MissingInput."""
    store, manifest = read_manifest(path)
    return open_split(store, manifest, split, sequence)


def open_split(store: Store, manifest: Manifest, split: str, sequence: int) -> TokenDataset:
    if split not in manifest.splits:
        raise DataError(f"{store.path} has no split {split}, only {', '.join(manifest.splits)}")
    dataset = TokenDataset(store, manifest, split, sequence)
    if not len(dataset):
        longest = max((shard.tokens for shard in dataset.shards), default=0)
        raise DataError(f"{store.path}: split {split} has no window of {sequence} + 1 tokens (its longest shard has {longest})",
                        "choose a smaller data.sequence, or prepare more text")
    return dataset
