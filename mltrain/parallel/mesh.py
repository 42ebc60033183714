"""How many replicas of how many shards, and whether the exact sum holds there: plain integers, no torch.

M micro-batches make a global batch; R replicas hold the model, each cut over S ranks; rank (r, s) is process r·S + s and computes
micro-batches r·M/R + j·S + s for j = 0, 1, …: shards are the lowest levels of the reduction tree, then what one rank adds up itself,
replicas the top. The tree is the same for every R and S exactly when M, R and S are powers of two and R·S divides M.
"""
from __future__ import annotations

import math
from typing import Literal, NamedTuple

from mltrain.errors import ConfigError

Layout = Literal["auto", "single", "ddp", "fsdp", "hsdp"]
Reduction = Literal["auto", "exact", "native"]
MOST_MICRO_BATCHES = 1 << 20             # a step deals with each of them by itself
_SHOWN = 24


class Mesh(NamedTuple):
    """replicas × shards ranks."""

    replicas: int
    shards: int

    @property
    def world(self) -> int:
        return self.replicas * self.shards


def solve(layout: Layout, world: int, replicate: int | None = None) -> Mesh:
    """The mesh of a layout on `world` ranks. Raises ConfigError naming the key to change."""
    if layout != "hsdp" and replicate is not None:
        raise ConfigError(f"strategy.replicate={replicate} has no meaning under strategy={layout}", "strategy=hsdp takes it")
    if layout == "single" and world > 1:
        raise ConfigError(f"strategy=single runs on one worker, not {world}",
                          "strategy=auto picks one that fits, or set launcher.workers=1")
    if layout == "hsdp":
        if not replicate or replicate < 1 or world % replicate:
            raise ConfigError(f"strategy.replicate={replicate} does not divide {world} workers",
                              f"hsdp keeps `replicate` copies, each cut over workers/replicate ranks; possible here: {_divisors(world)}")
        return Mesh(replicate, world // replicate)
    return Mesh(1, world) if layout == "fsdp" else Mesh(world, 1)


def count_micro_batches(global_batch: int, micro_batch: int | None) -> int:
    """M. micro_batch None: the most micro-batches of equal size among 8, 4, 2, 1; never a function of the number of ranks."""
    if micro_batch is None:
        return next(m for m in (8, 4, 2, 1) if global_batch % m == 0)
    if micro_batch < 1 or global_batch < 1 or global_batch % micro_batch:
        raise ConfigError(f"micro_batch={micro_batch} does not divide global_batch={global_batch}",
                          f"possible: {_divisors(max(1, global_batch))}")
    if (count := global_batch // micro_batch) > MOST_MICRO_BATCHES:
        raise ConfigError(f"micro_batch={micro_batch} cuts global_batch={global_batch} into {count} micro-batches",
                          "set a larger micro_batch, or a smaller global_batch")
    return count


def share(mesh: Mesh, rank: int, micro_batches: int) -> list[int]:
    """Indices of the micro-batches that `rank` computes, in order."""
    if micro_batches % mesh.world:
        raise ConfigError(f"{micro_batches} micro-batches (global_batch / micro_batch) cannot be dealt to {mesh.world} workers",
                          f"set micro_batch so that their number is a multiple of {mesh.world}, or use fewer workers")
    replica, shard = divmod(rank, mesh.shards)
    first = replica * (micro_batches // mesh.replicas)
    return [first + j * mesh.shards + shard for j in range(micro_batches // mesh.world)]


def why_inexact(mesh: Mesh, micro_batches: int) -> str:
    """Why one binary tree does not hold here, or "" if it does."""
    for value, name in ((micro_batches, "micro-batches"), (mesh.replicas, "replicas"), (mesh.shards, "shards")):
        if value & (value - 1):
            return f"{value} {name} are no power of two"
    return ""


def choose_reduction(reduction: Reduction, mesh: Mesh, micro_batches: int) -> tuple[Literal["exact", "native"], str]:
    """What is used, and the warning if that is not exact although nobody asked for native. `exact` where it cannot hold is an error."""
    reason = why_inexact(mesh, micro_batches)
    if reduction == "exact" and reason:
        raise ConfigError(f"strategy.reduction=exact cannot hold: {reason}",
                          "choose powers of two for global_batch / micro_batch and the workers, or strategy.reduction=native")
    if reduction == "native":
        return "native", ""
    return ("native", f"{reason}: weights will depend on the number of workers") if reason else ("exact", "")


def _divisors(n: int) -> str:
    """The smaller ones are found by trial; above a million nobody chooses from a list."""
    small = [d for d in range(1, min(math.isqrt(n), 1 << 20) + 1) if n % d == 0]
    found = sorted({*small, *(n // d for d in small)})
    return " ".join(map(str, found[:_SHOWN])) + (" ..." if len(found) > _SHOWN else "")
