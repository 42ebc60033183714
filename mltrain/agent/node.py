"""What an agent does for its own machine: starts its workers, watches them, ends them. It obeys orders of the controller, which may be
in this process or on another machine, and reports to it; it decides nothing about the run.

    orders    start {attempt, restarts, first, world, group, groups, master}    stop {attempt}    finish {code}
              leave {attempt, signal, seconds}    exclude {attempt, rank}
    reports   failed {ends}      a worker failed; the others here are being killed
              stopped {...}      all workers of the attempt are gone, however they went
              row {event, ...}   a line for the ledger
              beat {ranks, begun, parts}

Orders and reports are plain data (JSON): what ends a worker travels as the fields of `End`, its moment as an age in seconds, since no two
machines' clocks agree.
"""
from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from mltrain.agent.cause import UNFIT, End
from mltrain.agent.fitness import Fitness
from mltrain.agent.forks import Forks
from mltrain.agent.journal import say
from mltrain.agent.loop import Loop
from mltrain.agent.options import Options
from mltrain.agent.output import Output
from mltrain.agent.processes import starved
from mltrain.agent.store import Stores
from mltrain.agent.variables import Place, variables
from mltrain.agent.watch.hangs import Hangs
from mltrain.agent.watch.silence import Limits
from mltrain.agent.watch.stragglers import work
from mltrain.agent.workers import Workers
from mltrain.errors import NodeUnfit
from mltrain.health.finding import Finding
from mltrain.runs.account import account, running

WARM_SECONDS = 10.0      # when the template may take a processor away from workers that start: not before they have
AHEAD_SECONDS = 1.0      # after a start: its workers need the processors first
MOST_ENDS = 16           # reported of one node: more would tell nothing new
Message = dict[str, Any]


