"""Numbers for reading: units that fit their size, ticks at round values, and where on the paper a value lies."""
from __future__ import annotations

import math
from dataclasses import dataclass

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_STEPS = {
    "seconds": ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s")),
    "bytes": ((1024.0, "KiB"), (2.0**20, "MiB"), (2.0**30, "GiB"), (2.0**40, "TiB")),
    "count": ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")),
}


def unit(kind: str, largest: float) -> tuple[float, str]:
    """(divisor, its name) for values up to `largest`. kind: seconds, bytes, count, small (a power of ten), plain."""
    if kind == "small" and 0 < largest and not 1e-2 <= largest < 1e4:
        power = math.floor(math.log10(largest))
        return 10.0**power, "10" + str(power).translate(_SUPERSCRIPTS)
    fitting = [step for step in _STEPS.get(kind, ()) if step[0] <= largest * 1.0000001]
    return fitting[-1] if fitting else _STEPS.get(kind, ((1.0, ""),))[0]


def short(value: float, kind: str = "plain") -> str:
    """12.3 ms, 4.1 GiB, 10.7k: three digits and a unit."""
    divisor, name = unit(kind, abs(value))
    text = f"{value / divisor:.3g}" if abs(value / divisor) < 1000 else f"{value / divisor:,.0f}"
    if "e" in text:
        mantissa, _, power = text.partition("e")
        text = f"{mantissa} × 10{str(int(power)).translate(_SUPERSCRIPTS)}"
    if kind == "small":
        return f"{text} × {name}" if name else text
    return text + ("" if kind == "count" else " " if name else "") + name


def duration(seconds: float) -> str:
    """850 ms, 12.3 s, 4 min 05 s, 3 h 12 min"""
    if seconds < 60:
        return short(seconds, "seconds") if seconds >= 1e-6 else "0 s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours / 24:.1f} days"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values (1, 2, 2.5 or 5 times a power of ten) inside [low, high]."""
    rough = (high - low) / about
    if rough <= 0 or not math.isfinite(rough):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    width = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / width - 1e-9)
    return [round(index * width, 12) for index in range(first, math.floor(high / width + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten inside [low, high], with 2 and 5 times these if there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 2.2 else (1,)
    return [factor * 10.0**power for power in powers for factor in factors if low * 0.999 <= factor * 10.0**power <= high * 1.001]


def labels(values: list[float]) -> list[str]:
    """Ticks as text, all with the decimals that the finest needs."""
    if any(value and abs(value) < 1e-4 for value in values):
        return [short(value) for value in values]
    decimals = next((count for count in range(5) if all(abs(round(value, count) - value) < 1e-9 for value in values)), 5)
    return [f"{value:,.{decimals}f}" for value in values]


@dataclass(frozen=True, slots=True)
class Scale:
    """[low, high] in data onto [start, end] on paper."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(max(value, self.low * 1e-3))
        return self.start + (at - low) / (high - low) * (self.end - self.start)
