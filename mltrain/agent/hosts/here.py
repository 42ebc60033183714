"""Several nodes on this one machine: an agent each, with an address of the loopback interface each. The way to try several nodes, spares
and their loss on a laptop; the agents are what they are anywhere, and know nothing of it.

An agent that is killed by a signal is started again, as a cluster would bring a machine back. Signals go to the agent that leads the run.
"""
from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from types import FrameType

from mltrain.agent.journal import say
from mltrain.agent.options import Options
from mltrain.agent.tie import die_with_parent
from mltrain.errors import PREEMPTED
from mltrain.runs.lease import read_lease

_RELAYED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Here:
    """argv: the command line that asked for this; each agent gets it without --here, and with what tells it from the others."""

    def __init__(self, options: Options, argv: list[str]) -> None:
        self.o, self._words = options, list(argv)
        self._words.remove("--here")
        if options.parent:                                     # ours: we are the agents'
            at = self._words.index("--parent")
            del self._words[at:at + 2]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._rendezvous = f"127.0.0.1:{free.getsockname()[1]}"
        self._agents: dict[int, subprocess.Popen[bytes]] = {}
        self._restarts, self._stopping = 0, False

    def run(self) -> int:
        """Until all have ended. Returns the run's exit code: that of the last agent to end in order."""
        if self.o.parent:
            die_with_parent(signal.SIGTERM)
            if os.getppid() != self.o.parent:
                return PREEMPTED
        for relayed in _RELAYED:
            signal.signal(relayed, self._relay)
        signal.pthread_sigmask(signal.SIG_BLOCK, _RELAYED)     # a signal comes between two starts, not in one
        for number in range(1, self.o.nodes + (self.o.spares or 0) + 1):
            self._begin(number)
        code = PREEMPTED
        while self._agents:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _RELAYED)
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            signal.pthread_sigmask(signal.SIG_BLOCK, _RELAYED)
            if found:
                code = self._ended(found.si_pid, code)
        return code

    def _begin(self, number: int) -> None:
        own = ["--address", f"127.0.0.{number + 1}", "--node-name", f"node{number}", "--rendezvous", self._rendezvous,
               "--parent", str(os.getpid())]
        self._agents[number] = _start([*own, *self._words])

    def _ended(self, pid: int, code: int) -> int:
        """One of them is gone: is it the end, or is it to come back?"""
        number = next((number for number, agent in self._agents.items() if agent.pid == pid), 0)
        if not number:
            os.waitpid(pid, 0)                                 # not one of ours: an orphan
            return code
        ended = self._agents.pop(number).wait()
        if ended >= 0:
            return ended
        if not self._stopping and self._restarts < self.o.restarts:
            self._restarts += 1
            say(f"the agent of node{number} was killed by signal {-ended}: starting it again ({self._restarts} of {self.o.restarts})")
            self._begin(number)
        return 128 - ended

    def _relay(self, number: int, frame: FrameType | None) -> None:
        """To the agent that leads, which tells the others; before anybody leads, to all."""
        self._stopping = True
        holder = read_lease(self.o.run) if self.o.run else None
        leading = [agent for agent in self._agents.values() if holder and agent.pid == holder.pid]
        for agent in leading or list(self._agents.values()):
            with contextlib.suppress(ProcessLookupError):
                agent.send_signal(number)


def _start(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "mltrain", "agent", *words], stdin=subprocess.DEVNULL, start_new_session=True,
                            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _RELAYED))
