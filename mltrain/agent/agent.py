"""The agent: one process a machine. It starts workers, notices at once when one dies, and, with its controller, names the cause, starts all
of them again within a budget, and ends with a code that says what happened. One event loop; every death is a pidfd, every report a socket,
every wait a timer.

    node.py         this machine's workers: obeys orders, reports
    controller.py   the run: attempts, causes, verdicts; in one of the agents

With one node both are here and nothing is sent.
"""
from __future__ import annotations

import os
import signal

from mltrain.agent.controller import Controller, Message
from mltrain.agent.forks import Forks
from mltrain.agent.journal import Journal, say
from mltrain.agent.loop import Loop
from mltrain.agent.members import Member
from mltrain.agent.node import Node
from mltrain.agent.options import Options
from mltrain.agent.output import Output, Plan
from mltrain.agent.tie import adopt_orphans, die_with_parent
from mltrain.errors import PREEMPTED, MltrainError

TICK_SECONDS = 1.0
_STOPS = {signal.SIGTERM, signal.SIGHUP, signal.SIGINT}


class Agent:
    """One run on one machine."""

    def __init__(self, options: Options, preload: list[str], started: tuple[Loop, Forks] | None = None) -> None:
        """preload: modules that workers of our own need; a forked one finds them imported. started: by `start_early`."""
        self.o = options
        self.code: int | None = None
        self._loop, early = started or (Loop(), None)
        forks = early or self._make_forks(preload)
        self._journal, self._output = Journal(options.run), Output(self._loop, self._plan())
        self._node = Node(self._loop, forks, self._output, options, self._report)
        self._controller = Controller(self._loop, options, self._journal, self, Member("", options.name, options.workers))

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
            self._controller.gather()
            self._tick()
            self._loop.run(lambda: self.code is not None and self._node.empty)
        except MltrainError as error:                          # an attempt that could not be started: a port that is taken
            self._journal.close("failed", error.code, error.message)
            raise
        finally:
            self._node.close()
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

    # ── between node and controller ──────────────────────────────────────────────────────────────────────────────────────────────
    def _report(self, message: Message) -> None:
        self._controller.heard("", message)

    def _signalled(self, number: signal.Signals) -> None:
        self._node.reap_orphans()
        if number in _STOPS and self.code is None:
            self._controller.ask(number)

    def _tick(self) -> None:
        if self.o.run is None or self.code is not None:
            return
        self._loop.after(TICK_SECONDS, self._tick)
        self._report({"kind": "beat", **self._node.pulse()})
        self._controller.tick()

    # ── what the controller needs ────────────────────────────────────────────────────────────────────────────────────────────────
    def obey(self, order: Message) -> None:
        self._loop.after(0, lambda: self._node.obey(order))    # not from here: the report that led to it may not be done with

    def serve(self, attempt: int) -> tuple[str, int]:
        return self._node.stores.serve(attempt, self.o.host, self.o.port)

    def claim(self, attempt: int, nodes: list[Member]) -> bool:
        return True

    def over(self, code: int) -> None:
        self.code = code
        self._node.stores.close()

    def deposed(self) -> None:
        self.code = PREEMPTED


def start_early(preload: list[str]) -> tuple[Loop, Forks]:
    """A template for workers of our own, importing from now on; for an Agent that comes when it is known what to run."""
    loop = Loop()
    forks = _own_forks(loop, preload)
    forks.start(quiet=True)                                    # else whoever reads what a detached launch prints waits for the run's end
    return loop, forks


def _own_forks(loop: Loop, preload: list[str]) -> Forks:
    return Forks(loop, ["torch", "torch.distributed", "torch._dynamo", *preload], [], True, say)
