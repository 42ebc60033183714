"""mltrain's Trainer as a run uses it: loader, checkpoints, metrics into a file, pulse, and the exact reduction."""
from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from mltrain import Callback, Checkpointer, Loader, Trainer
from mltrain.data.prepare import prepare
from mltrain.data.source import Tokens
from mltrain.metrics.writer import Metrics
from mltrain.models.language import LanguageModeling
from mltrain.parallel.native import Native
from peers.workload import BATCH, STEPS, TOKENS, WORLD, Clock, model, optimizer

folder = Path(os.environ.get("BENCH_FOLDER") or tempfile.mkdtemp(prefix="bench-"))


class Ticking(Callback):
    def step(self, progress, result):  # noqa: ANN001, ANN201
        clock.tick()


def data() -> Tokens:
    if int(os.environ.get("RANK", 0)) == 0 and not (folder / "data" / "manifest.json").exists():
        text = np.random.default_rng(0).integers(32, 127, 400_000, dtype=np.uint8).tobytes()
        (folder / "text.txt").write_bytes(text)
        prepare([str(folder / "text.txt")], folder / "data", holdout=0.0)
    if WORLD > 1:
        dist.barrier()
    return Tokens(str(folder / "data"), TOKENS)


if __name__ == "__main__":
    clock = Clock()
    torch.set_num_threads(1)
    if WORLD > 1:
        dist.init_process_group("gloo")
    trainer = Trainer(
        LanguageModeling(model(), separator=None), Loader(data().train, global_batch=BATCH, micro_batch=BATCH // WORLD), optimizer,
        steps=STEPS,
        strategy=Native("ddp" if WORLD > 1 else "single", clip=1.0), checkpointer=Checkpointer(folder / "checkpoints", every=100),
        metrics=Metrics(directory=str(folder), steps=STEPS), callbacks=[Ticking()])
    trainer.fit()
    clock.report()
    if "BENCH_FOLDER" not in os.environ and WORLD == 1:
        shutil.rmtree(folder)
    sys.stdout.flush()
