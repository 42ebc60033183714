"""When replicas are compared, and what a comparison says about one that failed before.

Every `every` steps, before each save (so that no checkpoint holds what was not compared: a resume would give a wrong state to all, and hide
it) and after the last step.
"""
from __future__ import annotations

from collections.abc import Sequence

from mltrain.parallel.replicas import Part
from mltrain.runs.ledger import Row
from mltrain.runs.rollbacks import untraced


class Comparison:
    """every: steps; 0: never. past: what the ledger says was given up. agreed: the last step after which all replicas were equal."""

    def __init__(self, every: int = 0, past: Sequence[Row] = ()) -> None:
        self.every, self.agreed = every, 0
        self._open = untraced(past)

    def due(self, step: int, saving: bool) -> bool:
        """saving: a save follows, or the end."""
        return self.every > 0 and (saving or step % self.every == 0 or self._at(step))

    def agree(self, step: int, parts: Sequence[Part]) -> list[int] | None:
        """All are equal now. Was there no majority the last time that this step was made? Then: the ranks that had another state than all
        have now. None: nothing was open, or the state is cut otherwise now, so that nothing can be told."""
        self.agreed = step
        if not self._at(step) or self._open is None:
            return None
        before, self._open = self._open, None
        now = {part.shard: part.digest for part in parts}
        if len(parts) == 1 or len(now) != before["shards"]:
            return None
        return [int(rank) for rank, shard, digest in before["digests"] if digest != now[shard]]

    def _at(self, step: int) -> bool:
        return self._open is not None and self._open["at"] == step
