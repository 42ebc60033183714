"""The controller: numbers the attempts, decides who takes part, names the cause of a failure, and ends the run. It is one of the agents;
with one node it is always that node's own.

    gathering ──(enough nodes)──> beginning ──(its number is ours and on the disk)──> running ──(a failure; all stopped)──┬──> gathering
        │                                                                                ├──(asked to leave or make room)──┤
        └──(too few nodes)──> over                                                       └──(all left with 0)──> over <────┘

It speaks to nodes in the orders of `node.py` and hears their reports, over links or, for its own node, by a call. Only the controller
writes the run's ledger and status. Who takes part, and when, is `hosts/crew.py`; what an attempt's reports add up to, `attempt.py`.
"""
from __future__ import annotations

import signal
import time
from collections.abc import Callable

from mltrain.agent.attempt import Attempt
from mltrain.agent.cause import End, pick
from mltrain.agent.ending import Ending
from mltrain.agent.hosts.crew import SILENCE, Crew
from mltrain.agent.hosts.members import Member
from mltrain.agent.hosts.shared import Claim
from mltrain.agent.journal import Journal, say
from mltrain.agent.loop import Loop
from mltrain.agent.options import Options
from mltrain.agent.policy import Policy, Verdict
from mltrain.agent.site import Message, Site
from mltrain.agent.watch.pace import Pace
from mltrain.errors import INTERRUPTED, PREEMPTED, NodeUnfit

SCORE_EVERY = 10         # ticks
LOOK_SECONDS = 0.1       # between two looks at who is there
GROW_SECONDS = 3.0       # an attempt is not ended for more nodes before it has run so long
_STATES = {0: "done", PREEMPTED: "stopped", INTERRUPTED: "stopped"}


