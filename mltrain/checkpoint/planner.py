"""Who writes what: every rank computes alone, without a message, which rows of which tensors are its own to write.

A DTensor cut along dimension 0 is written by its shards. What several ranks hold (replicas, plain tensors) is written by one of them: the
one whose ranks have the fewest bytes so far. All ranks walk the same list in the same order, so all come to the same answer. If their
states differed, the joined sidecars would not make up a whole state, and the commit says so.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy

from mltrain.checkpoint.shard import DTYPES, NAME_LIMIT, Table, Tensor
from mltrain.errors import ConfigError

if TYPE_CHECKING:
    import torch

Rows = tuple[int, int]                                          # first row, number of rows
NAMES = {torch_name: name for name, (_, torch_name) in DTYPES.items()}


def describe(state: Mapping[str, torch.Tensor]) -> Table:
    """Whole tensors of a state. Raises ConfigError for what a checkpoint cannot hold, naming it."""
    import torch
    table = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not 0 < len(name) <= NAME_LIMIT or name == "__metadata__":
            raise ConfigError(f"checkpoint state: {str(name)[:80]!r} is no name for a tensor", f"a string of 1 to {NAME_LIMIT} characters")
        if not isinstance(tensor, torch.Tensor):
            raise ConfigError(f"checkpoint state: {name} is a {type(tensor).__name__}, not a tensor", "small JSON state goes into plain=")
        dtype = NAMES.get(str(tensor.dtype).removeprefix("torch."))
        if dtype is None or tensor.layout != torch.strided:
            raise ConfigError(f"checkpoint state: {name} is {tensor.dtype}, {tensor.layout}; it cannot be saved",
                              "convert it to a dense tensor of real numbers")
        table[name] = Tensor(dtype, tuple(tensor.shape))
    return table


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a tensor (shares memory)."""
    to_local = getattr(tensor, "to_local", None)
    part: torch.Tensor = tensor.detach() if to_local is None else to_local().detach()
    return part


def own_rows(state: Mapping[str, torch.Tensor], table: Table, rank: int, world: int) -> dict[str, Rows]:
    """Name -> the rows that this rank writes. Tensors without any element belong to one rank too, so that they are in some file."""
    loads, own = numpy.zeros(world, dtype=numpy.int64), {}
    for name in sorted(table, key=lambda name: (-table[name].nbytes, name)):
        ranks, rows = _holders(name, state[name], table[name], rank, world)
        copy = int(loads[ranks].sum(axis=1).argmin())
        loads[ranks[copy]] += table[name].nbytes // ranks.shape[1]
        place = numpy.argwhere(ranks == rank)
        if len(place) and place[0][0] == copy and (rows[1] or (table[name].nbytes == 0 and place[0][1] == 0)):
            own[name] = rows if table[name].nbytes else (0, table[name].rows)
    return own


def _holders(name: str, value: torch.Tensor, tensor: Tensor, rank: int, world: int) -> tuple[Any, Rows]:
    """Who holds a tensor: ranks[copy, part], copies of all parts; and the rows that this rank holds."""
    placements = getattr(value, "placements", None)
    if placements is None:
        return numpy.arange(world).reshape(world, 1), (0, tensor.rows)
    from torch.distributed.tensor import DTensor, Replicate, Shard
    assert isinstance(value, DTensor)
    if any(not isinstance(p, Replicate) and not (type(p) is Shard and p.dim == 0) for p in placements):
        raise ConfigError(f"checkpoint state: {name} is placed as {placements}; only Shard(0) and Replicate() can be saved",
                          "redistribute it, or cut it along dimension 0")
    mesh = value.device_mesh.mesh.numpy()
    copies = [d for d, p in enumerate(placements) if isinstance(p, Replicate)]
    parts = [d for d in range(mesh.ndim) if d not in copies]
    grid = mesh.transpose(copies + parts).reshape(-1, int(numpy.prod([mesh.shape[d] for d in parts], dtype=int)))
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
    shape, offset = compute_local_shape_and_global_offset(value.shape, value.device_mesh, placements)
    rows = (offset[0], shape[0]) if shape else (0, 1)
    return _over_the_world(name, grid, world), rows


def _over_the_world(name: str, grid: Any, world: int) -> Any:
    """A mesh may span a part of the ranks (FSDP within a node, replicas by somebody else): the same tensor then lies on all such groups,
    side by side (ranks 0 1 | 2 3) or strided (0 2 | 1 3)."""
    ranks = numpy.sort(grid.ravel())
    if len(ranks) == world:
        return grid
    size, first = len(ranks), int(ranks[0])
    if world % size == 0:
        stride = world // size
        if first % size == 0 and (ranks == numpy.arange(first, first + size)).all():
            return numpy.concatenate([grid - first + group * size for group in range(stride)])
        if first < stride and (ranks == first + stride * numpy.arange(size)).all():
            return numpy.concatenate([grid - first + group for group in range(stride)])
    raise ConfigError(f"checkpoint state: {name} lies on ranks {ranks.tolist()[:8]} of {world}: who else holds it cannot be told",
                      "use a mesh over all ranks, or equal groups of neighbouring ranks")
