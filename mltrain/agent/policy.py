"""Whether a failed attempt is followed by another, when, and with which exit code a run ends.

    64 65 66 78     usage, data, configuration                    never restarted
    69              this node is unfit                            not restarted here (several nodes: the others go on)
    70, exception   the script's own failure                      not before the first step, not when it cannot be imported, not twice;
                                                                  one while the ranks met: once more
    74              storage                                       restarted within the budget, but not to train the same steps a third
                                                                  time for a disk that takes none of them
    signals, …      a killed worker, a broken connection that
                    nobody's death explains, anything else        restarted within the budget

The budget is a number of restarts without a new saved step: each newly saved step refills it. The first restart is immediate, then the
least time between two starts doubles: an attempt that ran for so long is followed at once.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mltrain.agent.cause import End
from mltrain.runs.frames import MEETING

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.25, 30.0
_NEVER = {64: "wrong usage", 65: "damaged input", 66: "missing input", 69: "this node is unfit and there is no other",
          78: "wrong configuration"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """code: the run ends with it; None: another attempt after `wait` seconds. reason: for people."""

    code: int | None
    reason: str
    wait: float = 0.0


class Policy:
    """Judges one run's failures, one after another."""

    def __init__(self, restarts: int, own: bool = False) -> None:
        """own: the workers are ours, which beat from their first step on: one that never did has made none."""
        self.restarts, self.own, self._used, self._saved = restarts, own, 0, -1
        self._stepped = False                                  # has any attempt of this agent completed a step?
        self._lost = -1                                        # where an attempt's steps were lost: they could not be saved
        self._last: tuple[tuple[str, str, str, int], float] | None = None

    def saved(self, step: int) -> None:
        """A step was saved: work that no failure can take back."""
        if step > self._saved:
            self._saved, self._used = step, 0

    def judge(self, cause: End, seconds: float) -> Verdict:
        """seconds: how long the attempt ran."""
        self._stepped = self._stepped or cause.trained > 0
        same, of_script = self._same_as_last(cause, seconds), cause.is_exception and cause.kind != "network"
        if cause.code in _NEVER:
            return Verdict(cause.exit_code, f"not restarted: {_NEVER[cause.code]}")
        if cause.cannot_import:
            return Verdict(70, "not restarted: the script cannot be imported")
        met = cause.message.startswith(MEETING)                # perhaps no fault of the script: once more, but not the same twice
        if of_script and not self._stepped and not met and (cause.step >= 0 or self.own):
            return Verdict(70, "not restarted: an exception before the first step comes back")
        if of_script and same:
            return Verdict(70, "not restarted: the same exception " + (f"at step {cause.step} again" if cause.step >= 0 else "twice"))
        if cause.code == 74 and cause.trained > 0:
            if cause.step == self._lost:
                return Verdict(74, f"not restarted: state could not be saved at step {cause.step} again")
            self._lost = cause.step
        if self._used >= self.restarts:
            spent = f"{self.restarts} restarts without a new saved step" if self.restarts else "--restarts is 0"
            return Verdict(cause.exit_code, f"not restarted: {spent}")
        self._used += 1
        apart = 0.0 if self._used == 1 else min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (self._used - 2))
        wait = max(0.0, apart - seconds)
        return Verdict(None, f"restarting in {wait:.1f} s ({self._used} of {self.restarts} without a new saved step)", wait)

    def state(self) -> dict[str, Any]:
        """As JSON, for whoever takes the run over."""
        return {"used": self._used, "saved": self._saved, "stepped": self._stepped, "lost": self._lost, "last": self._last}

    def load(self, state: dict[str, Any]) -> None:
        self._used, self._saved, self._stepped, self._lost = (state[key] for key in ("used", "saved", "stepped", "lost"))
        if last := state["last"]:
            self._last = (tuple(last[0]), last[1])

    def _same_as_last(self, cause: End, seconds: float) -> bool:
        """The same failure at the same step. Where steps are unknown (a script that does not beat) a like running time stands for the
        step."""
        last, self._last = self._last, (cause.signature(), seconds)
        if last is None or last[0] != self._last[0]:
            return False
        return cause.step >= 0 or abs(seconds - last[1]) < 10 + 0.5 * last[1]
