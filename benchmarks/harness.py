"""How a question is measured here: variants take turns (the machine's bad moments hit all of them), medians count, and beside every figure
stands its ratio to the first variant and to the limit: what this machine could do at best.

    table = compare("What does one record cost the loop?", {"ours": ours, "queue": bare}, unit="µs", limit="queue")
    print(table.markdown())

A variant is a function that does its work once and returns its figure; `per_call` makes one of a function that is timed.
"""
from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Variant = Callable[[], float]


@dataclass(frozen=True)
class Table:
    """figures: variant -> one figure a round. limit: the variant that does only what cannot be left out. higher: whether more is better."""

    question: str
    unit: str
    figures: dict[str, list[float]]
    limit: str | None
    higher: bool

    def median(self, variant: str) -> float:
        return statistics.median(self.figures[variant])

    def better(self, variant: str, than: str) -> float:
        """How many times as good, by medians."""
        ratio = self.median(variant) / self.median(than)
        return ratio if self.higher else 1 / ratio

    def markdown(self) -> str:
        """The section to paste into RESULTS.md."""
        first = next(iter(self.figures))
        head = ["", f"median, {self.unit}", "range", f"× {first}"] + ([f"of the limit ({self.limit})"] if self.limit else [])
        rows = [head, ["---"] * len(head)]
        for name, figures in self.figures.items():
            row = [name, f"{self.median(name):.4g}", f"{min(figures):.4g} to {max(figures):.4g}", f"{self.better(name, first):.2f}"]
            rows.append(row + ([f"{100 * self.better(name, self.limit):.0f}%"] if self.limit else []))
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        better = "more is better" if self.higher else "less is better"
        return "\n".join([f"## {self.question}", "", *lines, "", f"{len(self.figures[first])} rounds, {better}. {machine()}", ""])


def compare(question: str, variants: dict[str, Variant], *, unit: str, limit: str | None = None, higher: bool = False,
            rounds: int = 7) -> Table:
    """Runs every variant once for nothing (caches, compilation), then `rounds` times in turns, every other round backwards."""
    names = list(variants)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        variants[name]()
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            figures[name].append(variants[name]())
    return Table(question, unit, figures, limit, higher)


def per_call(function: Callable[[], object], calls: int = 1, scale: float = 1e6) -> Variant:
    """Times `calls` calls and gives the time of one, in seconds × scale (1e6: µs)."""
    def measure() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - began) / calls * scale
    return measure


def machine() -> str:
    """The machine in a line: figures from different ones are not to be compared."""
    cpu = next((line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    torch = "none"
    try:
        import torch as package
        torch = package.__version__
        if package.accelerator.is_available():
            kind = str(package.accelerator.current_accelerator())
            names = [package.get_device_module(kind).get_device_name(index) for index in range(package.accelerator.device_count())]
            cpu += f" with {len(names)} × {names[0]}"
    except ImportError:
        pass
    load = os.getloadavg()[0]
    return (f"{datetime.date.today()}, {cpu}, {len(os.sched_getaffinity(0))} cores, load {load:.1f}, "
            f"Linux {platform.release()}, Python {platform.python_version()}, torch {torch}.")
