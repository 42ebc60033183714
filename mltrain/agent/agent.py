"""The agent: starts workers, notices at once when one dies, names the cause, starts all of them again within a budget, and ends with a
code that says what happened. One event loop; every death is a pidfd, every report a socket, every wait a timer.

    started ─> running ─(a worker fails)─> killing the others ─(all gone)─> judged ─┬─> waiting ─> running
                  │                                                                └─> ended
                  ├─(SIGTERM, SIGINT)─> leaving: workers save at a step boundary ──────> ended
                  └─(all left with 0)──────────────────────────────────────────────────> ended

A hang is a death that `hangs.py` brings about. Several machines will be further sources of events here.
"""
from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from mltrain.agent.cause import End, pick
from mltrain.agent.forks import Forks
from mltrain.agent.hangs import Hangs
from mltrain.agent.journal import Journal, say
from mltrain.agent.loop import Loop
from mltrain.agent.options import Options
from mltrain.agent.output import Output, Plan
from mltrain.agent.policy import Policy, Verdict
from mltrain.agent.silence import Limits
from mltrain.agent.store import Stores
from mltrain.agent.tie import adopt_orphans, die_with_parent
from mltrain.agent.variables import variables
from mltrain.agent.workers import Workers
from mltrain.errors import INTERRUPTED, PREEMPTED, MltrainError

TICK_SECONDS, SCORE_EVERY = 1.0, 10
WARM_SECONDS = 10.0      # when the template may take a processor away from workers that start: not before they have
AHEAD_SECONDS = 1.0      # after a start: its workers need the processors first
DOUBLE_SECONDS = 0.1     # two SIGINT closer together are one (`timeout -s INT` signals a process and its group)
_STATES = {0: "done", PREEMPTED: "stopped", INTERRUPTED: "stopped"}
_STOPS = {signal.SIGTERM, signal.SIGHUP, signal.SIGINT}


