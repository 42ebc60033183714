"""The controller: numbers the attempts, decides who takes part, names the cause of a failure, and ends the run. It is one of the agents;
with one node it is always that node's own.

    gathering ──(enough nodes)──> running ──(a failure; all are stopped)──> judged ──┬──> gathering
        │                            ├──(asked to end: leaving)──> all have left ────┤
        └──(too few nodes)──> over   └──(all left with 0)──> over <──────────────────┘

It speaks to nodes in the orders of `node.py` and hears their reports, over links or, for its own node, by a call. Only the controller
writes the run's ledger and status.
"""
from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any, Protocol

from mltrain.agent.cause import HUNG, End, pick
from mltrain.agent.journal import Journal, say
from mltrain.agent.loop import Loop
from mltrain.agent.members import Member, choose
from mltrain.agent.options import Options
from mltrain.agent.policy import Policy, Verdict
from mltrain.errors import INTERRUPTED, PREEMPTED
from mltrain.runs.account import Account, with_detection

DOUBLE_SECONDS = 0.1     # two SIGINT closer together are one (`timeout -s INT` signals a process and its group)
SCORE_EVERY = 10         # ticks
LOOK_SECONDS = 0.1       # between two looks at who is there
_STATES = {0: "done", PREEMPTED: "stopped", INTERRUPTED: "stopped"}
Message = dict[str, Any]


class Site(Protocol):
    """What a controller needs of the agent it lives in."""

    def obey(self, order: Message) -> None:
        """An order for this agent's own node."""
    def serve(self, attempt: int) -> tuple[str, int]:
        """The address of a new store for that attempt. Raises NodeUnfit (69)."""
    def claim(self, attempt: int, nodes: list[Member]) -> bool:
        """Is this attempt ours to make? False when another controller has it."""
    def over(self, code: int) -> None:
        """The run has ended: its exit code."""
    def deposed(self) -> None:
        """Another controller has the run: this one is done."""


