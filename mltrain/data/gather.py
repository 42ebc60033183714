"""Batches out of any number of mapped shards in one call, faster than a loop over one flat file.

A Python statement for each row (pick the shard, slice, copy) halves the rate. The remedy: all mapped shards lie in ONE address space, so
one numpy view over that space, whose index is the address, gathers rows of all shards at once. Nothing is copied or reserved for the view.
As it could read anything, it is fenced into this file: `Places` are only made by `locate`, which checks ids against the shards, whose
buffers were checked against their files when they were mapped; and whoever holds Windows holds the mappings.
"""
from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

from mltrain.data import shard as shards_
from mltrain.data.format import COLUMN, Shard
from mltrain.data.order import Ids
from mltrain.data.shard import PAGE, Documents, Tokens
from mltrain.data.store import Store, allow_descriptors
from mltrain.errors import DataError

_SPACE = (1 << 47) - 2 * PAGE          # user addresses of x86-64 and arm64 with 48 bits; the view begins at PAGE


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


class Places:
    """Checked places of windows in the address space, only for the Windows that made them. Slices are places too."""

    __slots__ = ("at", "owner")

    def __init__(self, at: Ids, owner: Windows) -> None:
        self.at, self.owner = at, owner

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, part: slice) -> Places:
        return Places(self.at[part], self.owner)


def windows_of(tokens: int, length: int, stride: int) -> int:
    """How many windows of `length` tokens, one every `stride`, a stream of so many tokens has."""
    return max(0, (tokens - length) // stride + 1)


class Windows:
    """Windows of `length` tokens, one every `stride`, of the token stream of every shard. Ids go through the shards in order."""

    def __init__(self, mapped: Mapped, length: int, stride: int) -> None:
        self.mapped, self.length, self.stride = mapped, length, stride
        self.dtype = np.dtype(mapped.dtype)
        counts = [windows_of(shard.tokens, length, stride) for shard in mapped.shards]
        self._first = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._begin = (mapped.addresses() - PAGE) // self.dtype.itemsize
        if len(self._begin) and not 0 <= self._begin.min() <= self._begin.max() < _SPACE // self.dtype.itemsize - (1 << 40):
            raise DataError("shards were mapped at addresses above 2**47, which this reader does not know")
        self._view = _address_view(self.dtype, length)

    def __len__(self) -> int:
        return int(self._first[-1])

    def locate(self, ids: Ids) -> Places:
        """Places of these ids, [k]. Best called for many batches at once. Raises IndexError for an id outside the dataset."""
        if len(ids) and (ids.min() < 0 or ids.max() >= len(self)):
            raise IndexError(f"ids {ids.min()} to {ids.max()} are not all among the {len(self)} samples")
        shard = np.searchsorted(self._first, ids, "right") - 1
        return Places(self._begin[shard] + (ids - self._first[shard]) * self.stride, self)

    def gather(self, places: Places) -> Tokens:
        """[k, length], freshly allocated, in the stored type."""
        if places.owner is not self:
            raise ValueError("these places belong to another dataset")
        rows: Tokens = self._view[places.at].view(self.dtype).reshape(len(places), self.length)
        return rows


def _address_view(dtype: np.dtype[np.generic], length: int) -> NDArray[np.void]:
    """The address space as a read-only array: element i is the `length` items of dtype at address PAGE + i * itemsize, as one void item
    (elements overlap), so that a one-dimensional fancy index copies whole rows."""
    class Space:
        __array_interface__ = {
            "version": 3, "data": (PAGE, True), "strides": (dtype.itemsize,), "shape": (_SPACE // dtype.itemsize - length,),
            "typestr": f"|V{length * dtype.itemsize}",
        }
    return np.asarray(Space())
