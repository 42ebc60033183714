"""Does the house cost tokens? The same GPT on the same tokens for the same steps in a plain loop (nanoGPT's style) and by our Trainer.

usage: python benchmarks/train_real.py [--turns 12]        one process each, one thread, text of Python's standard library

Both are there at once and change places every two steps; a figure is of ten steps, in which mltrain saves one checkpoint.
"""
from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from harness import Table  # noqa: E402
from turns import Player, Turns, measure  # noqa: E402

BATCH, MICRO_BATCH, TOKENS, LR, WARM = 16, 8, 256, 2e-3, 10
SLICE, SLICES = 2, 5


class Watch:
    """Counts steps, keeps losses, and waits for its turn after each slice."""

    def __init__(self, losses: str) -> None:
        self.turns, self.began, self.steps, self.losses = Turns(), 0.0, 0, open(losses, "w", buffering=1)  # noqa: SIM115  to the end

    def step(self, loss: float) -> None:
        self.losses.write(f"{loss!r}\n")
        self.steps += 1
        if self.steps >= WARM and (self.steps - WARM) % SLICE == 0:
            self.turns.next(time.perf_counter() - self.began)
            self.began = time.perf_counter()


def plain(data: str, steps: int, watch: Watch) -> None:
    """A loop anybody would write: a memory map, accumulation over two micro-batches, clipping, AdamW, a cosine."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    from mltrain.data.order import SampleOrder
    net = _model()
    stream, count = _stream(data)
    order = SampleOrder(count, 0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(steps):
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
        watch.step(total)


def ours(data: str, steps: int, watch: Watch) -> None:
    """The Trainer with everything on: loader, metrics into a file, checkpoints, the exact sum."""
    import torch

    from mltrain import Callback, Checkpointer, Loader, Trainer
    from mltrain.data.source import Tokens
    from mltrain.metrics.writer import Metrics
    from mltrain.models.language import LanguageModeling
    from mltrain.optim.schedules import cosine
    from mltrain.parallel.native import Native

    class Watching(Callback):
        def step(self, progress: object, result: object) -> None:
            watch.step(result.loss)  # type: ignore[attr-defined]

    folder = tempfile.mkdtemp(prefix="bench-")
    Trainer(LanguageModeling(_model()), Loader(Tokens(data, TOKENS).train, global_batch=BATCH, micro_batch=MICRO_BATCH),
            partial(torch.optim.AdamW, lr=LR, betas=(0.9, 0.95), weight_decay=0.1), steps=steps, schedule=cosine(steps),
            strategy=Native("single", clip=1.0), checkpointer=Checkpointer(f"{folder}/checkpoints", every=SLICE * SLICES),
            metrics=Metrics(directory=folder, steps=steps), callbacks=[Watching()]).fit()


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
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    steps = WARM + SLICE * SLICES * (options.turns + 1) + 1
    if options.one:
        kind, data, losses = options.one
        {"plain": plain, "ours": ours}[kind](data, steps, Watch(losses))
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        data = f"{folder}/stdlib"
        prepare = [sys.executable, "-m", "mltrain", "data", "prepare", "python:stdlib", "--out", data]
        subprocess.run(prepare, check=True, capture_output=True)
        players = {name: Player([sys.executable, str(Path(__file__).resolve()), "--turns", str(options.turns), "--one", kind, data,
                                 f"{folder}/{kind}"]) for name, kind in {"a plain loop": "plain", "mltrain": "ours"}.items()}
        measure(players, options.turns, SLICES)
        plains, ourss = ([float(line) for line in Path(folder, kind).read_text().splitlines()] for kind in ("plain", "ours"))
    tokens = SLICE * SLICES * BATCH * TOKENS
    figures = {name: [tokens / seconds for seconds in each.seconds] for name, each in players.items()}
    print(Table("The same GPT on the same tokens", "tokens/s", figures, None, True).markdown())
    ratio = statistics.median(a / b for a, b in zip(figures["mltrain"], figures["a plain loop"], strict=True))
    apart = max(abs(a - b) / a for a, b in zip(plains, ourss, strict=True))
    print(f"ratio, median of the turns' own: {ratio:.3f}; loss curves of {len(plains)} steps differ by at most {apart:.1e}, relative "
          f"(first {ourss[0]:.4f}, last {ourss[-1]:.4f})")


if __name__ == "__main__":
    main()
