"""One binary tree over the micro-batches 0..M-1, whoever computes them: why the same bits come out on any number of ranks.

Floating-point sums depend on their order, never on who adds. So every sum (gradients, losses, weights) follows the same tree:
- lowest levels: the S ranks of a shard group reduce-scatter each micro-batch (`tree_reduce_scatter`);
- middle: what one rank adds up itself, like a binary counter (`Counter`);
- top: the R replicas, once a step (`gradients.py`).
Collectives only move bytes, the additions are ours: an all-to-all brings each rank the W contributions to its part (the optimum
(W-1)/W of the bytes), which it adds pairwise. a + b and b + a are the same bits, so only the shape of the tree matters; of two
contributions there is but one sum, so for W = 2 the library's own all-reduce is exact.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# FSDP2's public set_custom_reduce_scatter takes an object of this class, which has no public name yet (torch 2.11 to 2.13).
from torch.distributed.fsdp._fully_shard._fsdp_api import ReduceScatter

# torch 2.13 renamed all_gather_into_tensor and warns about the old name.
_gather_flat = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def tree_sum(rows: Tensor) -> Tensor:
    """rows: [W, n], W a power of two; used up. Returns [n]: ((0+1)+(2+3))+…"""
    step = 1
    while step < len(rows):
        rows[:: 2 * step].add_(rows[step :: 2 * step])
        step *= 2
    return rows[0]


def tree_reduce_scatter(contributions: Tensor, group: dist.ProcessGroup) -> Tensor:
    """contributions: [W, n], a row for each rank of the group. Returns this rank's row [n], summed over ranks along the tree."""
    return tree_sum(begin_all_to_all(contributions, torch.empty_like(contributions), group)())


class TreeReduceScatter(ReduceScatter):
    """Carries the tree's lowest levels into FSDP2 (FSDPModule.set_custom_reduce_scatter)."""

    def allocate(self, size: Sequence[int | torch.SymInt], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(size, dtype=dtype, device=device)

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, op: object, async_op: bool = False) -> None:
        rows = input_tensor.view(group.size(), -1)
        output_tensor.copy_((tree_reduce_scatter(rows, group) if len(rows) > 1 else rows[0]).view_as(output_tensor))


class Counter:
    """Adds up the gradients of one rank's micro-batches like a binary counter: subtrees of equal size are combined as soon as they
    meet. Holds at most log2(n) + 1 sets of gradients. `add` keeps the tensors it is given and may change them."""

    def __init__(self) -> None:
        self.stack: list[tuple[int, list[Tensor]]] = []

    def add(self, gradients: list[Tensor]) -> None:
        size = 1
        while self.stack and self.stack[-1][0] == size:
            left = self.stack.pop()[1]
            torch._foreach_add_(left, gradients)
            gradients, size = left, 2 * size
        self.stack.append((size, gradients))

    def total(self) -> list[Tensor]:
        """The sum. With a number that is no power of two (native only) what is left is folded from the right."""
        return self.fold(self.stack.pop()[1], range(len(self.stack[0][1]) if self.stack else 0))

    def fold(self, gradients: list[Tensor], indices: Sequence[int]) -> list[Tensor]:
        """The sum with a last set of gradients, for some of the tensors. Uses up what it holds of them."""
        for _, held in reversed(self.stack):
            left = [held[index] for index in indices]
            torch._foreach_add_(left, gradients)
            gradients = left
        return gradients


def begin_all_to_all(contributions: Tensor, received: Tensor, group: dist.ProcessGroup) -> Callable[[], Tensor]:
    """contributions: [W, n], a row for each rank of the group. Returns what waits for this rank's row of each, in `received`: [W, n]."""
    if dist.get_backend(group) == "gloo":
        return _exchange(list(contributions), received, group)
    work: Any = dist.all_to_all_single(received, contributions, group=group, async_op=True)
    return lambda: (work.wait(), received)[1]


def begin_all_gather(row: Tensor, full: Tensor, group: dist.ProcessGroup) -> Callable[[], Tensor]:
    """row: [n], the same n on every rank. Returns what waits for all of them, in `full`: [W * n]."""
    if dist.get_backend(group) == "gloo":
        end = _exchange([row] * group.size(), full.view(group.size(), -1), group)
        return lambda: end().view(-1)
    work: Any = _gather_flat(full, row, group=group, async_op=True)
    return lambda: (work.wait(), full)[1]


def _exchange(rows: list[Tensor], received: Tensor, group: dist.ProcessGroup) -> Callable[[], Tensor]:
    """rows[r] goes to rank r, received[r] comes from there, all at once. gloo's own collectives pass the bytes on round by round and take
    two to three times as long (64 MiB over 4 ranks: an all-gather 162 ms, this 55 ms)."""
    rank, world = dist.get_rank(group), group.size()
    received[rank].copy_(rows[rank])
    others = [(rank + distance) % world for distance in range(1, world)]
    sends = [dist.isend(rows[other], group=group, group_dst=other) for other in others]
    receives = [dist.irecv(received[other], group=group, group_src=other) for other in others]

    def end() -> Tensor:
        for work in (*sends, *receives):
            if work is not None:
                work.wait()
        return received
    return end


def all_gather(mine: Tensor, group: dist.ProcessGroup) -> Tensor:
    """mine: the same shape [...] on every rank. Returns [W, ...]."""
    return begin_gather(mine, group)()


def begin_gather(mine: Tensor, group: dist.ProcessGroup | None) -> Callable[[], Tensor]:
    """The same, in the background: returns what waits for it. group None: of this rank alone."""
    if group is None or group.size() == 1:
        return lambda: mine[None]
    full = torch.empty(group.size() * mine.numel(), dtype=mine.dtype, device=mine.device)
    work: Any = _gather_flat(full, mine.reshape(-1), group=group, async_op=True)
    return lambda: (work.wait(), full.view(group.size(), *mine.shape))[1]


def pairwise(values: list[float]) -> float:
    """Sum of Python floats along the same tree; for a number that is no power of two the odd one out moves up a level."""
    while len(values) > 1:
        values = [sum(values[i : i + 2]) for i in range(0, len(values), 2)]
    return values[0] if values else 0.0


def gather_scalars(local: list[list[float]], group: dist.ProcessGroup | None, device: torch.device) -> list[list[list[float]]]:
    """local: rows of equal length, as many on every rank. Returns the rows of all ranks: [world][row][column], float64, one message."""
    rows: list[list[list[float]]] = begin_gather(torch.tensor(local, dtype=torch.float64, device=device), group)().tolist()
    return rows
