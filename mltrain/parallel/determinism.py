"""What equal bits need on an accelerator beside the order of our own sums. On a CPU nothing has to be set.

Not yet measured on a device (README says so): these are the settings that torch documents for reproducible runs.
"""
from __future__ import annotations

import os

import torch


def use_deterministic_kernels(device: torch.device) -> None:
    """Before the first kernel: operations without a deterministic form raise, libraries neither pick by timing nor split work freely."""
    if device.type == "cpu":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")          # read when cuBLAS makes its first handle
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
