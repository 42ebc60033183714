"""What the two scripts that recovery.py kills share: the moments they note, and the model."""
from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def note(name: str, step: int = -1) -> None:
    """A line in EVENTS/RANK (torchft: EVENTS/REPLICA): name, pid, step, time.monotonic."""
    with Path(os.environ["EVENTS"], os.environ.get("REPLICA") or os.environ["RANK"]).open("a") as file:
        file.write(f"{name} {os.getpid()} {step} {time.monotonic()}\n")


def model() -> nn.Module:
    import torch  # here: the first moment is noted before it is imported
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
