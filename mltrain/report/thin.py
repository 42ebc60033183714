"""Long curves for small pictures: a few hundred buckets, each with its mean, lowest and highest value, so that no spike is lost."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeGuard, cast

POINTS = 300             # of one curve of one run: more than a chart has room for
LOST = 50                # steps without a number that are named


@dataclass(frozen=True, slots=True)
class Line:
    """steps, values: points of a curve; where it was thinned, means over a bucket at the bucket's middle step, and low and high are its
    bounds (else empty). lost: steps whose value is nan or infinite, at most LOST of them."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)


def thin(steps: Sequence[int], values: Sequence[object], points: int = POINTS) -> Line:
    """values: one a step; what is no number (None, text) is left out. Six digits are kept."""
    if not (set(map(type, values)) <= {int, float} and all(map(math.isfinite, cast("Sequence[float]", values)))):     # fast, and usual
        return _thin(*_numbers(steps, values), points)
    return _thin(steps, cast("Sequence[float]", values), [], points)


def _numbers(steps: Sequence[int], values: Sequence[object]) -> tuple[list[int], list[float], list[int]]:
    """(steps with a finite number, these, some of the steps whose number is not finite)"""
    pairs = [(step, value) for step, value in zip(steps, values, strict=True) if is_number(value)]
    finite = [(step, value) for step, value in pairs if math.isfinite(value)]
    lost = [step for step, value in pairs if not math.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite], lost[:LOST]


def _thin(steps: Sequence[int], values: Sequence[float], lost: list[int], points: int) -> Line:
    count = len(values)
    if count <= points:
        return Line(list(steps), [digits(value) for value in values], lost=lost)
    edges = [index * count // points for index in range(points + 1)]
    parts = [values[start:end] for start, end in zip(edges, edges[1:], strict=False)]
    middles = [steps[(start + end - 1) // 2] for start, end in zip(edges, edges[1:], strict=False)]
    middles[0], middles[-1] = steps[0], steps[-1]            # a curve ends where the run does
    return Line(middles, [digits(sum(part) / len(part)) for part in parts], [digits(min(part)) for part in parts],
                [digits(max(part)) for part in parts], lost)


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def digits(value: float) -> float:
    return float(f"{value:.6g}")
