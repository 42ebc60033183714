"""What does the exact sum cost? One gradient (4 and 64 MiB) and a whole step, beside the library's own sums and raw DDP and FSDP2, on gloo.

usage: python benchmarks/reduction.py [--ranks 2,4] [--rounds 7]
"""
from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import Table, machine  # noqa: E402

from mltrain.models.gpt import GPT  # noqa: E402
from mltrain.models.language import LanguageModeling  # noqa: E402
from mltrain.parallel.gradients import Bucket  # noqa: E402
from mltrain.parallel.native import Native  # noqa: E402
from mltrain.parallel.reduction import tree_reduce_scatter  # noqa: E402
from mltrain.progress import Progress  # noqa: E402
from mltrain.testing.ranks import on_ranks  # noqa: E402

MICRO_BATCHES, MICRO_BATCH, TOKENS, VOCABULARY = 4, 4, 128, 4096


def timed(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds; variants take turns, every other round backwards. On every rank the same sequence, so collectives meet."""
    figures: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name in list(variants) if number % 2 == 0 else reversed(list(variants)):
            dist.barrier()
            began = time.perf_counter()
            variants[name]()
            if number:                                       # the first round is for caches and connections
                figures[name].append((time.perf_counter() - began) * 1e3)
    return figures


def whole_sum(flat: torch.Tensor, group: dist.ProcessGroup) -> Callable[[], object]:
    """As a step makes it, here without a backward to hide behind."""
    bucket = Bucket([0])

    def total() -> None:
        bucket.leave([flat], group, exact=True)
        bucket.reduced()()
    return total


def collectives(rank: int, world: int, *, mebibytes: int, rounds: int) -> dict[str, list[float]]:
    group = dist.group.WORLD
    flat = torch.randn(mebibytes << 18)
    rows = flat.view(world, -1)
    part, copy = torch.empty_like(rows[0]), torch.empty_like(flat)
    return timed({
        "all-reduce, native": lambda: dist.all_reduce(copy.copy_(flat)),
        "all-reduce, exact": whole_sum(flat, group),  # type: ignore[arg-type]
        "reduce-scatter, native": lambda: dist.reduce_scatter_tensor(part, flat),
        "reduce-scatter, exact": lambda: tree_reduce_scatter(rows, group),  # type: ignore[arg-type]
    }, rounds)


def model() -> LanguageModeling:
    torch.manual_seed(0)
    return LanguageModeling(GPT(VOCABULARY, width=256, layers=4, heads=4), separator=None)


def raw(net: nn.Module, data: list[dict[str, torch.Tensor]]) -> Callable[[], None]:
    """A hand-written step: accumulate, reduce with the last micro-batch, clip, update."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)

    def step() -> None:
        for number, batch in enumerate(data):
            if hasattr(net, "set_requires_gradient_sync"):
                net.set_requires_gradient_sync(number == len(data) - 1)
            elif isinstance(net, nn.parallel.DistributedDataParallel):
                net.require_backward_grad_sync = number == len(data) - 1
            total, weight = net(batch)
            (total / (weight * len(data))).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return step


def ours(layout: str, reduction: str, data: list[dict[str, torch.Tensor]]) -> Callable[[], None]:
    strategy = Native(layout, reduction=reduction, clip=1.0)  # type: ignore[arg-type]
    strategy.setup(model(), partial(torch.optim.AdamW, lr=1e-3), lambda step: 1.0, MICRO_BATCHES)
    mine = list(zip(strategy.share(), data, strict=True))
    return lambda: strategy.train_step(Progress(), mine) and None


def steps(rank: int, world: int, *, layout: str, rounds: int) -> dict[str, list[float]]:
    torch.manual_seed(rank)
    data = [{"tokens": torch.randint(0, VOCABULARY, (MICRO_BATCH, TOKENS + 1))} for _ in range(MICRO_BATCHES // world)]
    net: nn.Module = model()
    if layout == "ddp":
        net = nn.parallel.DistributedDataParallel(net)
    else:
        for block in net.model.blocks:  # type: ignore[union-attr]
            fully_shard(block)
        fully_shard(net)
    name = {"ddp": "raw DDP", "fsdp": "raw FSDP2"}[layout]
    return timed({name: raw(net, data), f"{layout}, native": ours(layout, "native", data), f"{layout}, exact": ours(layout, "exact", data)},
                 rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="2,4")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for world in map(int, options.ranks.split(",")):
        for mebibytes in (4, 64):
            figures = on_ranks(world, partial(collectives, mebibytes=mebibytes, rounds=options.rounds), limit=300)[0]
            print(Table(f"A gradient of {mebibytes} MiB over {world} ranks", "ms", figures, None, False).markdown())
        for layout in ("ddp", "fsdp"):
            figures = on_ranks(world, partial(steps, layout=layout, rounds=options.rounds), limit=300)[0]
            print(Table(f"A step of a 4.2 M parameter GPT, {layout} over {world} ranks, {MICRO_BATCHES} micro-batches", "ms", figures, None,
                        False).markdown())
    print(machine())


if __name__ == "__main__":
    main()
