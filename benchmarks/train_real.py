"""Does the house cost tokens? The same GPT on the same tokens for the same steps in a plain loop (nanoGPT's style) and by our Trainer.

usage: python benchmarks/train_real.py [--steps 60] [--rounds 3]        one process, one thread, text of Python's standard library
"""
from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from harness import compare  # noqa: E402

BATCH, MICRO_BATCH, TOKENS, LR, WARM = 16, 8, 256, 2e-3, 10


def plain(data: str, steps: int) -> dict[str, object]:
    """A loop anybody would write: a memory map, accumulation over two micro-batches, clipping, AdamW, a cosine."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    from mltrain.data.order import SampleOrder
    net = _model()
    stream, count = _stream(data)
    order = SampleOrder(count, 0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.1)
    losses, began = [], 0.0
    for step in range(steps):
        if step == WARM:
            began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = LR * (0.1 + 0.9 * (1 + math.cos(math.pi * step / steps)) / 2)
        total = 0.0
        for part in order.ids(step * BATCH, (step + 1) * BATCH).reshape(-1, MICRO_BATCH):
            rows = torch.from_numpy(np.stack([stream[i * TOKENS:i * TOKENS + TOKENS + 1] for i in part]).astype(np.int64))
            x, y = rows[:, :-1], rows[:, 1:]
            loss = F.cross_entropy(net(x, (x == 256).cumsum(1)).flatten(0, 1), y.flatten()) / (BATCH // MICRO_BATCH)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
    return {"seconds": time.perf_counter() - began, "losses": losses}


def ours(data: str, steps: int) -> dict[str, object]:
    """The Trainer with everything on: loader, metrics into a file, a checkpoint, the exact sum."""
    import torch

    from mltrain import Callback, Checkpointer, Loader, Trainer
    from mltrain.data.source import Tokens
    from mltrain.metrics.writer import Metrics
    from mltrain.models.language import LanguageModeling
    from mltrain.optim.schedules import cosine
    from mltrain.parallel.native import Native
    losses: list[float] = []
    times: list[float] = []

    class Recording(Callback):
        def step(self, progress: object, result: object) -> None:
            losses.append(result.loss)  # type: ignore[attr-defined]
            times.append(time.perf_counter())

    folder = tempfile.mkdtemp(prefix="bench-")
    Trainer(LanguageModeling(_model()), Loader(Tokens(data, TOKENS).train, global_batch=BATCH, micro_batch=MICRO_BATCH),
            partial(torch.optim.AdamW, lr=LR, betas=(0.9, 0.95), weight_decay=0.1), steps=steps, schedule=cosine(steps),
            strategy=Native("single", clip=1.0), checkpointer=Checkpointer(f"{folder}/checkpoints", every=steps // 2),
            metrics=Metrics(directory=folder, steps=steps), callbacks=[Recording()]).fit()
    return {"seconds": times[-1] - times[WARM - 1], "losses": losses}


def _model():  # noqa: ANN202
    import torch

    from mltrain.models.gpt import GPT
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return GPT(257, width=128, layers=4, heads=4)


def _stream(data: str):  # noqa: ANN202
    """The one shard's tokens, flat, as nanoGPT's train.bin would hold them; number of windows."""
    import numpy as np

    from mltrain.data.dataset import open_dataset
    dataset = open_dataset(data, "train", TOKENS)
    path = Path(data) / "flat.bin"
    if not path.exists():
        windows = dataset.fetch(np.arange(len(dataset)))["tokens"].numpy()
        np.concatenate([windows[:, :-1].reshape(-1), windows[-1, -1:]]).tofile(path)
    return np.memmap(path, np.uint16, "r"), len(dataset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps({"plain": plain, "ours": ours}[options.one[0]](options.one[1], options.steps)))
        return
    data = str(Path(tempfile.mkdtemp(prefix="bench-")) / "stdlib")
    subprocess.run([sys.executable, "-m", "mltrain", "data", "prepare", "python:stdlib", "--out", data], check=True, capture_output=True)
    curves: dict[str, list[float]] = {}

    def run(kind: str) -> float:
        """Tokens a second."""
        command = [sys.executable, str(Path(__file__).resolve()), "--one", kind, data, "--steps", str(options.steps)]
        done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        curves[kind] = done["losses"]
        return float((options.steps - WARM) * BATCH * TOKENS / done["seconds"])

    variants = {"a plain loop": lambda: run("plain"), "mltrain": lambda: run("ours")}
    table = compare("The same GPT on the same tokens", variants, unit="tokens/s", rounds=options.rounds, higher=True)
    print(table.markdown())
    apart = max(abs(a - b) / a for a, b in zip(curves["plain"], curves["ours"], strict=True))
    print(f"ratio {table.better('mltrain', 'a plain loop'):.3f}; loss curves of {options.steps} steps differ by at most {apart:.1e}, "
          f"relative (first {curves['ours'][0]:.4f}, last {curves['ours'][-1]:.4f})")


if __name__ == "__main__":
    main()
