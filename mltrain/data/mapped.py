"""All shards of a split, mapped (or read into memory, where the store is remote) and checked before anybody gets a view on them."""
from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

from mltrain.data import shard as shards_
from mltrain.data.format import COLUMN, Shard
from mltrain.data.shard import Documents
from mltrain.data.store import Store, allow_descriptors


class Mapped:
    """All shards of a split, mapped and checked (see shard.check). Raises DataError, MissingInput."""

    def __init__(self, store: Store, shards: list[Shard], dtype: str) -> None:
        allow_descriptors(len(shards))
        self.dtype, self.shards = dtype, shards
        self.maps: list[mmap.mmap] = []
        for shard in shards:
            content = store.map(shard.name, shard.bytes)
            shards_.check(shard, content, dtype, store.where(shard.name))
            self.maps.append(content)

    def addresses(self) -> NDArray[np.int64]:
        """Where each shard's tokens begin, [shards]."""
        starts = [np.frombuffer(content, np.uint8).ctypes.data + shard.columns[COLUMN].values
                  for content, shard in zip(self.maps, self.shards, strict=True)]
        return np.array(starts, np.int64)

    def documents(self) -> list[Documents]:
        return [Documents(shard, content, self.dtype) for shard, content in zip(self.shards, self.maps, strict=True)]
