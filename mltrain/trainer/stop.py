"""When a run stops: at a step it was given, at a time limit, or because somebody asks. All ranks stop after the same step.

A wish (signal, time) is local to a rank and travels with the step's own agreement on the loss (Strategy.train_step): no message of its own,
and never a save inside a signal handler.
"""
from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

from mltrain.errors import DONE, INTERRUPTED, PREEMPTED, ConfigError

WISHES = {0: "", 1: "time limit", 2: "preempted (SIGTERM)", 3: "stopped by the user (SIGINT)"}       # the greatest of all ranks counts
CODES = {0: DONE, 1: PREEMPTED, 2: PREEMPTED, 3: INTERRUPTED}
_SIGNALS = {signal.SIGTERM: 2, signal.SIGINT: 3, signal.SIGUSR1: 2, signal.SIGUSR2: 2}
_OURS = (signal.SIGTERM, signal.SIGINT)              # whoever had them


class Stop:
    """at: stop hard after this step although schedules follow `steps`. seconds: save and stop after so long, from now on."""

    def __init__(self, at: int | None = None, seconds: float | None = None) -> None:
        self.at = at
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.signalled = 0
        self._old: dict[int, Any] = {}

    def wish(self) -> int:
        """This rank's wish now: a key of WISHES."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return max(1, self.signalled)
        return self.signalled

    def listen(self) -> None:
        """SIGTERM and SIGINT become wishes (in the main thread; elsewhere signals cannot be had). Slurm's --signal goes to all processes of
        a job: what would end this one, and nobody has taken, is a wish, too."""
        if threading.current_thread() is threading.main_thread():
            mine = [number for number in _SIGNALS if number in _OURS or signal.getsignal(number) == signal.SIG_DFL]
            self._old = {number: signal.signal(number, self._note) for number in mine}

    def restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signalled == _SIGNALS[signal.SIGINT] and number == signal.SIGINT:
            raise KeyboardInterrupt                                  # asked twice: at once
        self.signalled = max(self.signalled, _SIGNALS[signal.Signals(number)])


def count_steps(amount: float, unit: str, samples_per_step: int, tokens_per_sample: int, samples_per_epoch: int) -> int:
    """Steps of a run whose length is given in `unit`: steps, samples, tokens or epochs; rounded up to whole steps. Raises ConfigError."""
    if unit == "tokens" and not tokens_per_sample:
        raise ConfigError(f"steps={amount:g} tokens: this data has no tokens", "give steps, samples or epochs")
    per_step = {"steps": 1.0, "samples": samples_per_step, "epochs": samples_per_step / samples_per_epoch,
                "tokens": samples_per_step * tokens_per_sample}[unit]
    return max(1, -int(-amount // per_step))
