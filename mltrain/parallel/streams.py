"""Random streams: what is drawn (dropout, initial weights) follows from names and numbers, never from what was drawn before.

So nothing of a generator is saved, a micro-batch draws the same wherever it is computed, and a module's first weights stay the same
when another is added.
"""
from __future__ import annotations

import hashlib

import torch

_MASK = (1 << 64) - 1


def _mix(x: int) -> int:
    """Finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def seed_micro_batch(seed: int, step: int, index: int) -> None:
    """Seeds torch's generators on all devices for one micro-batch of one step."""
    state = seed & _MASK
    for part in (step, index):
        state = _mix((state + 0x9E3779B97F4A7C15 * (part + 1)) & _MASK)
    _seed(state)


def seed_module(seed: int, name: str) -> None:
    """Seeds torch's generators for the initial weights of the module with this canonical name."""
    _seed(int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little"))


def _seed(state: int) -> None:
    """As torch.manual_seed, which on a machine without a device keeps a formatted stack for each kind of device, every time it is called:
    0.3 ms, never freed."""
    torch.default_generator.manual_seed(state)
    if (device := torch.accelerator.current_accelerator(check_available=True)) is not None:
        torch.get_device_module(device).manual_seed_all(state)
