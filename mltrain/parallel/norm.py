"""The norm of a gradient, the same bits however its rows are spread over ranks.

FSDP2 cuts parameters along the first dimension and never splits a row. So: a norm for each row where it lies, the rows of all shards
gathered in parameter order, and one sum over them in float64 that every rank makes in the same order. (A float64 sum of per-rank partial
sums would be cheaper and equal only most of the time.)
"""
from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from mltrain.parallel.reduction import all_gather


def row_norms(gradient: Tensor) -> Tensor:
    """gradient: [rows, ...] or 0-d. Returns [rows], float32: the norm of each row. A row of a vector is one element."""
    if gradient.dim() < 2:
        return gradient.reshape(-1).float()
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1, dtype=torch.float32)
    return norms


def gradient_norm(gradients: list[Tensor], rows: list[int], shards: dist.ProcessGroup | None) -> Tensor:
    """gradients: this rank's rows of each parameter (FSDP2's chunks: ceil(rows / S) each, the last ones shorter or empty).
    rows: number of rows of each whole parameter. shards: the group they are cut over, None when whole. Returns a 0-d float64 tensor."""
    parts = [row_norms(g) for g in gradients]
    if shards is not None and shards.size() > 1:
        parts = _gather(parts, rows, shards)
    return torch.cat(parts).double().square().sum().sqrt()


def _gather(parts: list[Tensor], rows: list[int], group: dist.ProcessGroup) -> list[Tensor]:
    """parts: this rank's rows of each parameter. Returns all rows of each, in order: one message for all parameters."""
    world = group.size()
    chunks = [-(-n // world) for n in rows]
    mine = torch.cat([torch.nn.functional.pad(p, (0, c - p.numel())) for p, c in zip(parts, chunks, strict=True)])
    return [column.reshape(-1)[:n] for column, n in zip(torch.split(all_gather(mine, group), chunks, dim=1), rows, strict=True)]
