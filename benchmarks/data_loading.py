"""How many samples a second does the loader deliver, against a raw memory-mapped loop over one flat file and torch's DataLoader?

Sequences of 2,048 uint16 tokens in batches of 16, one thread, pages in memory. The loader computes and checks its order on the way, out
of 16 Arrow shards, in the stored type; the raw loop reads an order made before, out of one flat file, and widens to int64, which is what an
embedding on the host takes (beside it: not widened). Every first batch is compared: all deliver the same tokens.

    python benchmarks/data_loading.py [--samples 65536] [--rounds 9] [--seconds 0.25]
"""
from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import torch
from harness import Variant, compare, per_call
from torch.utils.data import DataLoader, Dataset

from mltrain.data import format, shard
from mltrain.data.dataset import TokenDataset
from mltrain.data.format import TokenizerInfo
from mltrain.data.loader import Loader
from mltrain.data.order import SampleOrder
from mltrain.data.store import Store
from mltrain.progress import Progress

SEQUENCE, BATCH, SHARDS = 2048, 16, 16


def make_data(folder: Path, samples: int) -> tuple[TokenDataset, np.ndarray]:
    """The same tokens as 16 shards and as one flat file (mapped, [samples, SEQUENCE]); every page of both is in memory afterwards."""
    rng, shards = np.random.default_rng(1), []
    with open(folder / "flat.bin", "wb") as flat:
        for number in range(SHARDS):
            tokens = rng.integers(0, 60_000, samples // SHARDS * SEQUENCE + 1, dtype=np.uint16)
            lengths = np.full(len(tokens) // 1000, 1000)
            lengths = np.append(lengths, len(tokens) - lengths.sum())
            shards.append(shard.write(folder / f"train-{number:05d}.arrow", tokens, lengths, 0))
            flat.write(tokens[:-1].tobytes())
    manifest = format.new_manifest("uint16", TokenizerInfo("bytes", 60_000, 256), {"train": shards}, "")
    dataset = TokenDataset(Store(folder), manifest, "train", SEQUENCE)
    for content in dataset.windows.mapped.maps:
        np.frombuffer(content, np.uint8)[::4096].sum()
    flat_rows = np.asarray(np.memmap(folder / "flat.bin", np.uint16, "c")).reshape(-1, SEQUENCE)
    flat_rows[:, ::2048].sum()
    return dataset, flat_rows


class Rows(Dataset):
    """What people write around a memory map."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.rows[index])


def loader(dataset: TokenDataset, read_ahead: int) -> Iterator[torch.Tensor]:
    for step in Loader(dataset, global_batch=BATCH, micro_batch=BATCH, seed=1, read_ahead=read_ahead).batches(Progress()):
        yield step[0][1]["tokens"]


def raw(rows: np.ndarray, widen: bool) -> Iterator[torch.Tensor]:
    order = SampleOrder(len(rows), 1).ids(0, len(rows))
    while True:
        for start in range(0, len(order) - BATCH + 1, BATCH):
            batch = rows[order[start:start + BATCH]]
            yield torch.from_numpy(batch.astype(np.int64) if widen else batch)


def peer(rows: np.ndarray) -> Iterator[torch.Tensor]:
    for epoch in count():
        shuffle = torch.Generator().manual_seed(epoch)
        yield from DataLoader(Rows(rows), batch_size=BATCH, shuffle=True, generator=shuffle, drop_last=True)


def rate(batches: Iterator[torch.Tensor], seconds: float) -> Variant:
    """Samples a second; the last batch stays alive, as in a training loop."""
    def measure() -> float:
        done, began = 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds:
            kept = next(batches)
            done += len(kept)
        return done / passed
    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=65_536)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dataset, rows = make_data(Path(folder), options.samples)
        ours, limit = next(loader(dataset, 0)), next(raw(rows, widen=False))
        if not torch.equal(ours[:, :-1], limit):
            raise SystemExit("the loader and the raw loop deliver different tokens")
        print(compare("How many samples of 2,048 tokens a second?", {
            "Loader": rate(loader(dataset, 0), options.seconds),
            "Loader, reading ahead": rate(loader(dataset, 2), options.seconds),
            "raw loop, int64": rate(raw(rows, widen=True), options.seconds),
            "raw loop, stored type": rate(raw(rows, widen=False), options.seconds),
            "DataLoader over a memory map": rate(peer(rows), options.seconds),
        }, unit="samples/s", limit="raw loop, stored type", higher=True, rounds=options.rounds).markdown())
    orders = {n: SampleOrder(n, 1) for n in (10**6, 10**9, 10**12)}
    print(compare("What do the ids of a batch cost at 70% of an epoch?", {
        f"1,024 of {n:,} samples": per_call(lambda n=n, order=order: order.ids(n * 7 // 10, n * 7 // 10 + 1024), 50)
        for n, order in orders.items()}, unit="µs", rounds=options.rounds).markdown())


if __name__ == "__main__":
    main()
