"""What is computed in which type: parameters, their updates and all sums stay in float32; forward and backward may be bfloat16."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class Precision:
    """compute: type of activations, and of parameters while they are used. Gradients are reduced in float32 either way."""

    compute: Literal["float32", "bfloat16"] = "float32"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.compute == "bfloat16" else torch.float32

    @property
    def mixed(self) -> bool:
        return self.compute != "float32"
