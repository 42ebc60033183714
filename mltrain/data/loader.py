"""Global batches, cut into micro-batches of one fixed size, of which a rank reads its own.

    loader = Loader(dataset, global_batch=64, micro_batch=8, seed=1)
    for micro_batches in loader.batches(after=Progress()):          # endless: the epoch is position // len(dataset)
        for index, batch in micro_batches: ...                      # batch["tokens"]: [8, sequence + 1]

The state of a loader is `Progress.samples`, the position in the endless stream of samples (of those that are not `skipped`): a step takes
the next global_batch positions, whatever earlier steps took, so a change of the batch size loses and repeats nothing. Micro-batch i of a
step is positions [i * micro_batch, (i + 1) * micro_batch) after it. Which ids come at which positions depends on seed, dataset and what is
skipped alone, so the global batches are the same for any number of ranks and from any point of resume.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from mltrain.data.dataset import Batch, Dataset, Located
from mltrain.data.order import Ids, SampleOrder, Sequential, Without
from mltrain.data.read_ahead import ReadAhead
from mltrain.errors import ConfigError
from mltrain.progress import Progress

Step = list[tuple[int, Batch]]        # (index of the micro-batch, its columns)
_IDS_AT_ONCE = 1 << 14                # ids computed and checked in one go: below, the cost of a numpy call dominates (60 us a call)


class Loader:
    """dataset: anything with len, schema, fingerprint, fetch. global_batch, micro_batch: in samples. indices: the micro-batches this rank
    reads (None: all; the Trainer sets them). shuffle: a new full shuffle in each epoch, else the dataset's own order. read_ahead: steps
    that a thread reads ahead; default: 2 where there is an accelerator, else 0. Measured with steps of 0.8 to 12 ms on a CPU: with an idle
    core the thread hides 0.1 ms a step, nearly all the reading; with none it makes steps up to 15 % longer, as it has to wait for its turn.

    skipped: ranges of positions that are left out of the stream for ever: [begin, end) each (`Loader.positions` tells which a step had).
    waited: seconds that the last step had to be waited for.

    Where there is an accelerator, batches lie in pinned buffers that are used again: a step's tensors stay valid until the second step
    after it is taken. Elsewhere each step has its own tensors. Raises ConfigError for sizes that do not divide."""

    def __init__(self, dataset: Dataset, *, global_batch: int, micro_batch: int, seed: int = 0, indices: Sequence[int] | None = None,
                 shuffle: bool = True, read_ahead: int | None = None, skipped: Sequence[Sequence[int]] = ()) -> None:
        if micro_batch < 1 or global_batch < 1 or global_batch % micro_batch:
            raise ConfigError(f"global_batch={global_batch} is not a multiple of micro_batch={micro_batch}")
        self.indices = list(range(global_batch // micro_batch)) if indices is None else list(indices)
        self.dataset, self.global_batch, self.micro_batch = dataset, global_batch, micro_batch
        self.read_ahead = (2 if _can_pin() else 0) if read_ahead is None else read_ahead
        self.order = Without(SampleOrder(len(dataset), seed) if shuffle else Sequential(len(dataset)), skipped)
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

    def positions(self, start: int, stop: int) -> list[list[int]]:
        """Where the samples number start, ..., stop - 1 of a run lie in the stream, as ranges [begin, end): what `skipped` takes."""
        places = self.order.places(np.arange(start, stop, dtype=np.int64))
        runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
        return [[int(run[0]), int(run[-1]) + 1] for run in runs if len(run)]

    def _steps(self, position: int) -> Iterator[Step]:
        buffers = _Pinned(self.read_ahead + 3) if _can_pin() else None
        size, parts = self.micro_batch, range(len(self.indices))
        within_step = (np.array(self.indices, np.int64)[:, None] * size + np.arange(size)).reshape(-1)
        steps_at_once = -(-_IDS_AT_ONCE // max(len(within_step), 1))
        while True:
            starts = position + self.global_batch * np.arange(steps_at_once, dtype=np.int64)
            read = _reader(self.dataset, self.order.at((starts[:, None] + within_step).reshape(-1)))
            for step in range(steps_at_once):
                begin = step * len(within_step)
                batches = [read(slice(begin + part * size, begin + (part + 1) * size)) for part in parts]
                yield list(zip(self.indices, buffers.keep(batches) if buffers else batches, strict=True))
            position += steps_at_once * self.global_batch


def _reader(dataset: Dataset, ids: Ids) -> Callable[[slice], Batch]:
    """Reads parts of ids, which are checked at once where the dataset can."""
    if isinstance(dataset, Located):
        places = dataset.locate(ids)
        return lambda part: dataset.gather(places[part])
    return lambda part: dataset.fetch(ids[part])


class _Pinned:
    """A ring of pinned tensors, one slot a step, so that an accelerator can fetch them while the host goes on."""

    def __init__(self, slots: int) -> None:
        self.slots: list[list[Batch]] = [[] for _ in range(slots)]
        self.turn = 0

    def keep(self, batches: list[Batch]) -> list[Batch]:
        self.turn = (self.turn + 1) % len(self.slots)
        slot = self.slots[self.turn]
        if not slot:
            slot += [{name: column.pin_memory() for name, column in batch.items()} for batch in batches]
            return slot
        for kept, batch in zip(slot, batches, strict=True):
            for name, column in batch.items():
                kept[name].copy_(column)
        return slot


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
