"""The simulation of benchmarks/goodput.py against what can be worked out by hand."""
from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.goodput import CAUSES, System, best_interval, shares, simulate, systems, torchft, value  # noqa: E402

PLAIN = System("plain", "", every=600, stall=10, durable=0, crash=60, hang=60, node=0, start=100, load=20, group=0)


@pytest.mark.parametrize("gpus", [16_384, 100_000])
def test_it_agrees_with_daly(gpus: int) -> None:
    """tau / (m exp(d / m) (exp((tau + s) / m) - 1)) for steps of tau, a stall of s, failures every m that hit restarts of d, too."""
    between, down = 3600 * value("failure") / gpus, PLAIN.crash + PLAIN.start + PLAIN.load
    exact = PLAIN.every / (between * math.exp(down / between) * (math.exp((PLAIN.every + PLAIN.stall) / between) - 1))
    kept, half, _ = shares(simulate(PLAIN, gpus, 54, seed) for seed in range(20))
    assert kept == pytest.approx(100 * exact, abs=0.2 + half)


def test_all_time_is_kept_or_lost_to_a_cause() -> None:
    for system in systems(100_000):
        run = simulate(system, 100_000, 10, seed=3)
        assert sum(run.values()) == pytest.approx(10 * 86400) and set(run) == {"kept", *CAUSES} and min(run.values()) >= 0
    assert sum(torchft(100_000, 10, 3).values()) == pytest.approx(10 * 86400)


def test_a_seed_is_a_run() -> None:
    assert simulate(PLAIN, 16_384, 54, 1) == simulate(PLAIN, 16_384, 54, 1) != simulate(PLAIN, 16_384, 54, 2)


def test_the_best_interval_is_the_best() -> None:
    def kept(every: float) -> float:
        from dataclasses import replace
        return shares(simulate(replace(PLAIN, every=every), 16_384, 54, seed) for seed in range(20))[0]
    best = best_interval(16_384, PLAIN.stall, 0)
    assert kept(best) > max(kept(best / 2), kept(2 * best))