class Agent:
    """One run on one machine."""

    def __init__(self, options: Options, preload: list[str], started: tuple[Loop, Forks] | None = None) -> None:
        """preload: modules that workers of our own need; a forked one finds them imported. started: by `start_early`."""
        self.o = options
        self.code: int | None = None
        self._loop, early = started or (Loop(), None)
        self._journal, self._policy = Journal(options.run), Policy(options.restarts, options.own)
        self._forks = early or self._make_forks(preload)
        self._output = Output(self._loop, self._plan())
        self._workers = Workers(self._loop, self._forks, self._output, self._ended, self._reported)
        self._hangs = Hangs(self._loop, self._workers, Limits.of(options.hang_seconds, options.own), options.run)
        self._stores = Stores(self._loop, self._forks, options.host, options.port)
        self._ends: list[End] = []
        self._genuine = 0                                      # how many of them we did not kill
        self._failing, self._concluding, self._waiting = False, False, False          # torn down; all gone; the next one waited for
        self._stopped_early = False
        self._stop: signal.Signals | None = None               # the signal that asked for the end
        self._stop_at, self._started, self._ticks, self._restarts, self._step = 0.0, 0.0, 0, 0, -1

    def run(self) -> int:
        """Until the run has ended. Returns its exit code."""
        adopt_orphans()
        if self.o.parent:
            die_with_parent(signal.SIGTERM)                    # a foreground launch that is killed takes its run along, state saved
            if os.getppid() != self.o.parent:
                return PREEMPTED
        self._loop.on_signals({*_STOPS, signal.SIGCHLD}, self._signalled)
        shape = {"command": self.o.command.argv, "workers": self.o.workers}
        if not self._journal.open(shape):
            say(f"{self.o.run_id} is done already: nothing to do")
            self._journal.release()
            return 0
        try:
            self._begin()
            self._tick()
            self._loop.run(lambda: self.code is not None and self._workers.empty)
        except MltrainError as error:                          # an attempt that could not be started: a port that is taken
            self._journal.close("failed", error.code, error.message)
            raise
        finally:
            self._workers.send(signal.SIGKILL)
            self._stores.close()
            self._output.finish()
        assert self.code is not None
        return self.code

    def _make_forks(self, preload: list[str]) -> Forks:
        """Is it worth waiting for the template at the first start? For our own workers and scripts that name torch: they import the
        same."""
        if self.o.own:
            return _own_forks(self._loop, preload)
        early, late, patient = ["torch", "torch.distributed"], ["torch._dynamo"], self._names_torch()
        return Forks(self._loop, early, late, patient, say)

    def _names_torch(self) -> bool:
        if not self.o.command.script or self.o.command.module:
            return False
        try:
            with open(self.o.command.script[0], "rb") as file:
                return b"torch" in file.read(1 << 20)
        except OSError:
            return False

    def _plan(self) -> Plan:
        """Our own workers: rank 0 speaks for all. Foreign ones: all are shown, each line with its rank if there are several."""
        shown = frozenset({0}) if self.o.own else None
        return Plan(self.o.run, shown, not self.o.own and self.o.workers > 1, self.o.folder, self.o.redirect, self.o.tee)

    # ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _begin(self) -> None:
        self._waiting, self._failing, self._concluding, self._ends, self._started = False, False, False, [], time.monotonic()
        self._stopped_early = False                            # workers left in order before the run's last step (stop_at)
        self._start_template()
        store = self._stores.open(self._journal.attempt + 1)
        self._journal.attempt_started(workers=self.o.workers)
        self._workers.clear()
        for rank in range(self.o.workers):
            names = variables(self.o, rank, self._journal.attempt, self._restarts)
            self._workers.start(rank, self.o.command, {**os.environ, **names, **store(rank)}, self._journal.attempt)
        self._hangs.begin(self._journal.attempt)
        self._loop.after(AHEAD_SECONDS, self._fork_ahead(self._journal.attempt))

    def _start_template(self) -> None:
        """At once where workers wait for it or a processor is free, else when those of the first attempt have had time to start."""
        if not self.o.command.script:
            return                                             # not Python: a fork could not run it
        spare = len(os.sched_getaffinity(0)) > self.o.workers
        if self._forks.patient or spare or self._restarts:
            self._forks.start()
        else:
            self._loop.after(WARM_SECONDS, self._forks.start)
        self._loop.after(0 if spare or self._restarts else WARM_SECONDS, self._forks.warm)

    def _fork_ahead(self, attempt: int) -> Callable[[], None]:
        """An action for a timer: what the next attempt will need (a worker each, and a store for scripts that have none of their own)."""
        def fork() -> None:
            if self._journal.attempt == attempt and not self._failing and self.code is None and self._stop is None:
                self._forks.keep_ready(self.o.workers + (not self.o.own))
                self._loop.after(AHEAD_SECONDS, fork)          # again, as the template may not have been warm, or be a new one
        return fork

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _reported(self, row: dict[str, Any]) -> None:
        """A line from a worker for the ledger."""
        event = row.pop("event")
        step = row.get("step")
        if event == "saved" and isinstance(step, int):
            self._policy.saved(step)
        self._stopped_early |= event == "stopped"
        if event == "training" and isinstance(row.get("steps"), int):
            self._journal.steps(row["steps"])
        self._journal.row(event, **{**row, "attempt": self._journal.attempt})

    def _ended(self, end: End) -> None:
        """A worker is gone. The first failure ends the attempt: the others get SIGKILL, no grace, since a stuck rank would not obey."""
        self._ends.append(end)
        self._step = max(self._step, end.step)
        if end.failed and not self._failing and self._stop is None:
            self._failing = True
            self._hangs.end()
            self._ends += [*self._workers.dead_already(), *self._workers.exceptions()]
            self._genuine = len(self._ends)                    # those that follow are our own doing
            self._workers.send(signal.SIGKILL)
        elif not end.failed and end.code and self._stop is None and not self._workers.empty:
            # it left in order (75, 130): the others must follow
            self._loop.after(self.o.grace, self._kill_rest(self._journal.attempt))
        if self._workers.empty and not self._concluding:
            self._concluding = True
            self._hangs.end()
            self._loop.after(0, self._conclude)                # not from here: this may be in the middle of sending signals

    def _conclude(self) -> None:
        """All are gone: what now?"""
        self._stores.close()
        self._journal.write(self._workers.beats(), self._workers.begun())
        step, self._step = self._step, -1
        if self._stop is not None:
            self._finish(self._stopped(), None, step)
            return
        if not self._failing:
            code = max(end.code or 0 for end in self._ends)
            self._finish(Verdict(code, "stopped with state saved" if code or self._stopped_early else "done"), None, step)
            return
        cause, echoes = pick(self._ends[:self._genuine])
        verdict = self._policy.judge(cause, time.monotonic() - self._started)
        also = f" ({echoes} other{'s' * (echoes > 1)} failed with it)" if echoes else ""
        more = f"; more: {self._journal.command_for_more()}" if self.o.run else ""
        say(f"attempt {self._journal.attempt}: {cause.describe()}{also}; {verdict.reason}{more}")
        if verdict.code is not None:
            self._finish(verdict, cause, step, echoes)
            return
        self._journal.attempt_ended(cause, echoes, verdict, step)
        self._restarts, self._waiting = self._restarts + 1, True
        self._loop.after(verdict.wait, self._begin_again)

    def _begin_again(self) -> None:
        if self._waiting and self.code is None:
            self._begin()

    def _finish(self, verdict: Verdict, cause: End | None, step: int, echoes: int = 0) -> None:
        self._journal.attempt_ended(cause, echoes, verdict, step)
        code = verdict.code or 0
        if self._stop is None or code == 0:
            state, reason = _STATES.get(code, "failed"), cause.describe() if cause else verdict.reason
            state = "stopped" if state == "done" and self._stopped_early else state
        elif self._journal.cancelled():
            state, reason, code = "cancelled", "cancelled", INTERRUPTED
        else:
            state, reason = "stopped", verdict.reason
        self._journal.close(state, code, reason)
        self.code = code

    # ── the end that was asked for ───────────────────────────────────────────────────────────────────────────────────────────────
    def _signalled(self, number: signal.Signals) -> None:
        self._workers.reap_orphans()
        if number not in _STOPS:
            return
        now = time.monotonic()
        if self._stop is None:
            self._stop, self._stop_at = number, now
            self._hangs.end()                                  # from now on the grace is the limit
            if self._waiting or self._failing:                 # between two attempts: nobody is left to save anything
                self._waiting = False
                self._workers.send(signal.SIGKILL)
            else:
                self._workers.send(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
            self._loop.after(self.o.grace, self._kill_rest(self._journal.attempt))
            if self._workers.empty and not self._concluding:
                self._finish(self._stopped(), None, -1)
        elif number == signal.SIGINT and now - self._stop_at > DOUBLE_SECONDS:
            self._stop = signal.SIGINT
            self._workers.send(signal.SIGKILL)

    def _kill_rest(self, attempt: int) -> Callable[[], None]:
        """An action for a timer: SIGKILL to whoever of this attempt has not left."""
        def kill() -> None:
            if self._journal.attempt == attempt and not self._workers.empty:
                say(f"attempt {attempt}: {len(self._workers.running)} workers did not leave within {self.o.grace:.0f} s: killed")
                self._workers.send(signal.SIGKILL)
        return kill

    def _stopped(self) -> Verdict:
        """The code of a run that was told to stop: 130 by the user, 75 if workers said that they saved (or had nothing to save), else
        143."""
        if self._stop == signal.SIGINT:
            return Verdict(INTERRUPTED, "stopped by the user")
        codes = {end.code for end in self._ends if end.failed or end.code}
        if not codes and self._ends:
            # the last step was done when the signal came
            return Verdict(0, "stopped with state saved" if self._stopped_early else "done")
        nothing_done = self.o.own and all(end.trained <= 0 for end in self._ends)
        if codes == {PREEMPTED} or nothing_done or not self._ends:
            return Verdict(PREEMPTED, "stopped with state saved")
        return Verdict(128 + signal.SIGTERM, "stopped; no worker said that state was saved")

    def _tick(self) -> None:
        """About once a second: status.json and the lease."""
        if self.o.run is None or self.code is not None:
            return
        self._loop.after(TICK_SECONDS, self._tick)
        self._ticks += 1
        if self._ticks % SCORE_EVERY == 0:
            self._journal.score(live=True)
        self._journal.write(self._workers.beats(), self._workers.begun())


def start_early(preload: list[str]) -> tuple[Loop, Forks]:
    """A template for workers of our own, importing from now on; for an Agent that comes when it is known what to run."""
    loop = Loop()
    forks = _own_forks(loop, preload)
    forks.start(quiet=True)                                    # else whoever reads what a detached launch prints waits for the run's end
    return loop, forks


def _own_forks(loop: Loop, preload: list[str]) -> Forks:
    return Forks(loop, ["torch", "torch.distributed", "torch._dynamo", *preload], [], True, say)
