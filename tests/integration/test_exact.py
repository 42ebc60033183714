"""Promise 1: the same bits on any number of ranks, under any layout, in fp32 and with bf16 compute.

Dropout, clipping, accumulation, weight decay, unequal numbers of targets and documents are all in it.
"""
from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from mltrain.models.gpt import GPT
from mltrain.models.language import LanguageModeling
from mltrain.parallel.native import Native
from mltrain.parallel.precision import Precision
from mltrain.progress import Progress
from mltrain.testing.ranks import on_ranks

STEPS, MICRO_BATCHES, MICRO_BATCH, TOKENS = 3, 8, 2, 32
LAYOUTS = [("single", 1, None), ("ddp", 1, None), ("fsdp", 1, None), ("ddp", 2, None), ("fsdp", 2, None), ("ddp", 4, None),
           ("fsdp", 4, None), ("hsdp", 4, 2), ("ddp", 8, None), ("fsdp", 8, None), ("hsdp", 8, 2), ("hsdp", 8, 4)]


def train(rank: int, world: int, *, layout: str, replicate: int | None, compute: str, seed: int = 0, threads: int = 1,
          norm: type[nn.Module] = nn.RMSNorm, reduction: str = "exact", **options: Any) -> tuple[str, list[float]]:
    """(digest of all state, numbers of the last step and of an evaluation)."""
    torch.set_num_threads(threads)
    strategy = Native(layout, replicate, reduction, precision=Precision(compute), clip=0.5, seed=seed, **options)  # type: ignore[arg-type]
    strategy.setup(lambda: normed(LanguageModeling(GPT(257, 64, 3, 4, kv_heads=2, dropout=0.1), ignore=5), norm),
                   partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1), lambda step: 1.0 - 0.1 * step, MICRO_BATCHES)
    data = torch.randint(0, 32, (STEPS, MICRO_BATCHES, MICRO_BATCH, TOKENS + 1), generator=torch.Generator().manual_seed(1))
    data[data == 7] = 256
    progress = Progress()
    for step in range(STEPS):
        result = strategy.train_step(progress, [(i, {"tokens": data[step, i].to(torch.uint16)}) for i in strategy.share()])
        progress = progress.after(MICRO_BATCHES * MICRO_BATCH, MICRO_BATCHES * MICRO_BATCH * TOKENS)
    held_out = strategy.evaluate(3, lambda i: {"tokens": data[0, i].to(torch.uint16)})
    return digest(strategy), [result.loss, result.norm, result.weight, *held_out["loss"]]


def normed(task: LanguageModeling, norm: type[nn.Module]) -> LanguageModeling:
    task.model.norm = norm(64)
    return task


def digest(strategy: Native) -> str:
    sha = hashlib.sha256()
    for name, value in sorted(strategy.state_dict().items()):
        tensor = value.full_tensor() if isinstance(value, DTensor) else value
        sha.update(name.encode() + tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What one plain process gives, by type of compute."""
    return {compute: on_ranks(1, partial(train, layout="single", replicate=None, compute=compute))[0]
            for compute in ("float32", "bfloat16")}


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout, world, replicate", LAYOUTS)
def test_the_same_bits(alone: dict[str, Any], layout: str, world: int, replicate: int | None, compute: str) -> None:
    results = on_ranks(world, partial(train, layout=layout, replicate=replicate, compute=compute))
    assert results == [alone[compute]] * world


def test_recomputed_activations_change_no_bit(alone: dict[str, Any]) -> None:
    assert on_ranks(2, partial(train, layout="fsdp", replicate=None, compute="float32", recompute=True))[0] == alone["float32"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"compute": "bfloat16"}])
def test_what_belongs_to_a_runs_identity_changes_them(alone: dict[str, Any], change: dict[str, Any]) -> None:
    """The controls: digests that never differ would prove nothing."""
    other = on_ranks(1, partial(train, **{"layout": "single", "replicate": None, "compute": "float32", **change}))[0]
    assert other[0] != alone["float32"][0]


def test_so_does_the_number_of_threads() -> None:
    """Seen where an operation adds up in a buffer for each thread, as the backward of LayerNorm does."""
    one, two = (on_ranks(1, partial(train, layout="single", replicate=None, compute="float32", norm=nn.LayerNorm, threads=n))[0]
                for n in (1, 2))
    assert one[0] != two[0] and one[1] == pytest.approx(two[1], rel=1e-3)


def test_native_sums_depend_on_the_number_of_ranks(alone: dict[str, Any]) -> None:
    """The control of the tree: the library's own sums over four ranks give other bits."""
    other = on_ranks(4, partial(train, layout="fsdp", replicate=None, compute="float32", reduction="native"))[0]
    assert other[0] != alone["float32"][0] and other[1] == pytest.approx(alone["float32"][1], rel=1e-3)


def test_compiled_blocks_compute_the_same_within_rounding(alone: dict[str, Any]) -> None:
    """Fused kernels round elsewhere and draw dropout in their own way, so these are other bits; on any number of ranks the same ones."""
    single, sharded = (on_ranks(world, partial(train, layout=layout, replicate=None, compute="float32", compile=True), limit=280)[0]
                       for layout, world in (("single", 1), ("fsdp", 2)))
    assert single[1] == pytest.approx(alone["float32"][1], rel=1e-2)
    assert single == sharded
