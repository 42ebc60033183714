"""Samples that lie in memory, whole: column -> tensor [samples, ...]."""
from __future__ import annotations

import json
from functools import cached_property

import numpy as np
import torch
from xxhash import xxh3_128

from mltrain.data.dataset import Batch
from mltrain.data.order import Ids
from mltrain.errors import DataError


class Arrays:
    """A dataset of samples that are no text: it counts no tokens."""

    tokens_per_sample = 0

    def __init__(self, columns: Batch) -> None:
        if len({len(column) for column in columns.values()}) != 1:
            lengths = {name: len(column) for name, column in columns.items()}
            raise DataError(f"columns of one dataset have the same length, not {lengths}")
        self.columns = columns
        self.schema = {name: str(column.dtype).removeprefix("torch.") for name, column in columns.items()}

    @cached_property
    def fingerprint(self) -> str:
        digest = xxh3_128()
        for name, column in sorted(self.columns.items()):
            digest.update(json.dumps([name, self.schema[name], list(column.shape)]).encode())
            digest.update(column.contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def fetch(self, ids: Ids) -> Batch:
        index = np.asarray(ids, np.int64)
        if len(index) and not 0 <= index.min() <= index.max() < len(self):
            raise IndexError(f"sample {index.min()} or {index.max()} of {len(self)}")
        return {name: column[torch.from_numpy(index)] for name, column in self.columns.items()}
