"""What the ranks of a job have to agree on: a few words from rank 0, and whether all went well. One process alone agrees with itself.

Only tensors travel (JSON as bytes on the group's device): no object collectives, nothing is unpickled.
"""
from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Ranks:
    """rank of world, over torch's default process group if world > 1."""

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """From torch.distributed, if it is initialised. Not imported for this: a process that has not imported it has no group."""
        distributed = sys.modules.get("torch.distributed")
        if distributed is None or not distributed.is_available() or not distributed.is_initialized():
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def broadcast(self, document: Any, source: int = 0) -> Any:
        """`document` of rank `source` (others' is ignored), on all ranks. JSON."""
        if self.world == 1:
            return document
        import torch
        import torch.distributed as dist
        text = json.dumps(document).encode() if self.rank == source else b""
        length = torch.tensor([len(text)], device=_device())
        dist.broadcast(length, source)
        data = torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(int(length), dtype=torch.uint8)
        data = data.to(_device())
        dist.broadcast(data, source)
        return json.loads(bytes(data.cpu().numpy()))

    def first(self, document: Any) -> Any:
        """The document of the lowest rank that has one (not None), on all ranks; None when none has."""
        if self.world == 1:
            return document
        import torch
        import torch.distributed as dist
        lowest = torch.tensor([self.world if document is None else self.rank], device=_device())
        dist.all_reduce(lowest, dist.ReduceOp.MIN)
        return None if int(lowest) == self.world else self.broadcast(document, int(lowest))


def _device() -> Any:
    """Where collectives of the default group take their tensors."""
    import torch
    import torch.distributed as dist
    accelerator = torch.accelerator.current_accelerator()
    return torch.device("cpu") if accelerator is None or "gloo" in str(dist.get_backend()) else accelerator
