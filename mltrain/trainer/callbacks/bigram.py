"""A baseline to read a language model's loss against: how well the last token alone predicts the next one."""
from __future__ import annotations

import math

import torch

from mltrain.data.dataset import Dataset
from mltrain.data.source import Tokens
from mltrain.progress import Progress
from mltrain.task import StepResult
from mltrain.trainer.callback import Callback

CHUNK = 1024            # windows counted at a time


class Bigram(Callback):
    """Counts pairs of neighbouring tokens in the training data once, at the start, and says the bits per token of that table (add-one
    smoothing) on the validation data beside the model's. samples: windows of the training data that are counted (None: all)."""

    def __init__(self, data: Tokens, samples: int | None = 20_000) -> None:
        self.data, self.samples = data, samples
        self.bits = math.nan

    def start(self, progress: Progress, result: StepResult | None) -> str | None:
        if math.isnan(self.bits) and self.data.validation is not None:
            vocabulary = int(self.data.describe()["vocabulary"])
            train = self._count(self.data.train, vocabulary, self.samples) + 1.0
            held_out = self._count(self.data.validation, vocabulary, None)
            bits = -(train / train.sum(1, keepdim=True)).log2()
            self.bits = ((held_out * bits).sum() / held_out.sum()).item()
        return None if math.isnan(self.bits) else f"bigram baseline on the validation data: {self.bits:.3f} bits per token"

    def evaluated(self, progress: Progress, result: StepResult) -> str | None:
        found = [result.metrics[name] for name in ("bits_per_byte", "bits_per_token") if name in result.metrics]
        return f"step {progress.step}: {found[0]:.3f} bits, the bigram baseline {self.bits:.3f}" if found else None

    def state(self) -> dict[str, float]:
        return {} if math.isnan(self.bits) else {"bits": self.bits}

    def load(self, state: dict[str, float]) -> None:
        self.bits = state.get("bits", math.nan)

    @staticmethod
    def _count(dataset: Dataset, vocabulary: int, samples: int | None) -> torch.Tensor:
        """Pairs (token, next token): float64 [vocabulary, vocabulary]."""
        length = len(dataset)
        counts = torch.zeros(vocabulary * vocabulary, dtype=torch.int64)
        last = length if samples is None else min(samples, length)
        for start in range(0, last, CHUNK):
            tokens = dataset.fetch(torch.arange(start, min(start + CHUNK, last)).numpy())["tokens"].to(torch.int64)
            counts += torch.bincount((tokens[:, :-1] * vocabulary + tokens[:, 1:]).flatten(), minlength=vocabulary * vocabulary)
        return counts.view(vocabulary, vocabulary).double()
