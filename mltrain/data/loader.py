"""Global batches, cut into micro-batches of one fixed size, of which a rank reads its own.

    loader = Loader(dataset, global_batch=64, micro_batch=8, seed=1)
    for micro_batches in loader.batches(after=Progress()):          # endless: the epoch is position // len(dataset)
        for index, batch in micro_batches: ...                      # batch["tokens"]: [8, sequence + 1]

The state of a loader is `Progress.samples`, the position in the endless stream of samples: a step takes the next global_batch positions,
whatever earlier steps took, so a change of the batch size loses and repeats nothing. Micro-batch i of a step is positions
[i * micro_batch, (i + 1) * micro_batch) after it. Which ids come at which positions depends on seed and dataset alone, so the global
batches are the same for any number of ranks and from any point of resume.
"""
from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from mltrain.data.dataset import Batch, Dataset, Located
from mltrain.data.order import Order, SampleOrder, Sequential
from mltrain.data.read_ahead import ReadAhead
from mltrain.errors import ConfigError
from mltrain.progress import Progress

Step = list[tuple[int, Batch]]        # (index of the micro-batch, its columns)
_IDS_AT_ONCE = 1 << 14                # ids computed and checked in one go: below, the cost of a numpy call dominates (60 us a call)


class Loader:
    """dataset: anything with len, schema, fingerprint, fetch. global_batch, micro_batch: in samples. indices: the micro-batches this rank
    reads (None: all; the Trainer sets them). shuffle: a new full shuffle in each epoch, else the dataset's own order. read_ahead: steps
    that a thread reads ahead; 0: no thread (it hides nearly all reading behind a step that computes, and costs 0.04 ms a step otherwise).

    waited: seconds that the last step had to be waited for.

    Where there is an accelerator, batches lie in pinned buffers that are used again: a step's tensors stay valid until the second step
    after it is taken. Elsewhere each step has its own tensors. Raises ConfigError for sizes that do not divide."""

    def __init__(self, dataset: Dataset, *, global_batch: int, micro_batch: int, seed: int = 0, indices: Sequence[int] | None = None,
                 shuffle: bool = True, read_ahead: int = 2) -> None:
        if micro_batch < 1 or global_batch < 1 or global_batch % micro_batch:
            raise ConfigError(f"global_batch={global_batch} is not a multiple of micro_batch={micro_batch}")
        self.indices = list(range(global_batch // micro_batch)) if indices is None else list(indices)
        self.dataset, self.global_batch, self.micro_batch, self.read_ahead = dataset, global_batch, micro_batch, read_ahead
        self.order: Order = SampleOrder(len(dataset), seed) if shuffle else Sequential(len(dataset))
        self.waited = 0.0

    def batches(self, after: Progress) -> Iterator[Step]:
        """Steps without end, the first one being what comes after `after`."""
        count = self.global_batch // self.micro_batch
        if not all(0 <= index < count for index in self.indices):
            raise ConfigError(f"micro-batch indices {self.indices} are not all below global_batch / micro_batch = {count}")
        steps = self._steps(after.samples)
        if self.read_ahead and self.indices:
            steps = ReadAhead(steps, self.read_ahead)
        while True:
            began = time.perf_counter()
            step = next(steps)
            self.waited = time.perf_counter() - began
            yield step

    def _steps(self, position: int) -> Iterator[Step]:
        buffers = _Buffers(self.read_ahead + 3)
        within_step = (np.array(self.indices, np.int64)[:, None] * self.micro_batch + np.arange(self.micro_batch)).reshape(-1)
        per_step = len(within_step)
        steps_at_once = -(-_IDS_AT_ONCE // max(per_step, 1))
        while True:
            starts = position + self.global_batch * np.arange(steps_at_once, dtype=np.int64)
            samples = _Samples(self.dataset, self.order.at((starts[:, None] + within_step).reshape(-1)))
            for step in range(steps_at_once):
                held = buffers.next_step()
                yield [(index, held.keep(number, samples, step * per_step + number * self.micro_batch, self.micro_batch))
                       for number, index in enumerate(self.indices)]
            position += steps_at_once * self.global_batch


class _Samples:
    """Ids of many batches, checked at once where the dataset can."""

    def __init__(self, dataset: Dataset, ids: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        self.dataset, self.ids = dataset, ids
        self.located = dataset if isinstance(dataset, Located) else None
        self.places = self.located.locate(ids) if self.located else None

    def fetch(self, start: int, count: int, out: Batch | None) -> Batch:
        if self.located and self.places is not None:
            return self.located.gather(self.places[start:start + count], out)
        batch = self.dataset.fetch(self.ids[start:start + count])
        if out is None:
            return batch
        return {name: out[name].copy_(column) for name, column in batch.items()}


class _Buffers:
    """A ring of pinned tensors, one slot a step. Without an accelerator nothing is kept: the allocator hands the same memory out again."""

    def __init__(self, slots: int) -> None:
        self.pinned = _can_pin()
        self.slots: list[dict[int, Batch]] = [{} for _ in range(slots)]
        self.turn = -1

    def next_step(self) -> _Buffers:
        self.turn = (self.turn + 1) % len(self.slots)
        return self

    def keep(self, number: int, samples: _Samples, start: int, count: int) -> Batch:
        if not self.pinned:
            return samples.fetch(start, count, None)
        slot = self.slots[self.turn]
        if number not in slot:
            slot[number] = {name: column.pin_memory() for name, column in samples.fetch(start, count, None).items()}
            return slot[number]
        return samples.fetch(start, count, slot[number])


def _can_pin() -> bool:
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device is not None and device.type != "mps"


class Evaluation:
    """A dataset in its own order, in micro-batches; the last one may be smaller. Ranks share the indices 0 .. len - 1 among them."""

    def __init__(self, dataset: Dataset, micro_batch: int) -> None:
        if micro_batch < 1:
            raise ConfigError(f"micro_batch={micro_batch} is not at least 1")
        self.dataset, self.micro_batch = dataset, micro_batch

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.micro_batch)

    def fetch(self, index: int) -> Batch:
        """Micro-batch `index`: column -> [micro_batch or fewer, ...]."""
        if not 0 <= index < len(self):
            raise IndexError(f"micro-batch {index} of {len(self)}")
        start = index * self.micro_batch
        return self.dataset.fetch(np.arange(start, min(start + self.micro_batch, len(self.dataset)), dtype=np.int64))


def evaluation(dataset: Dataset, micro_batch: int) -> Evaluation:
    return Evaluation(dataset, micro_batch)
