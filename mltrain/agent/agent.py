"""The agent: one process a machine. It starts workers, notices at once when one dies, and, with its controller, names the cause, starts all
of them again within a budget, and ends with a code that says what happened. One event loop; every death is a pidfd, every report a socket,
every wait a timer.

    node.py         this machine's workers: obeys orders, reports
    controller.py   the run: attempts, causes, verdicts; in one of the agents
    cluster.py      several machines: finds the controller, or becomes it

With one node there is no cluster: node and controller are both here and nothing is sent.
"""
from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from mltrain.agent.clouds import Notice
from mltrain.agent.controller import Controller
from mltrain.agent.forks import Forks
from mltrain.agent.hosts.cluster import Cluster
from mltrain.agent.hosts.crew import Crew
from mltrain.agent.hosts.members import Member
from mltrain.agent.hosts.search import answers
from mltrain.agent.hosts.shape import fits
from mltrain.agent.hosts.shared import Claim, Shared
from mltrain.agent.journal import Journal, say
from mltrain.agent.loop import Loop
from mltrain.agent.node import Node
from mltrain.agent.notices import SIGNALS, Notices, of_signal
from mltrain.agent.options import Options
from mltrain.agent.orders import own_forks
from mltrain.agent.output import Output, Plan
from mltrain.agent.scribe import Scribe
from mltrain.agent.site import Message
from mltrain.agent.tie import adopt_orphans, die_with_parent
from mltrain.agent.variables import interface_of
from mltrain.errors import PREEMPTED, MltrainError, UsageError

TICK_SECONDS = 1.0
LAST_SECONDS = 30.0      # for what is still to be written when all else is done
_STOPS = {*SIGNALS, signal.SIGINT}


