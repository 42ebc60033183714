"""What every peer trains: a small GPT on batches that are ready in memory, AdamW, clipping at 1, on CPU with one thread.

A peer calls `clock.tick()` after each optimizer step; `clock.report()` prints the median of the timed groups and a sum of weights.
"""
from __future__ import annotations

import json
import os
import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mltrain.models.gpt import GPT

STEPS, WARM, GROUP = 240, 40, 40
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
    """Times groups of steps after the warm ones; the median group counts, so that one bad moment does not."""

    def __init__(self) -> None:
        self.steps, self.began, self.first, self.groups = 0, 0.0, 0.0, []

    def tick(self) -> None:
        self.steps += 1
        if self.steps == 1:
            self.first = time.time()
        if self.steps >= WARM and (self.steps - WARM) % GROUP == 0:
            now = time.perf_counter()
            if self.steps > WARM:
                self.groups.append((now - self.began) / GROUP * 1e6)
            self.began = now

    def report(self, net: nn.Module) -> None:
        if RANK == 0:
            weights = sum(p.detach().double().abs().sum().item() for p in net.parameters())
            figures = {"us": statistics.median(self.groups), "steps": self.steps, "weights": weights, "first": self.first}
            print("\n" + json.dumps(figures), flush=True)
