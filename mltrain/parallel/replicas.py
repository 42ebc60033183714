"""Do replicas hold the same bytes? One digest a rank, compared with those of the ranks that hold the same shard.

After each step replicas have added up the same gradients and made the same update, so weights and optimizer state are equal to the bit,
under the exact and the native reduction alike. A difference is a fault of a processor, a memory or a link. It stays: whatever was flipped
in weights, optimizer state or a reduced gradient, and whenever, the next comparison shows it. What one rank computes wrong before the sum
reaches all alike and cannot be seen here.

Buffers are left out (running statistics may differ by right).
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from xxhash import xxh3_64

from mltrain.parallel.reduction import all_gather
from mltrain.parallel.state import local
from mltrain.parallel.strategy import State


class Part(NamedTuple):
    """Of one rank. shard: which part of the state it holds; replicas hold the same. digest: of its bytes, 64 bits, signed."""

    shard: int
    digest: int


class Difference(NamedTuple):
    """ranks: that differ from the majority of their replicas. certain: False where a shard had no majority; then all that hold it."""

    ranks: list[int]
    certain: bool


def parts(state: State) -> list[Part]:
    """By rank. A collective of 16 bytes a rank: all ranks learn it, so that all can act alike. Reads the whole local state."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [Part(0, 0)]                                    # nothing to compare with
    total, shard, device = xxh3_64(), 0, torch.device("cpu")
    for name in sorted(state):
        value = state[name]
        if name.startswith("buffers/"):
            continue
        if isinstance(value, DTensor):
            shard = value.device_mesh.get_local_rank()
        device = local(value).device if name.startswith("parameters/") else device
        total.update(local(value).detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    mine = Part(shard, int.from_bytes(total.digest(), "big", signed=True))
    group = dist.group.WORLD
    assert group is not None
    return [Part(*row) for row in all_gather(torch.tensor(mine, dtype=torch.int64, device=device), group).tolist()]


def compare(found: Sequence[Part]) -> Difference | None:
    """found: by rank. None: all replicas agree."""
    ranks: list[int] = []
    certain = True
    for shard in sorted({part.shard for part in found}):
        members = [rank for rank, part in enumerate(found) if part.shard == shard]
        (digest, votes), *others = Counter(found[rank].digest for rank in members).most_common()
        if others and 2 * votes > len(members):
            ranks += [rank for rank in members if found[rank].digest != digest]
        elif others:
            ranks, certain = ranks + members, False
    return Difference(sorted(ranks), certain) if ranks else None