class Agent:
    """One run on one machine, or one machine's part in a run."""

    def __init__(self, options: Options, preload: list[str], started: tuple[Loop, Forks] | None = None) -> None:
        """preload: modules that workers of our own need; a forked one finds them imported. started: by `orders.start_early`."""
        self.o = options
        self.code: int | None = None
        self._loop, early = started or (Loop(), None)
        forks = early or self._make_forks(preload)
        self._scribe = Scribe(self._loop)
        self._journal, self._output = Journal(options.run, self._scribe), Output(self._loop, self._plan())
        self._node = Node(self._loop, forks, self._output, options, self._report)
        self._controller: Controller | None = None
        self._cluster: Cluster | None = None
        if options.rendezvous and options.run:
            self._shared = Shared(options.run, options.secret_file)
            self._cluster = Cluster(self._loop, options, self._shared, self._scribe, self)

    def run(self) -> int:
        """Until the run has ended. Returns its exit code."""
        adopt_orphans()
        if self.o.parent:
            die_with_parent(signal.SIGTERM)                    # a foreground launch that is killed takes its run along, state saved
            if os.getppid() != self.o.parent:
                return PREEMPTED
        self._loop.on_signals({*_STOPS, signal.SIGCHLD}, self._signalled)
        Notices(self._loop, self._noticed).begin(self.o.grace)
        if (not self._cluster and not self._journal.open(self._shape())) or (self._cluster and self._journal.done()):
            say(f"{self.o.run_id} is done already: nothing to do")
            self._journal.release()
            return 0
        try:
            if self._cluster:
                self._loop.first = self._cluster.check_lease
                self._node.start_template()
                self._cluster.start()
            else:
                self._controller = self._make_controller(Member("", self.o.name, self.o.workers))
                self._controller.gather()
            self._tick()
            self._loop.run(lambda: self.code is not None and self._node.empty)
        except MltrainError as error:                          # an attempt that could not be started: a port that is taken
            if self._controller:
                self._controller.fail(error.code, error.message)
            raise
        finally:
            self._node.close()
            self._output.finish()
            if self._cluster:
                self._cluster.close()
            if not self._journal.settle(LAST_SECONDS):
                say(f"{self.o.run}: the storage has not answered for {LAST_SECONDS:.0f} s: the last lines are not written")
        assert self.code is not None
        return self.code

    def _shape(self) -> dict[str, Any]:
        """For the ledger's first row."""
        return {"command": self.o.command.argv, "workers": self.o.workers, **({"nodes": self.o.nodes} if self.o.rendezvous else {})}

    def _make_controller(self, own: Member) -> Controller:
        crew = Crew(own, self.o.nodes, self.o.min_nodes, fits(self.o.run if self.o.own else None), self.o.join_seconds)
        return Controller(self._loop, self.o, self._journal, self, crew)

    def _make_forks(self, preload: list[str]) -> Forks:
        """Is it worth waiting for the template at the first start? For our own workers and scripts that name torch: they import the
        same."""
        if self.o.own:
            return own_forks(self._loop, preload)
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
        shown, several = frozenset({0}) if self.o.own else None, self.o.workers * self.o.nodes > 1
        return Plan(self.o.run, shown, not self.o.own and several, self.o.folder, self.o.redirect, self.o.tee)

    # ── between node and controller ──────────────────────────────────────────────────────────────────────────────────────────────
    def _report(self, message: Message) -> None:
        if self._cluster:
            self._cluster.report(message)
        elif self._controller:
            self._controller.heard("", message)

    def _signalled(self, number: signal.Signals) -> None:
        self._node.reap_orphans()
        if number in SIGNALS:
            self._noticed(of_signal(number))
        elif number == signal.SIGINT:
            self._ask(number, None)

    def _noticed(self, notice: Notice) -> None:
        self._ask(signal.SIGTERM, asdict(notice))

    def _ask(self, number: signal.Signals, notice: Message | None) -> None:
        """For the run's end, of the controller, wherever it is."""
        if self.code is not None:
            return
        if self._controller:
            self._controller.ask(number, self.o.name, notice)
        elif not self._node.empty:
            self._report({"kind": "ask", "signal": int(number), "notice": notice})
        elif notice is None or notice["final"]:                # a spare, or one that seeks: the run goes on without it
            self.leave(PREEMPTED)

    def _tick(self) -> None:
        if self.o.run is None or self.code is not None:
            return
        self._loop.after(TICK_SECONDS, self._tick)
        self._beat()
        if self._controller:
            self._controller.tick()
        if self._cluster:
            self._node.keep_ready()

    def _beat(self) -> None:
        self._report({"kind": "beat", "attempt": self._node.attempt, **self._node.pulse()})

    # ── what the controller needs ────────────────────────────────────────────────────────────────────────────────────────────────
    def obey(self, order: Message) -> None:
        self._loop.after(0, lambda: self._node.obey(order))    # not from here: the report that led to it may not be done with

    def serve(self, attempt: int) -> tuple[str, int]:
        if self._cluster:
            return self._node.stores.serve(attempt, self._cluster.host, 0)
        return self._node.stores.serve(attempt, self.o.host, self.o.port)

    def claim(self, attempt: int, claim: dict[str, Any], then: Callable[[bool], None]) -> None:
        if not self._cluster:
            return then(True)
        self._cluster.begun(attempt)
        made = Claim(self._cluster.session, attempt, self._cluster.own, **claim)
        self._scribe.ask(lambda: self._shared.claim(made), then)

    def answers(self, node: str) -> bool:
        return self._cluster is None or answers(node)

    def over(self, code: int) -> None:
        self.code = code
        self._node.stores.close()
        if self._cluster:
            self._shared.end(self._cluster.session, code)

    def deposed(self) -> None:
        if self._cluster:
            self._cluster.deposed()

    # ── what the cluster needs ───────────────────────────────────────────────────────────────────────────────────────────────────
    def lead(self, session: str, after: Claim | None, dead: set[str], fenced_at: float) -> Controller | None:
        assert self._cluster is not None
        own = self._cluster.own
        try:
            if not after:
                newest = self._shared.newest()
                self._journal.open(self._shape(), newest.attempt if newest else 0)
        except UsageError:
            return None
        controller = self._controller = self._make_controller(Member(own, self.o.name, self.o.workers))
        if after:
            controller.succeed(after, dead, fenced_at)
            controller.heard(own, {"kind": "beat", "attempt": self._node.attempt, **self._node.pulse()})
        self._loop.after(0, controller.gather)                 # those who wait for us join first
        return controller

    def listening(self, host: str) -> None:
        self._node.interface = interface_of(host)

    def state(self) -> tuple[bool, bool]:
        return self._node.empty, self._node.ready

    def halt(self) -> None:
        self._controller = None
        self._node.stop()

    def leave(self, code: int) -> None:
        self.code = code
        self._node.stop()
