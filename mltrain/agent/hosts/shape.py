"""On how many ranks a run may go on: what its recipe allows, read from the run directory."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mltrain.runs.layout import config_file

_DEFAULT_COUNTS = (8, 4, 2, 1)       # micro-batches of a recipe that names no size, as in parallel/mesh.py


def fits(run: Path | None) -> Callable[[int], bool]:
    """ranks -> may the run have so many? A run without a recipe of ours may have any number. Ours must deal its micro-batches evenly and,
    where its sums are exact, along one tree: on powers of two if the micro-batches are one."""
    if run is None:
        return lambda ranks: True
    try:
        tree = json.loads(config_file(run).read_text())["tree"]
        strategy, batch, micro = tree["strategy"], int(tree["global_batch"]), tree.get("micro_batch")
    except (OSError, ValueError, KeyError, TypeError):
        return lambda ranks: True
    count = batch // int(micro) if micro else next(m for m in _DEFAULT_COUNTS if batch % m == 0)
    exact = strategy.get("reduction") != "native" and count & (count - 1) == 0
    replicate = int(strategy.get("replicate") or 1)

    def may(ranks: int) -> bool:
        if ranks < 1 or count % ranks or ranks % replicate or (strategy.get("layout") == "single" and ranks > 1):
            return False
        return not exact or ranks & (ranks - 1) == 0

    return may
