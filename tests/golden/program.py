"""A fixed small training, in this process: prints the kind of processor and, for each precision, losses and a digest of all state, as JSON.

Run by test_numerics.py (and `make numerics`) with the instruction sets pinned, so that a digest means the arithmetic alone.
"""
from __future__ import annotations

import hashlib
import json
import platform
import re
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch.distributed.tensor import DTensor

from mltrain.models.gpt import GPT
from mltrain.models.language import LanguageModeling
from mltrain.optim.schedules import cosine
from mltrain.parallel.native import Native
from mltrain.parallel.precision import Precision
from mltrain.progress import Progress

STEPS, MICRO_BATCHES, MICRO_BATCH, TOKENS = 5, 4, 2, 24


def kind() -> str:
    """What the bits may depend on: processor model, instruction set in use, torch."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = [re.search(rf"^{name}\s*:\s*(.+)$", text, re.MULTILINE) for name in ("vendor_id", "cpu family", "model")]
    cpu = "-".join(match[1] for match in found if match) or platform.processor()
    return f"{platform.machine()} {cpu} {torch.backends.cpu.get_cpu_capability()} torch-{torch.__version__.split('+')[0]}"


def train(compute: Literal["float32", "bfloat16"], seed: int = 0) -> dict[str, object]:
    strategy = Native("single", reduction="exact", precision=Precision(compute), clip=0.5, seed=seed)
    strategy.setup(lambda: LanguageModeling(GPT(257, 48, 2, 4, kv_heads=2, dropout=0.1), ignore=5),
                   partial(torch.optim.AdamW, lr=1e-2, eps=1e-3), cosine(STEPS, warmup=2), MICRO_BATCHES)
    data = torch.randint(0, 40, (STEPS, MICRO_BATCHES, MICRO_BATCH, TOKENS + 1), generator=torch.Generator().manual_seed(1))
    data[data == 7] = 256
    losses, progress = [], Progress()
    for step in range(STEPS):
        result = strategy.train_step(progress, [(i, {"tokens": data[step, i].to(torch.uint16)}) for i in strategy.share()])
        progress = progress.after(MICRO_BATCHES * MICRO_BATCH, MICRO_BATCHES * MICRO_BATCH * TOKENS)
        losses += [result.loss, result.norm]
    return {"digest": digest(strategy), "losses": losses}


def digest(strategy: Native) -> str:
    sha = hashlib.sha256()
    for name, value in sorted(strategy.state_dict().items()):
        tensor = value.full_tensor() if isinstance(value, DTensor) else value
        sha.update(name.encode() + tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:32]


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases = {"fp32": train("float32"), "bf16": train("bfloat16"), "fp32 seed 1": train("float32", seed=1)}
    print(json.dumps({"kind": kind(), "cases": cases}))
