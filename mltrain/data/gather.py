"""Batches out of any number of mapped shards in one call, faster than a loop over one flat file.

A Python statement for each row (pick the shard, slice, copy) halves the rate. The remedy: all mapped shards lie in ONE address space, so
one numpy view over that space, whose index is the address, gathers rows of all shards at once. Nothing is copied or reserved for the view.
As it could read anything, it is fenced into this file: `Places` are only made by `locate`, which checks ids against the shards, whose
buffers were checked against their files when they were mapped; and whoever holds Windows holds the mappings.
Tried without gain: torch.index_select (7 us more a call), reused buffers (half the rate: fresh memory stays in the cache), sorted ids.
"""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mltrain.data.mapped import Mapped
from mltrain.data.order import Ids
from mltrain.data.shard import PAGE, Tokens
from mltrain.errors import NodeUnfit

_SPACE = (1 << 47) - 2 * PAGE          # user addresses of x86-64 and arm64 with 48 bits; the view begins at PAGE


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
        self.mapped, self.length, self.stride, self.dtype = mapped, length, stride, np.dtype(mapped.dtype)
        counts = [windows_of(shard.tokens, length, stride) for shard in mapped.shards]
        self._first = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._begin = (mapped.addresses() - PAGE) // self.dtype.itemsize
        ends = self._begin + np.array([shard.tokens for shard in mapped.shards], np.int64)
        if len(ends) and not (0 <= self._begin.min() and ends.max() < _SPACE // self.dtype.itemsize):
            raise NodeUnfit("this system maps files at addresses above 2**47, which the reader does not know")
        self._rows = _address_space(self.dtype, length)

    def __len__(self) -> int:
        return int(self._first[-1])

    def locate(self, ids: Ids) -> Places:
        """Places of these ids, [k]. Best called for many batches at once. Raises IndexError for an id outside the dataset."""
        if len(ids) and (ids.min() < 0 or ids.max() >= len(self)):
            raise IndexError(f"ids {ids.min()} to {ids.max()} are not all among the {len(self)} samples")
        shard = np.searchsorted(self._first, ids, "right") - 1
        return Places(self._begin[shard] + (ids - self._first[shard]) * self.stride, self)

    def gather(self, places: Places) -> Tokens:
        """[k, length] in the stored type, freshly allocated."""
        if places.owner is not self:
            raise ValueError("these places belong to another dataset")
        rows: Tokens = self._rows[places.at].view(self.dtype).reshape(len(places.at), self.length)
        return rows


def _address_space(dtype: np.dtype[np.generic], length: int) -> NDArray[np.void]:
    """The address space as a read-only array: element i is the `length` items of dtype at address PAGE + i * itemsize, as one void item
    (elements overlap), so that a one-dimensional fancy index copies whole rows."""
    class Space:
        __array_interface__ = {
            "version": 3, "data": (PAGE, True), "strides": (dtype.itemsize,), "shape": (_SPACE // dtype.itemsize - length + 1,),
            "typestr": f"|V{length * dtype.itemsize}",
        }
    return np.asarray(Space())
