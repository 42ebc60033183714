"""The copy: a state's own rows go into one of two reused buffers, which is all that a save costs the step.

Two, so that a save need not wait for the one before it, and a whole snapshot always exists. With both still on their way to the disk,
the older is waited for: saving faster than the disk writes slows training down to the disk, it never loses a save.
"""
from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mltrain.checkpoint import planner
from mltrain.checkpoint.buffer import CONTROL, Buffer, allocate
from mltrain.checkpoint.shard import Piece, Table, build_header

if TYPE_CHECKING:
    import torch


def signature(state: Mapping[str, torch.Tensor]) -> list[Any]:
    """Equal for two states that the same buffers fit: names, types, shapes and placements."""
    keys = ("dtype", "shape", "placements", "device_mesh")
    return [(name, *(getattr(tensor, key, None) for key in keys)) for name, tensor in state.items()]


class Snapshot:
    """Two buffers for states of one signature. Tensors may be other objects at each save; names, shapes and placements stay."""

    def __init__(self, state: Mapping[str, torch.Tensor], rank: int, world: int) -> None:
        self.signature = signature(state)
        self.table: Table = planner.describe(state)
        rows = planner.own_rows(state, self.table, rank, world)
        header, pieces = build_header(self.table, rows, whole=rank == 0)
        self.image_bytes = max([len(header), *(piece.end for piece in pieces.values())])
        self.buffers: list[Buffer] = []
        self._names, self._views = list(pieces), []
        for _ in range(2):
            buffer = Buffer(allocate(self.image_bytes))
            buffer.bytes[CONTROL:CONTROL + len(header)] = header
            self.buffers.append(buffer)
            self._views.append([_view(buffer, piece, planner.local_part(state[name])) for name, piece in pieces.items()])

    def free_slot(self, seconds: float, check: Callable[[], None], all_of_them: bool = False) -> int | None:
        """The older settled buffer; waits for one (or for both), calling `check` (which notices a dead writer), and gives up after
        `seconds`: None."""
        limit, pause = time.monotonic() + seconds, 0.0005
        while len(free := [slot for slot, buffer in enumerate(self.buffers) if buffer.settled]) < (2 if all_of_them else 1):
            check()
            if time.monotonic() > limit:
                return None
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        return min(free, key=lambda slot: self.buffers[slot].sequence)

    def copy(self, slot: int, state: Mapping[str, torch.Tensor]) -> None:
        """Fills a buffer. Returns when the bytes are there (tensors on an accelerator included)."""
        import torch
        self.buffers[slot].open()
        parts = [planner.local_part(state[name]) for name in self._names]
        with torch.no_grad():
            pairs = [(view, part) for view, part in zip(self._views[slot], parts, strict=True) if part.numel()]
            if pairs:
                torch._foreach_copy_([view for view, _ in pairs], [part for _, part in pairs])

    def close(self) -> None:
        """Gives up the descriptors; the memory goes when the writer is done with it too."""
        for buffer in self.buffers:
            if buffer.fd >= 0:
                os.close(buffer.fd)
                buffer.fd = -1


def _view(buffer: Buffer, piece: Piece, like: torch.Tensor) -> torch.Tensor:
    """A tensor over the bytes of a piece, in the shape of the local part."""
    import torch
    if not like.numel():
        return torch.empty(like.shape, dtype=like.dtype)
    return torch.frombuffer(buffer.map, dtype=like.dtype, count=like.numel(), offset=CONTROL + piece.begin).view(like.shape)