class Controller:
    """members: nodes by id. own: the id of this agent's own."""

    def __init__(self, loop: Loop, options: Options, journal: Journal, site: Site, own: Member) -> None:
        self.o, self._loop, self._journal, self._site = options, loop, journal, site
        self.members = {own.id: own}
        self._own, self._policy = own.id, Policy(options.restarts, options.own)
        self._stage, self._restarts, self._ticks = "gathering", 0, 0
        self._active: dict[str, Member] = {}                   # of the newest attempt
        self._running: set[str] = set()                        # of these, who still has workers
        self._failing = False
        self._ends: list[End] = []
        self._codes: set[int] = set()
        self._trained, self._step, self._stopped_early, self._started = 0, -1, False, 0.0
        self._stop: signal.Signals | None = None               # the signal that asked for the end
        self._stop_at, self._not_before = 0.0, 0.0

    @property
    def attempt(self) -> int:
        return self._journal.attempt

    # ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def gather(self) -> None:
        """Begin the next attempt as soon as it may, and enough nodes are there."""
        if self._stage != "gathering":
            return
        now = time.monotonic()
        chosen = choose(self.members.values(), 1, 1, lambda world: True)
        if now < self._not_before or not chosen:
            self._loop.after(max(self._not_before - now, LOOK_SECONDS if not chosen else 0.0), self.gather)
            return
        self._begin(chosen)

    def _begin(self, nodes: list[Member]) -> None:
        attempt = self.attempt + 1
        if not self._site.claim(attempt, nodes):
            self._site.deposed()
            return
        master = self._site.serve(attempt)
        world = sum(node.workers for node in nodes)
        self._journal.attempt_started(workers=world)
        self._stage, self._failing, self._ends, self._codes = "running", False, [], set()
        self._trained, self._step, self._stopped_early, self._started = 0, -1, False, time.monotonic()
        self._active = {node.id: node for node in nodes}
        self._running = set(self._active)
        first = 0
        for group, node in enumerate(nodes):
            node.ranks, node.begun, node.parts, node.silent = [], None, {}, ("", 0.0)
            self._tell(node, "start", first=first, world=world, group=group, groups=len(nodes), master=list(master),
                       restarts=self._restarts)
            first += node.workers

    def _tell(self, node: Member, kind: str, **fields: object) -> None:
        if node.link:
            node.link.send(kind, self.attempt, **fields)
        else:
            self._site.obey({"kind": kind, "attempt": self.attempt, **fields})

    # ── reports ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def heard(self, node: str, message: Message) -> None:
        """A report of one of the members."""
        member, kind = self.members[node], message["kind"]
        if kind == "beat":
            self._pulse(member, message)
        elif message["attempt"] != self.attempt or node not in self._active:
            return                                             # about an attempt that is over
        elif kind == "row":
            self._row(message["row"])
        elif kind == "failed":
            self._take(member, message["ends"])
            self._stop_attempt()
        elif kind == "stopped":
            self._stopped_node(member, message)

    def _pulse(self, member: Member, message: Message) -> None:
        begun = message["begun"]
        member.ranks, member.begun = message["ranks"], (begun[0], time.monotonic() - begun[1]) if begun else None
        member.parts = message["parts"]

    def _row(self, row: Message) -> None:
        """A line from a worker for the ledger."""
        event, step = row.pop("event"), row.get("step")
        if event == "saved" and isinstance(step, int):
            self._policy.saved(step)
        if event == "training" and isinstance(row.get("steps"), int):
            self._journal.steps(row["steps"])
        self._journal.row(event, **row)

    def _take(self, member: Member, ends: list[Message]) -> None:
        """How workers of that node ended; a second word on the same rank adds nothing."""
        known, now = {end.rank for end in self._ends}, time.monotonic()
        self._ends += [End.unpacked(values, now) for values in ends if values["rank"] not in known]

    def _stop_attempt(self) -> None:
        """A failure ends the attempt everywhere."""
        if not self._failing:
            self._failing = True
            for id in self._running:
                self._tell(self._active[id], "stop")

    def _stopped_node(self, member: Member, message: Message) -> None:
        """All workers there are gone."""
        self._take(member, message["ends"])
        self._pulse(member, message)
        member.silent = message["silent"][0], message["silent"][1]
        self._codes |= set(message["codes"])
        self._trained, self._step = max(self._trained, message["trained"]), max(self._step, message["step"])
        self._stopped_early |= message["early"]
        self._running.discard(member.id)
        if not self._running:
            self._conclude()
        elif message["codes"] and not self._failing and self._stop is None:
            # they left in order (75, 130): those on other nodes must follow
            self._loop.after(self.o.grace, self._stop_rest(self.attempt))

    def _stop_rest(self, attempt: int) -> Callable[[], None]:
        def stop() -> None:
            if self.attempt == attempt and self._running:
                for id in self._running:
                    self._tell(self._active[id], "stop")
        return stop

    # ── verdict ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _conclude(self) -> None:
        """All are gone: what now?"""
        self._write()
        step = self._step
        if self._stop is not None:
            self._finish(self._stopped(), None, step)
            return
        if not self._failing:
            code = max(self._codes, default=0)
            self._finish(Verdict(code, "stopped with state saved" if code or self._stopped_early else "done"), None, step)
            return
        cause, echoes = pick(self._ends)
        verdict = self._policy.judge(cause, time.monotonic() - self._started)
        also = f" ({echoes} other{'s' * (echoes > 1)} failed with it)" if echoes else ""
        more = f"; more: {self._journal.command_for_more()}" if self.o.run else ""
        say(f"attempt {self.attempt}: {cause.describe()}{also}; {verdict.reason}{more}")
        if verdict.code is not None:
            self._finish(verdict, cause, step, echoes)
            return
        self._journal.attempt_ended(cause, echoes, verdict, step, self._parts(cause))
        self._restarts, self._stage = self._restarts + 1, "gathering"
        self._not_before = max(self._not_before, time.monotonic() + verdict.wait)
        self.gather()

    def _parts(self, cause: End | None) -> dict[str, float]:
        """Where the attempt's time went, by its first node that knows. Silence that ended in a hang's verdict was the time to notice it."""
        member = next((node for node in self._active.values() if node.parts), None)
        if member is None:
            return {}
        return with_detection(Account(member.parts, member.silent)) if cause and cause.type == HUNG else member.parts

    def _finish(self, verdict: Verdict, cause: End | None, step: int, echoes: int = 0) -> None:
        self._stage = "over"
        self._journal.attempt_ended(cause, echoes, verdict, step, self._parts(cause))
        code = verdict.code or 0
        if self._stop is None or code == 0:
            state, reason = _STATES.get(code, "failed"), cause.describe() if cause else verdict.reason
            state = "stopped" if state == "done" and self._stopped_early else state
        elif self._journal.cancelled():
            state, reason, code = "cancelled", "cancelled", INTERRUPTED
        else:
            state, reason = "stopped", verdict.reason
        self._journal.close(state, code, reason)
        self._site.over(code)

    # ── the end that was asked for ───────────────────────────────────────────────────────────────────────────────────────────────
    def ask(self, number: signal.Signals) -> None:
        """SIGTERM, SIGHUP: save and leave. SIGINT: the same; a second one: at once."""
        now = time.monotonic()
        if self._stop is None:
            self._stop, self._stop_at = number, now
            if self._stage == "gathering":                     # nobody is there to save anything
                self._finish(self._stopped(), None, -1)
            elif not self._failing:
                for id in self._running:
                    self._tell(self._active[id], "leave", signal=int(number))
        elif number == signal.SIGINT and now - self._stop_at > DOUBLE_SECONDS:
            self._stop = signal.SIGINT
            for id in self._running:
                self._tell(self._active[id], "stop")

    def _stopped(self) -> Verdict:
        """The code of a run that was told to stop: 130 by the user, 75 if workers said that they saved (or had nothing to save), else
        143."""
        if self._stop == signal.SIGINT:
            return Verdict(INTERRUPTED, "stopped by the user")
        if not self._codes and self._active:
            # the last step was done when the signal came
            return Verdict(0, "stopped with state saved" if self._stopped_early else "done")
        nothing_done = self.o.own and self._trained <= 0
        if self._codes == {PREEMPTED} or nothing_done or not self._active:
            return Verdict(PREEMPTED, "stopped with state saved")
        return Verdict(128 + signal.SIGTERM, "stopped; no worker said that state was saved")

    # ── the clock ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def tick(self) -> None:
        """About once a second: status.json and the lease."""
        if self._stage == "over":
            return
        self._ticks += 1
        if self._ticks % SCORE_EVERY == 0:
            self._journal.score()
        self._write()

    def _write(self) -> None:
        nodes = self._active.values()
        begun = min((node.begun for node in nodes if node.begun), key=lambda each: each[1], default=None)
        parts = next((node.parts for node in nodes if node.parts), {})
        self._journal.write([row for node in nodes for row in node.ranks], begun, parts)