class Node:
    """One machine's workers, one attempt after another. report: takes what the controller should know."""

    def __init__(self, loop: Loop, forks: Forks, output: Output, options: Options, report: Callable[[Message], None]) -> None:
        self.o, self.attempt, self.interface = options, 0, ""
        self._loop, self._forks, self._report = loop, forks, report
        self._workers = Workers(loop, forks, output, self._ended, self._reported, again=options.restart == "inprocess")
        self._hangs = Hangs(loop, self._workers, Limits.of(options.hang_seconds, options.own), options.run)
        self._fitness = Fitness(loop, options.run, options.workers, self._looked_at)
        self._findings: set[Finding] = set()                   # that have been told
        self.stores = Stores(loop, forks)
        self._ends: list[End] = []
        self._genuine = 0                                      # how many of them we did not kill
        self._failing, self._concluding = False, True          # torn down; all gone
        self._leaving: signal.Signals | None = None            # the signal that asked them to leave
        self._stopped_early, self._step, self._restarts = False, -1, 0
        self._began, self._left = 0.0, 0.0                     # moments: of the order to start; of the first failure (0: none)

    @property
    def empty(self) -> bool:
        return self._workers.empty

    @property
    def ready(self) -> bool:
        """Could its workers start now, without waiting for imports?"""
        return not (self.o.command.script and self._forks.patient) or self._forks.settled

    def obey(self, order: Message) -> None:
        if order["kind"] == "start":
            self._start(order)
        elif order["attempt"] != self.attempt:
            return                                             # about workers that are gone
        elif order["kind"] == "stop":
            self._called_off()
        elif order["kind"] == "leave":
            self._leave(signal.Signals(order["signal"]), order.get("seconds", self.o.grace))
        elif order["kind"] == "exclude" and (worker := self._workers.running.get(order["rank"])):
            worker.page.order_exit(NodeUnfit.code)             # at its next beat, in whatever step it is

    # ── one attempt ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _start(self, order: Message) -> None:
        self.attempt, self._restarts = order["attempt"], order["restarts"]
        self._failing, self._concluding, self._ends, self._leaving, self._step = False, False, [], None, -1
        self._began, self._left = time.monotonic(), 0.0
        self._stopped_early = False                            # workers left in order before the run's last step (stop_at)
        self.start_template()
        self._workers.clear()
        store = self.stores.names(tuple(order["master"]), alone=order["groups"] == 1)
        for local in range(self.o.workers):
            place = Place(order["first"] + local, local, order["world"], order["group"], order["groups"])
            names = variables(self.o, place, self.attempt, self._restarts, self.interface)
            self._workers.start(place.rank, self.o.command, {**os.environ, **names, **store(place.rank)}, self.attempt)
        self._hangs.begin(self.attempt)
        self._fitness.begin(self.attempt)
        self._loop.after(AHEAD_SECONDS, self._fork_ahead(self.attempt))

    def start_template(self) -> None:
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
            if self.attempt == attempt and not self._failing and not self._concluding and self._leaving is None:
                self._forks.keep_ready(self.o.workers + (not self.o.own))
                self._loop.after(AHEAD_SECONDS, fork)          # again, as the template may not have been warm, or be a new one
        return fork

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _reported(self, row: Message) -> None:
        """A line from a worker for the ledger."""
        self._stopped_early |= row["event"] == "stopped"
        self._report({"kind": "row", "attempt": self.attempt, "row": {**row, "attempt": self.attempt}})

    def _ended(self, end: End) -> None:
        """A worker is gone. The first failure ends the attempt: the others get SIGKILL, no grace, since a stuck rank would not obey."""
        self._ends.append(end)
        self._step = max(self._step, end.step)
        if end.failed and not self._failing and self._leaving is None:
            self._tear_down()
            self._report({"kind": "failed", "attempt": self.attempt, "ends": self._genuine_ends()})
        elif not end.failed and end.code and self._leaving is None and not self._workers.empty:
            # it left in order (75, 130): the others must follow
            self._loop.after(self.o.grace, self._kill_rest(self.attempt, self.o.grace))
        if self._workers.empty and not self._concluding:
            self._concluding = True
            self._hangs.end()
            self._loop.after(0, self._conclude)                # not from here: this may be in the middle of sending signals

    def _looked_at(self, attempt: int, findings: list[Finding]) -> None:
        """What is wrong with this machine: told once; what is bad ends the attempt, however well it runs."""
        for each in [each for each in findings if each not in self._findings]:
            self._findings.add(each)
            self._reported({"event": "health", "node": self.o.name, "state": each.state, "name": each.name, "text": each.value})
            if each.state != "bad":
                say(f"{each.name}: {each.value}")
        bad = next((each for each in findings if each.state == "bad"), None)
        if bad and attempt == self.attempt and not self._failing and not self._concluding and self._leaving is None:
            text = f"{bad.name}: {bad.value}\n{bad.hint}"
            self._ends.append(End(min(self._workers.running), 0, NodeUnfit.code, time.monotonic(), type=UNFIT, message=text))
            self._tear_down()
            self.stop()                                        # nobody keeps a process on such a machine
            self._report({"kind": "failed", "attempt": self.attempt, "ends": self._genuine_ends()})

    def _tear_down(self) -> None:
        self._failing = True
        self._hangs.end()
        self._ends += [*self._workers.dead_already(), *self._workers.exceptions()]
        self._genuine = len(self._ends)                        # those that follow are our own doing
        self._left = min((end.moment for end in self._ends if end.failed), default=time.monotonic())
        if self.o.restart == "inprocess":
            self._workers.call_back()
        else:
            self._workers.send(signal.SIGKILL)

    def _genuine_ends(self) -> list[Message]:
        now = time.monotonic()
        failed = sorted((end for end in self._ends[:self._genuine] if end.failed), key=lambda end: (end.is_echo, end.moment))
        return [end.packed(now) for end in failed[:MOST_ENDS]]

    def _conclude(self) -> None:
        """All are gone."""
        self.stores.clean()
        ends = self._ends
        codes = sorted({end.code for end in ends if end.failed or end.code})
        self._report({"kind": "stopped", "attempt": self.attempt, "ends": self._genuine_ends() if self._failing else [], "codes": codes,
                      "trained": max((end.trained for end in ends), default=0), "step": self._step, "early": self._stopped_early,
                      **self.pulse(), **self._account()})

    def _account(self) -> Message:
        """Where the attempt's time went, and how much of that was silence before its end."""
        spent = next(iter(self._workers.spent().values()), None)
        if spent is None or not (spent.last or self.o.own):
            return {"parts": {}, "silent": ["", 0.0]}          # a script that does not beat
        now = time.monotonic()
        return account(spent, self._began, self._left or now, now, self._failing)._asdict()

    # ── what is asked of it ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def pulse(self) -> Message:
        """Where the workers are. ranks: a row each, as in status.json, with what the lowest says of the run and, of
        each that has made a step, its `Work`; begun: [step, seconds ago] at
        which the attempt began to train; parts: where its time went so far, by the lowest."""
        ranks, lowest, now, spent = [], False, time.monotonic(), self._workers.spent()
        for rank, (pid, beat) in self._workers.beats().items():
            row: Message = {"rank": rank, "host": self.o.name, "pid": pid, "phase": beat.phase, "step": beat.step}
            if beat.beats and beat.step >= 0 and not lowest:
                lowest = True
                loss = beat.loss if math.isfinite(beat.loss) else None
                row.update(beats=beat.beats, samples=beat.samples, tokens=beat.tokens, loss=loss)
            if spent[rank].first:
                row["work"] = work(beat.step, spent[rank].seconds, starved(pid))
            ranks.append(row)
        begun, first = self._workers.begun(), next(iter(spent.values()), None)
        parts = running(first, self._began, now) if first and (first.last or self.o.own) else {}
        return {"ranks": ranks, "begun": [begun[0], now - begun[1]] if begun else None, "parts": parts}

    def _called_off(self) -> None:
        """A failure, here or elsewhere, has ended the attempt."""
        if self.o.restart != "inprocess":
            self.stop()
        elif not self._failing and not self._concluding:       # else they have been called back already
            self._tear_down()

    def stop(self) -> None:
        """SIGKILL to all, now."""
        if not self._failing and not self._concluding:
            self._tear_down()
        else:
            self._workers.send(signal.SIGKILL)

    def _leave(self, number: signal.Signals, seconds: float) -> None:
        """Workers may save at a step boundary, then must be gone within so many seconds; told again, perhaps sooner."""
        if self._failing or self._concluding:
            return
        if self._leaving is None:
            self._leaving = number
            self._hangs.end()                                  # from now on the seconds are the limit
            self._workers.send(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
        self._loop.after(seconds, self._kill_rest(self.attempt, seconds))

    def _kill_rest(self, attempt: int, seconds: float) -> Callable[[], None]:
        """An action for a timer: SIGKILL to whoever of this attempt has not left."""
        def kill() -> None:
            if self.attempt == attempt and not self._workers.empty:
                say(f"attempt {attempt}: {len(self._workers.running)} workers did not leave within {seconds:.0f} s: killed")
                self._workers.send(signal.SIGKILL)
        return kill

    def keep_ready(self) -> None:
        """While there is nothing to do: have what a start will need."""
        if self._workers.empty:
            self._forks.keep_ready(self.o.workers)

    def reap_orphans(self) -> None:
        self._workers.reap_orphans()

    def close(self) -> None:
        """Whatever still runs is killed."""
        self._workers.send(signal.SIGKILL)
        self.stores.close()
