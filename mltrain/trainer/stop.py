"""When a run stops: at a step it was given, at a time limit, or because somebody asks. All ranks stop after the same step.

A wish (signal, time) is local to a rank and travels with the step's own agreement on the loss (Strategy.train_step): no message of its own,
and never a save inside a signal handler.
"""
from __future__ import annotations

import re
import signal
import threading
import time
from types import FrameType

from mltrain.errors import DONE, INTERRUPTED, PREEMPTED, ConfigError

WISHES = {0: "", 1: "time limit", 2: "preempted (SIGTERM)", 3: "stopped by the user (SIGINT)"}       # the greatest of all ranks counts
CODES = {0: DONE, 1: PREEMPTED, 2: PREEMPTED, 3: INTERRUPTED}
_SIGNALS = {signal.SIGTERM: 2, signal.SIGINT: 3}
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Stop:
    """at: stop hard after this step although schedules follow `steps`. time_limit: seconds, or "90s", "30m", "12h", "2d", from now on."""

    def __init__(self, at: int | None = None, time_limit: float | str | None = None) -> None:
        self.at = at
        self.deadline = None if time_limit is None else time.monotonic() + seconds(time_limit)
        self.signalled = 0
        self._old: dict[int, object] = {}

    def wish(self) -> int:
        """This rank's wish now: a key of WISHES."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return max(1, self.signalled)
        return self.signalled

    def listen(self) -> None:
        """SIGTERM and SIGINT become wishes (in the main thread; elsewhere signals cannot be had)."""
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave
        self._old = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signalled == _SIGNALS[signal.SIGINT] and number == signal.SIGINT:
            raise KeyboardInterrupt                                  # asked twice: at once
        self.signalled = max(self.signalled, _SIGNALS[signal.Signals(number)])


def seconds(limit: float | str) -> float:
    """A duration in seconds. Raises ConfigError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", str(limit))
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"time_limit={limit} is no duration", "write seconds, or a number with s, m, h or d, as in 30m")
    return float(match[1]) * _UNITS[match[2]]


def count_steps(steps: int | str, samples_per_step: int, tokens_per_sample: int, samples_per_epoch: int) -> int:
    """Steps of a run given as steps (1000), "3 epochs" or "10M tokens" (rounded up to whole steps). Raises ConfigError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKMGB]?)\s*(steps?|epochs?|tokens?)?\s*", str(steps))
    if not match:
        raise ConfigError(f"steps={steps} is neither a number of steps nor of epochs or tokens", 'write 1000, "3 epochs" or "10M tokens"')
    amount = float(match[1]) * {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}[match[2]]
    unit = (match[3] or "steps").rstrip("s")
    if unit == "token" and not tokens_per_sample:
        raise ConfigError(f"steps={steps}: this data has no tokens", "give steps or epochs")
    per_step = {"step": 1.0, "epoch": samples_per_step / samples_per_epoch, "token": float(samples_per_step * tokens_per_sample)}[unit]
    count = -int(-amount // per_step)
    if count < 1:
        raise ConfigError(f"steps={steps} is less than one step", "give at least 1")
    return count