class Controller:
    """crew: the nodes that are there, its own among them."""

    def __init__(self, loop: Loop, options: Options, journal: Journal, site: Site, crew: Crew) -> None:
        self.o, self._loop, self._journal, self._site, self.crew = options, loop, journal, site, crew
        self._policy = Policy(options.restarts, options.own)
        self._stage, self._restarts, self._ticks = "gathering", 0, 0
        self._now = Attempt()
        self._pace = Pace(options, journal)
        self._ended = True                                     # the newest attempt's end is in the ledger
        self._ending = Ending(journal, options.grace, options.own)
        self._not_before, self._looks = 0.0, 0

    @property
    def attempt(self) -> int:
        return self._journal.attempt

    @property
    def members(self) -> dict[str, Member]:
        return self.crew.members

    def succeed(self, claim: Claim, dead: set[str], fenced_at: float) -> None:
        """Go on after the attempt of a controller that is lost. fenced_at: from when on its workers, and those of nodes that have not come
        to us, are dead."""
        self._restarts = claim.restarts + 1
        self._policy.load(claim.policy)
        self.crew.excluded = set(claim.excluded)
        self.crew.succeed(claim.nodes, dead, dict.fromkeys(claim.nodes, fenced_at))
        if self._journal.take_over(claim.attempt, claim.started):
            self._now = Attempt([node for node in self.members.values() if node.id in claim.nodes])
            self._now.lost(Member(claim.controller, claim.names.get(claim.controller, claim.controller), 0), "it was the controller")
            self._now.running.clear()
            self._ended = False

    # ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def join(self, member: Member) -> None:
        """A node has come. (It has been told that it is welcome.)"""
        if member.id in self.members:
            self.lost(member.id, silent=False)
        if member.host in self.crew.excluded:
            self._send_away(member, f"{member.name} is excluded: it was unfit")
        elif self.o.spares is not None and len(self.members) >= self.o.nodes + self.o.spares:
            self._send_away(member, f"{self.o.nodes} nodes and {self.o.spares} spares are here already")
        else:
            self.crew.join(member)
            self._journal.row("node joined", node=member.name, address=member.id, workers=member.workers, nodes=len(self.members))
            self.gather()

    def _send_away(self, member: Member, reason: str) -> None:
        if member.link:
            member.link.send("finish", self.attempt, code=NodeUnfit.code, reason=reason)

    def lost(self, node: str, *, silent: bool) -> None:
        """Its agent is gone, or cut off: then its workers die of its own doing, and the next attempt waits for that."""
        if node not in self.members or self._stage == "over":
            return
        member = self.crew.lose(node, dead=not silent and not self._site.answers(node), silent=silent)
        if member.link:
            member.link.close()
        why = f"silent for {SILENCE:.0f} s" if silent else "the connection to its agent ended"
        self._journal.row("node lost", node=member.name, address=node, reason=why, nodes=len(self.members))
        if node in self._now.running and self._stage == "running":
            self._now.lost(member, why)
            self._stop_attempt()
            if not self._now.running:
                self._conclude()
        self.gather()

    def watch(self) -> None:
        """Is a node silent? Has another controller gone on without us?"""
        if self._stage == "over":
            return
        now = time.monotonic()
        for id, member in list(self.members.items()):
            if member.link and now - member.proven > SILENCE:
                self.lost(id, silent=True)

    def dismiss(self) -> None:
        """Another controller has the run: let go of nodes and directory."""
        self._stage = "over"
        for member in self.members.values():
            if member.link:
                member.link.close()
        self._journal.abandon()

    # ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def gather(self) -> None:
        """Begin the next attempt as soon as it may, and enough nodes are there."""
        if self._stage != "gathering":
            return
        now = time.monotonic()
        nodes = self.crew.ready(now) if now >= self._not_before else []
        if nodes:
            self._begin(nodes)
        elif self.crew.hopeless(now):
            reason = f"{len(self.members)} of at least {self.o.min_nodes} nodes are here"
            self._finish(Verdict(NodeUnfit.code, f"not restarted: {reason}"), None)
        else:
            self._looks += 1
            number, wait = self._looks, self._not_before - now
            if wait <= 0:
                self._journal.waiting(len(self.members))
            self._loop.after(wait if wait > 0 else LOOK_SECONDS, lambda: self.gather() if number == self._looks else None)

    def _begin(self, nodes: list[Member]) -> None:
        attempt, started = self.attempt + 1, time.time()
        claim = {"nodes": [node.id for node in nodes], "names": {node.id: node.name for node in nodes}, "started": started,
                 "excluded": sorted(self.crew.excluded), "restarts": self._restarts, "policy": self._policy.state()}
        if not self._ended:
            self._conclude_of_predecessor()
        self._stage = "beginning"
        self._site.claim(attempt, claim, lambda ours: self._claimed(nodes, ours))

    def _claimed(self, nodes: list[Member], ours: bool) -> None:
        if self._stage != "beginning":                         # asked to end, meanwhile
            return
        if not ours:
            self._site.deposed()
            return
        self._ended, self._now = False, Attempt(nodes)
        several = {"nodes": [node.name for node in nodes]} if self.o.rendezvous else {}
        self._journal.attempt_started(lambda: self._start(nodes), workers=self._now.ranks, **several)

    def _start(self, nodes: list[Member]) -> None:
        if self._stage != "beginning":
            return
        self._stage = "running"
        if any(self.members.get(node.id) is not node for node in nodes):           # lost meanwhile: it has no workers yet
            for node in nodes:
                if self.members.get(node.id) is not node:
                    self._now.lost(node, "lost before it could begin")
            self._now.failing = True
            self._now.running.clear()
            self._conclude()
            return
        master = self._site.serve(self.attempt)
        self.crew.begin(nodes)
        first = 0
        for group, node in enumerate(nodes):
            node.ranks, node.begun, node.parts, node.silent = [], None, {}, ("", 0.0)
            self._tell(node, "start", first=first, world=self._now.ranks, group=group, groups=len(nodes), master=list(master),
                       restarts=self._restarts)
            first += node.workers

    def _tell(self, node: Member, kind: str, **fields: object) -> None:
        if node.link:
            node.link.send(kind, self.attempt, **fields)
        else:
            self._site.obey({"kind": kind, "attempt": self.attempt, **fields})

    def _tell_running(self, kind: str, **fields: object) -> None:
        for id in sorted(self._now.running):
            self._tell(self._now.nodes[id], kind, **fields)

    # ── reports ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def heard(self, node: str, message: Message) -> None:
        """A report of one of the members."""
        member, kind = self.members.get(node), message["kind"]
        if member is None or self._stage == "over":
            return
        member.heard = time.monotonic()
        if kind == "alive" and member.link:
            member.proven = max(member.proven, message["heard"])
            member.link.send("ack", message["attempt"], sent=message["sent"], at=member.heard)
        elif kind == "ready":
            member.ready = True
            self.gather()
        elif kind == "note":
            fields = {key: value for key, value in message.items() if key not in ("kind", "attempt", "seq", "event")}
            self._journal.row(message["event"], node=member.name, **fields)
        elif kind == "ask":
            self.ask(signal.Signals(message["signal"]), member.name, message.get("notice"))
        elif message.get("attempt") == self.attempt and node in self._now.nodes:
            self._of_attempt(member, message)

    def _of_attempt(self, member: Member, message: Message) -> None:
        kind = message["kind"]
        if kind == "beat":
            self._now.pulse(member, message)
        elif kind == "row":
            self._row(message["row"])
        elif kind == "failed":
            self._now.take(member, message["ends"])
            self._stop_attempt()
        elif kind == "stopped" and member.id in self._now.running:
            self._now.stopped(member, message)
            if not self._now.running:
                self._conclude()
            elif message["codes"] and not self._now.failing and self._ending.number is None:
                # they left in order (75, 130): those on other nodes must follow
                self._loop.after(self.o.grace, self._stop_rest(self.attempt))

    def _row(self, row: Message) -> None:
        """A line from a worker for the ledger."""
        event, step = row.pop("event"), row.get("step")
        if event == "saved" and isinstance(step, int):
            self._policy.saved(step)
        if event == "training" and isinstance(row.get("steps"), int):
            self._journal.steps(row["steps"])
        self._journal.row(event, **row)
        if event == "saved" and not self.o.own:
            self._grow()

    def _stop_attempt(self) -> None:
        """A failure ends the attempt everywhere."""
        if not self._now.failing:
            self._now.failing = True
            self._tell_running("stop")

    def _stop_rest(self, attempt: int) -> Callable[[], None]:
        def stop() -> None:
            if self.attempt == attempt:
                self._tell_running("stop")
        return stop

    # ── verdict ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _conclude(self) -> None:
        """All are gone: what now?"""
        self._write()
        now = self._now
        if self._ending.number is not None:
            self._finish(self._ending.verdict(self._now), None)
        elif now.left_to_grow and (now.codes or now.stopped_early):
            more = self.crew.nodes()
            self._end_attempt(None, 0, Verdict(None, f"going on with {len(more)} nodes"))
            self._again(0.0)
        elif not now.failing:
            code = max(now.codes, default=0)
            self._finish(Verdict(code, "stopped with state saved" if code or now.stopped_early else "done"), None)
        else:
            self._judge()

    def _judge(self) -> None:
        cause, echoes = pick(self._now.ends)
        verdict = self._without(cause) or self._policy.judge(cause, time.monotonic() - self._now.started)
        also = f" ({echoes} other{'s' * (echoes > 1)} failed with it)" if echoes else ""
        more = f"; more: {self._journal.command_for_more()}" if self.o.run and cause.rank >= 0 else ""
        if cause.is_unfit:
            more = "\n  " + cause.message.splitlines()[-1]
        say(f"attempt {self.attempt}: {cause.describe()}{also}; {verdict.reason}{more}")
        if verdict.code is not None:
            self._finish(verdict, cause, echoes)
        else:
            self._end_attempt(cause, echoes, verdict)
            self._again(verdict.wait)

    def _without(self, cause: End) -> Verdict | None:
        """An unfit node (69) is left out, if there are enough others."""
        if cause.code != NodeUnfit.code or not self.o.rendezvous:
            return None
        id = next((node.id for node in self._now.nodes.values() if any(row["rank"] == cause.rank for row in node.ranks)), None)
        if id is None:
            return None
        self.crew.exclude(id)
        if not self.crew.nodes():
            return None
        reason = cause.message.partition("\n")[0] or f"exit code {cause.code}"
        self._journal.row("node excluded", node=self._now.nodes[id].name, reason=reason)
        member = self.members[id]
        if member.link:
            self._send_away(member, f"{member.name} is excluded: it is unfit")
            self.crew.members.pop(id)
        return Verdict(None, f"{member.name} is excluded; restarting with {len(self.crew.nodes())} nodes")

    def _again(self, wait: float) -> None:
        self._restarts, self._stage = self._restarts + 1, "gathering"
        self._not_before = max(self._not_before, time.monotonic() + wait)
        self.gather()

    def _conclude_of_predecessor(self) -> None:
        """The attempt that we took over: its end, by what its nodes have told us since."""
        self._write()
        self._now.step = max((row["step"] for row in self._now.rows), default=-1)
        cause, echoes = pick(self._now.ends)
        verdict = Verdict(None, "another controller takes over")
        say(f"attempt {self.attempt}: {cause.describe()}; {verdict.reason}")
        self._end_attempt(cause, echoes, verdict)

    def _end_attempt(self, cause: End | None, echoes: int, verdict: Verdict) -> None:
        if not self._ended:
            self._journal.attempt_ended(cause, echoes, verdict, self._now.step, self._now.parts(cause))
        self._ended = True

    def _finish(self, verdict: Verdict, cause: End | None, echoes: int = 0) -> None:
        self._end_attempt(cause, echoes, verdict)
        self._stage = "over"
        code = verdict.code or 0
        if self._ending.number is None or code == 0:
            state, reason = _STATES.get(code, "failed"), cause.describe() if cause else verdict.reason
            state = "stopped" if state == "done" and self._now.stopped_early else state
        elif self._journal.cancelled():
            state, reason, code = "cancelled", "cancelled", INTERRUPTED
        else:
            state, reason = "stopped", verdict.reason
        self._journal.close(state, code, reason)
        self._site.over(code)
        self._send_all_home(code)

    def fail(self, code: int, reason: str) -> None:
        """An attempt could not be started, and none will."""
        if self._stage != "over":
            self._stage = "over"
            self._journal.close("failed", code, reason)
            self._site.over(code)
            self._send_all_home(code)

    def _send_all_home(self, code: int) -> None:
        for member in self.members.values():
            if member.link:
                member.link.send("finish", self.attempt, code=code)

    # ── the end that was asked for ───────────────────────────────────────────────────────────────────────────────────────────────
    def ask(self, number: signal.Signals, node: str = "", notice: Message | None = None) -> None:
        """As `Ending.ask`."""
        first = self._ending.number is None
        if (order := self._ending.ask(number, node, notice)) is None:
            return
        if first and self._stage != "running":                 # nobody is there to save anything
            self._finish(self._ending.verdict(self._now), None)
        elif order["kind"] == "stop" or not self._now.failing:
            self._tell_running(**order)

    # ── the clock ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def tick(self) -> None:
        """About once a second: status.json and the lease."""
        if self._stage == "over":
            return
        self._ticks += 1
        if self._ticks % SCORE_EVERY == 0:
            self._journal.score()
        self._write()
        self._pace.look(self._now.nodes, self.attempt, self._tell)
        if self.o.own:
            self._grow()

    def _grow(self) -> None:
        """Nodes have come (back) with which the run could have more ranks: let it save and leave, and go on with them. A script of others
        may not save when told to leave: it is told when it has just saved."""
        now = self._now
        if self._stage != "running" or now.failing or now.growing or self._ending.number is not None or self.o.nodes == 1:
            return
        if now.begun is None and self.o.own or time.monotonic() - now.started < GROW_SECONDS:
            return
        if more := self.crew.larger(now.ranks):
            now.growing = True
            names = [node.name for node in more]
            say(f"attempt {self.attempt}: more nodes are here ({', '.join(names)}): it saves and goes on with them")
            self._journal.row("growing", attempt=self.attempt, nodes=names)
            self._tell_running("leave", signal=int(signal.SIGTERM))

    def _write(self) -> None:
        self._journal.write(self._now.rows, self._now.begun, self._now.parts())
