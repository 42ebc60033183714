"""Next-token prediction: the task of every language model here."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mltrain.task import Batch, Loss, Task


class LanguageModeling(Task):
    """Minimises the cross-entropy of the next token.

    model: (tokens [B, T], documents [B, T]) -> logits [B, T, vocabulary]. separator: the id that begins each document (bytes:
    256); with it, documents packed into one window do not see each other. ignore: a token id that is no target (padding)."""

    forward_methods = ("logits",)

    def __init__(self, model: nn.Module, separator: int | None = 256, ignore: int | None = None) -> None:
        super().__init__()
        self.model, self.separator, self.ignore = model, separator, ignore

    def loss(self, batch: Batch) -> Loss:
        """batch: tokens, integers [B, T + 1] as they are stored; widened here, on the device."""
        total, targets = self._cross_entropy(batch)
        return Loss(total, targets)

    def evaluate(self, batch: Batch) -> dict[str, Loss]:
        """loss: nats a token; bits_per_token: the same in bits (of a byte-level model: bits per byte)."""
        total, targets = self._cross_entropy(batch)
        bits = "bits_per_byte" if self.separator == 256 else "bits_per_token"
        return {"loss": Loss(total, targets), bits: Loss(total / math.log(2), targets)}

    def weight(self, batch: Batch) -> int:
        targets = batch["tokens"][:, 1:]
        return targets.numel() if self.ignore is None else int((targets != self.ignore).sum())

    def logits(self, tokens: Tensor) -> Tensor:
        """tokens: [B, T]. Returns float32 [B, vocabulary]: what comes next, for generation."""
        logits: Tensor = self.model(tokens, self._documents(tokens))
        return logits[:, -1].float()

    def _documents(self, tokens: Tensor) -> Tensor | None:
        return None if self.separator is None else (tokens == self.separator).cumsum(1)

    def _cross_entropy(self, batch: Batch) -> tuple[Tensor, int | Tensor]:
        tokens = batch["tokens"].to(torch.int64)
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        logits = self.model(inputs, self._documents(inputs)).float().flatten(0, 1)
        if self.ignore is None:
            return F.cross_entropy(logits, targets.flatten(), reduction="sum"), targets.numel()
        total = F.cross_entropy(logits, targets.flatten(), ignore_index=self.ignore, reduction="sum")
        return total, (targets != self.ignore).sum()
