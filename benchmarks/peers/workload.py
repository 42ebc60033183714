"""What every peer trains: a small GPT on batches that are ready in memory, AdamW, clipping at 1, on CPU with one thread.

A peer calls `clock.tick()` after each optimizer step; `clock.report()` prints when the first one was done.
"""
from __future__ import annotations

import json
import os
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from turns import Turns

from mltrain.models.gpt import GPT

STEPS, WARM, GROUP = int(os.environ.get("BENCH_STEPS", 4000)), 100, 25
BATCH, TOKENS, VOCABULARY = 8, 32, 257
WORLD, RANK = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))


def model() -> nn.Module:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return GPT(VOCABULARY, width=32, layers=2, heads=2)


def batches() -> list[Tensor]:
    """This rank's part of 64 global batches: int64 [BATCH / WORLD, TOKENS + 1] each."""
    drawn = torch.randint(0, 256, (64, BATCH, TOKENS + 1), generator=torch.Generator().manual_seed(1))
    return list(drawn.chunk(WORLD, dim=1)[RANK])


def optimizer(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3)  # type: ignore[arg-type]


def loss(net: nn.Module, tokens: Tensor) -> Tensor:
    return F.cross_entropy(net(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


class Clock:
    """Rank 0 tells how long each group of steps took, and waits for its turn to make the next one; the other ranks wait for rank 0."""

    def __init__(self) -> None:
        self.steps, self.began, self.first = 0, 0.0, 0.0
        self.turns = Turns() if RANK == 0 else None

    def tick(self) -> None:
        self.steps += 1
        if self.steps == 1:
            self.first = time.time()
        if self.turns and self.steps >= WARM and (self.steps - WARM) % GROUP == 0:
            self.turns.next(time.perf_counter() - self.began)
            self.began = time.perf_counter()

    def report(self) -> None:
        if RANK == 0:
            print("\n" + json.dumps({"first": self.first}), flush=True)
