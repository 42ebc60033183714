"""The guard of a run's numbers: what to do about a loss or gradient norm that is no number, and about a loss far above those before it.

    observe     the update is made; a row of the ledger, and loss_z in the metrics
    skip        the update is not made, the step counts; a row of the ledger
    rollback    back to a checkpoint from before; the samples of the bad steps are left out for ever, by a row that every resume replays
    stop        the run ends with 70 (numbers that are none only)

It is asked in the middle of a step, before the update, and knows only what all ranks know: the reduced loss and norm. Its memory (the last
losses) is part of each checkpoint. So all ranks decide alike, and a resumed run decides as the one before did.

A spike is a robust z-score: (loss - median) / spread over the last `window` losses, with spread = 1.4826 times the median distance from the
median (the standard deviation, were they normal), at least 1 % of the median. One outlier moves neither.
"""
from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import Any, Literal

from mltrain.errors import ConfigError

Way = Literal["observe", "skip", "rollback", "stop"]
_NORMAL, _LEAST_SPREAD = 1.4826, 0.01


class Guard:
    """nonfinite: about a loss or norm that is nan or infinite. spike: about a loss whose z-score is above `threshold`; null: nobody looks.
    window: the losses it is compared with; nothing is a spike before there are so many. back: a roll-back gives up that many steps, the bad
    one included, and their samples. limit: so many steps in a row are skipped, so many roll-backs are made in a run; then it ends.

    z: of the last loss. found: what was wrong with the last step, for people; "" if nothing. Raises ConfigError (78)."""

    def __init__(self, nonfinite: Literal["stop", "skip", "rollback"] = "stop", spike: Literal["observe", "skip", "rollback"] | None = None,
                 *, threshold: float = 10.0, window: int = 64, back: int = 1, limit: int = 10) -> None:
        if threshold <= 0 or window < 4 or back < 1 or limit < 1:
            raise ConfigError(f"guard: threshold={threshold}, window={window}, back={back}, limit={limit}",
                              "threshold is above 0, window 4 or more, back and limit 1 or more")
        self.nonfinite, self.spike, self.threshold, self.back, self.limit = nonfinite, spike, threshold, back, limit
        self.z, self.found = 0.0, ""
        self._losses: deque[float] = deque(maxlen=window)
        self._skipped = 0                                      # steps in a row

    def judge(self, loss: float, norm: float, weight: float) -> Way | None:
        """What to do about a step with this loss and gradient norm; None: nothing is wrong. weight: its targets; none have no loss."""
        way = self._look(loss, norm, weight)
        self._skipped = self._skipped + 1 if way == "skip" else 0
        if way == "skip" and self._skipped > self.limit:
            self.found += f"; {self.limit} steps in a row were skipped"
            return "stop"
        if self.spike and weight and way in (None, "observe"):
            self._losses.append(loss)
        return way

    def _look(self, loss: float, norm: float, weight: float) -> Way | None:
        self.z, self.found = 0.0, ""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.found = f"loss {loss}, gradient norm {norm}"
            return self.nonfinite
        if self.spike is None or not weight or len(self._losses) < (self._losses.maxlen or 0):
            return None
        self.z = distance(loss, self._losses)
        if self.z <= self.threshold:
            return None
        self.found = f"loss spike: {loss:.6g}, {self.z:.3g} spreads above the last {len(self._losses)}"
        return self.spike

    def numbers(self) -> dict[str, float]:
        """For a train record."""
        return {"loss_z": self.z} if self.spike else {}

    def state(self) -> dict[str, Any]:
        """JSON; goes into each checkpoint."""
        return {"losses": [*self._losses], "skipped": self._skipped} if self.spike or self._skipped else {}

    def load(self, state: dict[str, Any]) -> None:
        self._losses = deque(state.get("losses", ()), self._losses.maxlen)
        self._skipped = int(state.get("skipped", 0))


def distance(loss: float, before: deque[float]) -> float:
    """Robust z-score of a loss among those before it; negative below their median."""
    middle = median(before)
    spread = max(_NORMAL * median(abs(value - middle) for value in before), _LEAST_SPREAD * abs(middle))
    if not spread:
        return 0.0 if loss == middle else math.copysign(math.inf, loss - middle)
    return (loss - middle) / spread
