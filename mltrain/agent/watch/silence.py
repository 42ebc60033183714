"""How long a worker has given no sign of life, and how long it may.

A sign is a beat; where none is due for long (loading, saving, evaluating, a first step that compiles) and in scripts that never beat, also
processor time of the process and its descendants. In steps a beat is due each step: ten medians of the observed step times, and no less
than `floor`. A rank that burns processor time in a step gets the time of the other phases: it may be compiling again.
"""
from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

from mltrain.agent.processes import Process
from mltrain.runs.pulse import Beat

OWN_SECONDS, OTHER_SECONDS, MEDIANS = 5.0, 300.0, 10
STEP_PHASES = ("compute", "collective")
_KNOWN = 3               # step times before they count
_ALIVE, _BUSY = 0.01, 0.5            # shares of one processor: does something; computes


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds without a sign of life. floor: the least in steps. stopped: by a signal. other: in the other phases."""

    floor: float
    stopped: float
    other: float

    @classmethod
    def of(cls, seconds: float | None, own: bool) -> Limits | None:
        """seconds: what the user wants (None: 5 under our trainer, 300 for other scripts; 0: None, nobody is judged)."""
        if seconds == 0:
            return None
        floor = seconds or (OWN_SECONDS if own else OTHER_SECONDS)
        return cls(floor, seconds or OWN_SECONDS, max(floor, OTHER_SECONDS) if own else floor)

    @property
    def pace(self) -> float:
        """Seconds between two looks."""
        return min(0.5, self.stopped / 10)


class StepTimes:
    """Of one attempt, all its ranks."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=50)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def limit(self, limits: Limits) -> float:
        """For a rank that is making steps."""
        if len(self._seconds) < _KNOWN:
            return limits.other
        return max(MEDIANS * statistics.median(self._seconds), limits.floor)


@dataclass
class Watched:
    """One rank, as seen at each look. born: time.monotonic() of its first."""

    born: float
    beat: Beat = field(default_factory=Beat)
    process: Process | None = None
    since: float = 0.0                                         # last sign of life
    _stepped: float = 0.0                                      # moment of the newest step; 0 before the first, which may compile
    _mark: tuple[float, Process] | None = None                 # where the processor time of the present window begins
    _alive: float = 0.0
    _busy: float = 0.0
    _stopped: float = 0.0                                      # since when it is seen stopped; 0: it is not

    def look(self, now: float, beat: Beat, moment: float, begun: int | None, process: Process | None, times: StepTimes) -> None:
        """moment: of the beat. begun: the step at which this attempt began to train. process: may be left out while the beats are new."""
        if begun is not None and beat.step > max(begun, self.beat.step):
            if self._stepped:
                times.add((moment - self._stepped) / (beat.step - self.beat.step))
            self._stepped = moment
        self.beat, self.process = beat, process
        self.since = moment if beat.beats else self.born
        stopped = process is not None and process.state == "T"
        if not stopped:
            self._stopped = 0.0
        elif not self._stopped or moment > self._stopped:      # it has beaten meanwhile: stopped now and then is slow, not hung
            self._stopped = now

    def count(self, now: float, window: float) -> None:
        """Weigh the processor time used, once a window (seconds)."""
        if self.process is None:
            self._mark = None
        elif self._mark is None:
            self._mark = now, self.process
        elif now - self._mark[0] >= window:
            then, before = self._mark
            if self.process.cpu - before.cpu > max(_ALIVE * (now - then), 0.015):
                self._alive = now
            if self.process.own - before.own > _BUSY * (now - then):
                self._busy = now
            self._mark = now, self.process

    def limit(self, limits: Limits, times: StepTimes) -> float:
        """How long it may be silent, where it is now."""
        if self._stopped:
            return limits.stopped
        return times.limit(limits) if self.in_step else limits.other

    def silent(self, now: float, limits: Limits) -> float:
        """Seconds since its last sign of life that counts where it is now."""
        if self._stopped:
            return now - self._stopped
        if not self.in_step:
            return now - max(self.since, self._alive)
        busy = self.beat.phase == "compute" and now - self.since < limits.other
        return now - (max(self.since, self._busy) if busy else self.since)

    @property
    def in_step(self) -> bool:
        return self.beat.phase in STEP_PHASES and self._stepped > 0

    @property
    def stuck(self) -> str:
        """What the kernel says is wrong with it, "" if nothing."""
        state = self.process.state if self.process else ""
        return {"T": "stopped by a signal (state T)", "D": "in an uninterruptible wait of the kernel (state D)"}.get(state, "")
