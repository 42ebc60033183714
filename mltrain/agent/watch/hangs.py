"""Finds the worker that hangs: looks at all of them twice a second, takes the stacks of those silent for too long, names the culprit and
ends it by SIGKILL. Its death then goes the way of any other.

The culprit is the rank that does not wait for others: one that is stopped or stuck in the kernel; else one whose phase is not `collective`
and whose stack does not end inside torch.distributed. Where all are silent and all wait, it is the one that fell silent first. A script
that never beats is judged only when all of its ranks on this machine are idle: who is idle alone may wait for one that works.
"""
from __future__ import annotations

import time
from pathlib import Path

from mltrain.agent import processes
from mltrain.agent.loop import Loop
from mltrain.agent.watch.silence import Limits, StepTimes, Watched
from mltrain.agent.watch.stacks import Stacks, keep, waits_for_others
from mltrain.agent.workers import Worker, Workers
from mltrain.runs.pulse import Beat

_ALL_WAIT = 4            # limits that pass before an attempt ends in which every rank waits in a collective
_FROZEN_SECONDS = 1.0    # this late for a look: we were stopped ourselves, and the workers perhaps with us
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0           # between two rounds of stacks that named nobody


class Hangs:
    """begin() with an attempt, end() with its first failure or when it is to stop. Without limits nobody is judged."""

    def __init__(self, loop: Loop, workers: Workers, limits: Limits | None, run: Path | None) -> None:
        self._loop, self._workers, self._limits, self._run = loop, workers, limits, run
        self._round, self._attempt = 0, 0
        self._watched: dict[int, Watched] = {}
        self._times = StepTimes()
        self._there = 0                                        # workers at the last look
        self._looked, self._thawed = 0.0, 0.0                  # moments: of the last look; since when silence counts
        self._asking, self._not_before, self._pause = False, 0.0, _FIRST_PAUSE

    def begin(self, attempt: int) -> None:
        if self._limits is None:
            return
        self.end()
        self._attempt, self._watched, self._times = attempt, {}, StepTimes()
        self._looked = self._thawed = time.monotonic()
        self._asking, self._not_before, self._pause = False, 0.0, _FIRST_PAUSE
        number = self._round
        self._loop.after(self._limits.pace, lambda: self._look(number))

    def end(self) -> None:
        """What is on its way for the present attempt comes to nothing."""
        self._round += 1

    def _look(self, number: int) -> None:
        if number != self._round or self._limits is None:
            return
        self._loop.after(self._limits.pace, lambda: self._look(number))
        now = time.monotonic()
        there = len(self._workers.running)
        if now - self._looked > self._limits.pace + _FROZEN_SECONDS or there != self._there:
            self._thawed = now                                 # also when a rank has left: the others may have waited for it
        self._looked, self._there = now, there
        for rank, worker in self._workers.running.items():
            if worker.pid:
                watched = self._watched.setdefault(rank, Watched(now))
                beat, begun = worker.page.read(), worker.page.begin()
                process = processes.look(worker.pid) if beat.beats == watched.beat.beats else None
                watched.look(now, beat, worker.page.moment(), begun[0] if begun else None, process, self._times)
                watched.count(now, min(30.0, max(0.2, watched.limit(self._limits, self._times) / 10)))
        if not self._asking and now >= self._not_before:
            self._judge(now, self._limits)

    def _judge(self, now: float, limits: Limits) -> None:
        """Is anybody silent for too long? Then ask for stacks before the verdict."""
        excess = {rank: self._silence(rank, now, limits) / self._watched[rank].limit(limits, self._times)
                  for rank, worker in self._workers.running.items() if worker.pid and rank in self._watched}
        over = [rank for rank, times in excess.items() if times > 1]
        everyone = len(over) == len(self._workers.running)
        stuck = [rank for rank in over if self._watched[rank].stuck]
        suspects = stuck or [rank for rank in over if self._watched[rank].beat.phase not in ("none", "collective")]
        if not suspects and everyone:
            waiting = any(self._watched[rank].beat.phase == "collective" for rank in over)
            suspects = over if min(excess.values(), default=0.0) > (_ALL_WAIT if waiting else 1) else []
        if suspects:
            self._asking = True
            number, beats = self._round, {rank: self._watched[rank].beat for rank in suspects}
            accused = {rank: (self._workers.running[rank], self._describe(rank, now, limits)) for rank in suspects}
            asked = [self._workers.running[rank] for rank in over]
            Stacks(self._loop, asked, lambda texts: self._sentence(number, accused, beats, everyone, texts))

    def _silence(self, rank: int, now: float, limits: Limits) -> float:
        return min(self._watched[rank].silent(now, limits), now - self._thawed)

    def _describe(self, rank: int, now: float, limits: Limits) -> str:
        watched, seconds = self._watched[rank], self._silence(rank, now, limits)
        text = f"{'silent' if watched.beat.beats else 'idle'} for {seconds:.1f} s"
        if not watched.stuck:
            return text
        place = processes.waits_in(self._workers.running[rank].pid) if watched.process and watched.process.state == "D" else ""
        return f"{text}, {watched.stuck}" + (f" in {place}" if place else "")

    def _sentence(self, number: int, accused: dict[int, tuple[Worker, str]], beats: dict[int, Beat], everyone: bool,
                  texts: dict[int, str]) -> None:
        """The stacks are there: who is it?"""
        self._asking = False
        if number != self._round:
            return
        stuck = [rank for rank in accused if self._watched[rank].stuck]
        still = [rank for rank, (worker, _) in accused.items()
                 if self._workers.running.get(rank) is worker and (rank in stuck or worker.page.read().beats == beats[rank].beats)]
        guilty = [rank for rank in still if rank in stuck or not waits_for_others(texts.get(rank, ""))]
        if not guilty and not (everyone and still):
            self._not_before, self._pause = time.monotonic() + self._pause, min(_LONGEST_PAUSE, 2 * self._pause)
            return
        files = {rank: keep(self._run, self._attempt, rank, text) for rank, text in texts.items()}
        rank = min(guilty or still, key=lambda each: self._watched[each].since)
        worker, text = accused[rank]
        worker.hang = text if guilty else f"{text}; all ranks wait for one another, this one the longest"
        worker.hung_at, worker.stack = beats[rank], files.get(rank, "")
        worker.silent = round(time.monotonic() - self._watched[rank].since, 3)
        self._workers.kill(worker)
