"""Which of several kinds a sample is: the task of every classifier here."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mltrain.task import Batch, Loss, Task


class Classification(Task):
    """Minimises the cross-entropy of the label.

    model: (images [B, ...]) -> logits [B, classes]. A batch has two columns: image, floating point [B, ...]; label, integers [B]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def loss(self, batch: Batch) -> Loss:
        return Loss(F.cross_entropy(self._logits(batch), batch["label"], reduction="sum"), len(batch["label"]))

    def evaluate(self, batch: Batch) -> dict[str, Loss]:
        """loss: nats a sample. accuracy: share of samples whose label has the greatest logit."""
        logits, labels = self._logits(batch), batch["label"]
        right = (logits.argmax(1) == labels).sum()
        return {"loss": Loss(F.cross_entropy(logits, labels, reduction="sum"), len(labels)), "accuracy": Loss(right, len(labels))}

    def weight(self, batch: Batch) -> int:
        return len(batch["label"])

    def _logits(self, batch: Batch) -> Tensor:
        logits: Tensor = self.model(batch["image"])
        return logits.float()
