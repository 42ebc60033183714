"""Learning-rate schedules: pure functions from optimizer steps done to a factor of the base rate, so there is no scheduler state.

Each returns `factor(step)`; step 0 is the first update. warmup: steps of linear rise, the first of them at 1/warmup.
steps: length of the run (the schedule ends there, whatever stop_at says). final: factor at the end.
"""
from __future__ import annotations

import math
from collections.abc import Callable

from mltrain.errors import ConfigError

Schedule = Callable[[int], float]


def constant(steps: int = 0, warmup: int = 0) -> Schedule:
    """1 after the warm-up."""
    return _warmed(steps, warmup, lambda t: 1.0)


def linear(steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """From 1 straight to `final`."""
    return _warmed(steps, warmup, lambda t: 1.0 + (final - 1.0) * t)


def cosine(steps: int, warmup: int = 0, final: float = 0.1) -> Schedule:
    """Half a cosine from 1 to `final` (Loshchilov and Hutter 2017, without restarts)."""
    return _warmed(steps, warmup, lambda t: final + (1.0 - final) * (1.0 + math.cos(math.pi * t)) / 2.0)


def wsd(steps: int, warmup: int = 0, final: float = 0.0, decay: float = 0.2) -> Schedule:
    """Warm-up, stable, decay: 1 until the last `decay` share of the steps, then straight to `final` (Hu et al. 2024, MiniCPM)."""
    if not 0.0 < decay <= 1.0:
        raise ConfigError(f"schedule.decay={decay} is no share of the steps", "give a number above 0, at most 1")
    first = round(steps * (1.0 - decay))

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        t = min(1.0, max(0.0, (step - first) / max(1, steps - first)))
        return rise * (1.0 + (final - 1.0) * t)

    _check(steps, warmup)
    return factor


def _warmed(steps: int, warmup: int, shape: Callable[[float], float]) -> Schedule:
    """shape: factor at a share t in [0, 1] of the steps after the warm-up."""
    _check(steps, warmup)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return shape(min(1.0, (step - warmup) / max(1, steps - warmup)))

    return factor


def _check(steps: int, warmup: int) -> None:
    if warmup < 0 or (steps and warmup > steps):
        raise ConfigError(f"schedule.warmup={warmup} does not fit into {steps} steps", "give a number of steps from 0 to `steps`")
