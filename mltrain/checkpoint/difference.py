"""How far two saved states are apart, parameter by parameter, however each was sharded. One tensor of each is in memory at a time."""
from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from mltrain.checkpoint.catalog import Chunks
from mltrain.checkpoint.manifest import Manifest
from mltrain.checkpoint.shard import DTYPES
from mltrain.checkpoint.storage import Storage
from mltrain.checkpoint.weights import weights_in

AT_ONCE = 1 << 20                                               # elements in float64


@dataclass(frozen=True, slots=True)
class Change:
    """norm: ‖b − a‖, Euclidean, of all elements. relative: norm / ‖a‖ (infinite where a is all zeros and b is not)."""

    name: str
    shape: tuple[int, ...]
    norm: float
    relative: float


@dataclass(frozen=True, slots=True)
class Difference:
    """changes: largest first, no number before all. only_a, only_b: names that the other lacks. reshaped: name -> both shapes."""

    changes: tuple[Change, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @property
    def same(self) -> bool:
        return not (self.only_a or self.only_b or self.reshaped or any(change.norm != 0 for change in self.changes))

    def to_dict(self) -> dict[str, Any]:
        return {"same": self.same, **asdict(self)}


def difference(a: tuple[Storage, Manifest], b: tuple[Storage, Manifest]) -> Difference:
    """Of parameters and buffers. Raises DataError for damage in what is read."""
    names_a, names_b = weights_in(a[1].tensors), weights_in(b[1].tensors)
    readers = Chunks(*a), Chunks(*b)
    changes, reshaped = [], {}
    for name in sorted(names_a.keys() & names_b.keys()):
        shapes = a[1].tensors[names_a[name]].shape, b[1].tensors[names_b[name]].shape
        if shapes[0] != shapes[1]:
            reshaped[name] = shapes
            continue
        changes.append(Change(name, shapes[0], *_apart(_read(readers[0], a[1], names_a[name]), _read(readers[1], b[1], names_b[name]))))
    changes.sort(key=lambda change: (not math.isnan(change.norm), -change.norm, change.name))
    only = tuple(sorted(names_a.keys() - names_b.keys())), tuple(sorted(names_b.keys() - names_a.keys()))
    return Difference(tuple(changes), *only, reshaped)


def _read(chunks: Chunks, manifest: Manifest, name: str) -> Any:
    """A whole tensor, flat."""
    import torch
    tensor = manifest.tensors[name]
    data = bytearray().join(part for file, piece in manifest.pieces[name] for part in chunks.parts(file, piece))
    dtype = getattr(torch, DTYPES[tensor.dtype][1])
    return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _apart(a: Any, b: Any) -> tuple[float, float]:
    """(‖b − a‖, the same over ‖a‖), in float64."""
    apart = size = 0.0
    for one, other in _slices(a, b):
        one, other = one.double(), other.double()
        apart += float((other - one).square().sum())
        size += float(one.square().sum())
    norm = math.sqrt(apart)
    return norm, norm / math.sqrt(size) if size else (0.0 if norm == 0 else math.inf)


def _slices(a: Any, b: Any) -> Iterator[tuple[Any, Any]]:
    for at in range(0, len(a), AT_ONCE):
        yield a[at:at + AT_ONCE], b[at:at + AT_ONCE]
