"""States to save, and a way to write a step as any number of ranks would, without processes."""
from __future__ import annotations

import time

import torch

from mltrain.checkpoint.buffer import CONTROL, Buffer, allocate, encode_document
from mltrain.checkpoint.planner import describe
from mltrain.checkpoint.shard import build_header
from mltrain.checkpoint.writer import settle

NUMBERS = {"saved": 1.0, "plain": {}, "keep": 0, "held": [], "retired": []}


def small_state(add: float = 0.0) -> dict[str, torch.Tensor]:
    return {
        "parameters/weight": torch.arange(42, dtype=torch.float32).view(7, 6) + add, "parameters/bias": torch.arange(5).bfloat16() + add,
        "optimizer/weight/step": torch.tensor(3.0) + add, "buffers/seen": torch.arange(3) + int(add),
        "buffers/none": torch.empty(0, 4), "buffers/mask": torch.tensor([True, False]),
    }


def rows_of(tensor: torch.Tensor, cuts: list[int], rank: int) -> tuple[int, int]:
    """Rows of one rank, when a tensor is cut at `cuts` (as far as it has rows)."""
    edges = [0, *sorted(min(cut, len(tensor)) for cut in cuts), len(tensor)]
    return edges[rank], edges[rank + 1] - edges[rank]


def seal(path, state, rows, *, step=1, attempt=1, rank=0, world=1, sequence=1, **document) -> Buffer:
    """A sealed buffer of one rank that holds rows[name] = (first, number) of the tensors."""
    header, pieces = build_header(describe(state), rows, whole=rank == 0)
    size = max([len(header), *(piece.end for piece in pieces.values())])
    buffer = Buffer(allocate(size))
    buffer.bytes[CONTROL:CONTROL + len(header)] = header
    for name, piece in pieces.items():
        part = state[name][piece.first:piece.first + piece.rows] if state[name].dim() else state[name]
        buffer.bytes[CONTROL + piece.begin:CONTROL + piece.end] = part.reshape(-1).view(torch.uint8).numpy().tobytes()
    progress = {"step": step, "samples": step, "tokens": 0}
    buffer.seal(sequence, size, encode_document({"path": str(path), "step": step, "attempt": attempt, "rank": rank, "world": world,
                                                "progress": progress, **NUMBERS, **document}))
    return buffer


def save_cut(path, state, cuts, *, step=1, attempt=1) -> bool:
    """Writes a step as len(cuts) + 1 ranks would. Scalars and empty tensors are rank 0's. Returns whether it was committed."""
    committed = False
    for rank in range(len(cuts) + 1):
        rows = {}
        for name, tensor in state.items():
            if tensor.dim() == 0 or tensor.numel() == 0:
                if rank == 0:
                    rows[name] = (0, len(tensor) if tensor.dim() else 1)
            elif (own := rows_of(tensor, cuts, rank))[1]:
                rows[name] = own
        buffer = seal(path, state, rows, step=step, attempt=attempt, rank=rank, world=len(cuts) + 1)
        committed = settle(buffer)
        assert buffer.written, buffer.error
    return committed


def wait_for(condition, seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.002)
