"""The agent among agents: finds the controller or becomes it, holds the lease, and kills its own workers when the controller is lost.

    seeking ──(joined: welcome)──> following ──(no answer for SILENCE seconds, or the connection ends)──> seeking, workers killed
       └──(nobody before us in the list, and the time has come)──> leading ──(another has the next attempt)──> seeking

First controller: whoever can listen at the rendezvous address. After it: the first in the list of the newest attempt's nodes that can be
reached (`shared.py` keeps the list). An agent that did not take part in the newest attempt can follow, but never take over.

Why a successor cannot run beside its predecessor: `crew.py` has the constants, docs/agent.md the derivation.
"""
from __future__ import annotations

import contextlib
import secrets
import socket
import time
from typing import Protocol

from mltrain.agent.hosts.crew import MARGIN, SILENCE
from mltrain.agent.hosts.guests import Guests, listen
from mltrain.agent.hosts.link import Link, Message, Seal
from mltrain.agent.hosts.members import Member
from mltrain.agent.hosts.search import DIAL_SECONDS, LOOK_SECONDS, Search, answers, dial, text
from mltrain.agent.hosts.shared import Claim, Shared
from mltrain.agent.journal import say
from mltrain.agent.loop import Loop
from mltrain.agent.options import Options
from mltrain.agent.scribe import Scribe
from mltrain.errors import ConfigError

WATCH_SECONDS = 0.25     # between two looks of a controller for silent nodes: half of MARGIN
BEAT_SECONDS, ANSWER_SECONDS = 0.5, 1.5
NO_SECRET_SECONDS = 10.0     # somebody listens at the rendezvous, and the run's secret is not in our directory: it is another one


class Leader(Protocol):
    """The controller, as its links see it."""

    @property
    def attempt(self) -> int:
        """The newest one."""
    def join(self, member: Member) -> None:
        """A node has come."""
    def heard(self, node: str, message: Message) -> None:
        """A report of one of its members."""
    def lost(self, node: str, *, silent: bool) -> None:
        """The connection to it has ended, or it is silent."""
    def watch(self) -> None:
        """Is a node silent? Has another controller taken over?"""
    def dismiss(self) -> None:
        """Another controller has the run: let go of the nodes."""


class Base(Protocol):
    """What the cluster needs of the agent it lives in."""

    def lead(self, session: str, after: Claim | None, dead: set[str], fenced_at: float) -> Leader | None:
        """Be the controller from now on. after: the attempt that its controller has left. None: another agent holds the run."""
    def listening(self, host: str) -> None:
        """This is our address."""
    def obey(self, order: Message) -> None:
        """An order of the controller for our node."""
    def state(self) -> tuple[bool, bool]:
        """(no worker runs here, workers could start at once)"""
    def halt(self) -> None:
        """Kill the workers, now."""
    def leave(self, code: int) -> None:
        """The run is over for this agent."""


class Cluster:
    """This agent's links. own: HOST:PORT at which it can be reached, known from open() on."""

    def __init__(self, loop: Loop, options: Options, shared: Shared, scribe: Scribe, base: Base) -> None:
        self._loop, self.o, self._shared, self._scribe, self._base = loop, options, shared, scribe, base
        assert options.rendezvous is not None
        self._rendezvous = options.rendezvous
        self.own, self.session, self._attempt = "", secrets.token_hex(8), 0
        self.leader: Leader | None = None
        self._secret = b""
        self._guests: list[Guests] = []
        self._names: dict[Link, str] = {}                      # who is at the other end of a link that came to us
        self._seekers: dict[str, Member] = {}                  # who joined us while we were seeking ourselves
        self._up: Link | None = None
        self._controller, self._welcomed = "", False
        self._asked = 0.0                                      # when we asked to join
        self._lease, self._answered, self._stamp = 0.0, 0.0, 0.0           # of the newest answer: when asked, when here, when made there
        self._search = Search(options, shared, options.rendezvous)
        self._no_secret_since, self._token, self._told_ready, self._looks = 0.0, "", False, False

    @property
    def host(self) -> str:
        return self.own.rpartition(":")[0]

    # ── beginning ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def start(self) -> None:
        self._open()
        self._beat()
        self._watch()

    def _open(self) -> None:
        """Listen, once we have an address and the secret; until then try again."""
        self._search.give_up("no rendezvous")
        address, first = self._address(), None
        if address:
            with contextlib.suppress(OSError):                 # not this machine's, or another agent has it
                first = listen(*self._rendezvous)
            secret = self._shared.secret(make=first is not None)
            if secret:
                self._secret, self._search.first = secret, first is not None
                self._listen(address, first)
                self._seek()
                return
            if first:
                first.close()
            self._no_secret_yet()
        self._loop.after(LOOK_SECONDS, self._open)

    def _listen(self, address: str, first: socket.socket | None) -> None:
        listeners = [first] if first else []
        if not first or first.getsockname()[0] != address:
            listeners.insert(0, listen(address, 0))
        host, port = listeners[0].getsockname()[:2]
        self.own = f"{host}:{port}"
        self._base.listening(host)
        self._token = self._shared.announce(self.own)
        for listener in listeners:
            self._guests.append(Guests(self._loop, listener, lambda: Seal(self._secret, self.o.run_id, dialled=False), self._heard,
                                       self._ended, self._refused))

    def _address(self) -> str:
        """Ours: that of the interface that leads to the rendezvous. "" while its name cannot be resolved."""
        if self.o.address:
            return self.o.address
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((self._rendezvous[0], self._rendezvous[1] or 1))
            return str(probe.getsockname()[0])
        return ""

    def _no_secret_yet(self) -> None:
        """The first agent makes it before it answers anybody."""
        try:
            with socket.create_connection(self._rendezvous, DIAL_SECONDS):
                self._no_secret_since = self._no_secret_since or time.monotonic()
        except OSError:
            self._no_secret_since = 0.0
        if self._no_secret_since and time.monotonic() - self._no_secret_since > NO_SECRET_SECONDS:
            raise ConfigError(f"{self.o.run} is not the directory that the agent at {text(self._rendezvous)} uses",
                              "several nodes need one run directory that all of them share: --run-dir")

    # ── links ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _heard(self, link: Link, message: Message) -> None:
        """From somebody who came to us."""
        if message["kind"] == "join":
            self._joins(link, message)
        elif self.leader and link in self._names:
            self.leader.heard(self._names[link], message)

    def _joins(self, link: Link, message: Message) -> None:
        id = message["id"]
        if id == self.own:                                     # somebody in the middle carries our own join back to us
            link.close()
            return
        member = Member(id, message["name"], message["workers"], link, message["ready"])
        attempt, token = message["attempt"], message["token"]
        self._scribe.ask(lambda: self._shared.sees(id, token), lambda sees: self._checked(link, member, attempt, sees))

    def _checked(self, link: Link, member: Member, attempt: int, sees: bool) -> None:
        if link.closed:                                        # meanwhile
            return
        if not sees:
            reason = f"{self.o.run} on {member.name} is not the directory of the same name on {self.o.name}: all nodes must share it"
            link.send("finish", attempt, code=ConfigError.code, reason=reason)
        elif self.leader:
            self._welcome(link, member)
        elif self._welcomed:
            link.send("redirect", attempt, controller=self._controller)
        else:
            self._names[link], self._seekers[member.id] = member.id, member

    def _welcome(self, link: Link, member: Member) -> None:
        if self.leader:
            self._names[link] = member.id
            link.send("welcome", self._attempt, session=self.session, controller=self.own)
            self.leader.join(member)                           # and perhaps an order at once

    def _ended(self, link: Link, why: str) -> None:
        if link is self._up:
            self._up = None
            if self._welcomed:
                self._lost(silent=False)
            elif why:
                say(f"{self.o.name}: turned away: {why}")
            return
        id = self._names.pop(link, "")
        if self.leader and id:
            self.leader.lost(id, silent=False)
        elif id in self._seekers and self._seekers[id].link is link:
            del self._seekers[id]

    def _refused(self, counts: dict[str, int]) -> None:
        """Who was turned away: a row of the ledger."""
        self.report({"kind": "note", "event": "refused", "counts": counts})

    def report(self, message: Message) -> None:
        """To the controller, whoever it is."""
        if self.leader:
            self.leader.heard(self.own, {"attempt": self._attempt, **message})
        elif self._up and self._welcomed:
            fields = {key: value for key, value in message.items() if key not in ("kind", "attempt")}
            self._up.send(message["kind"], message.get("attempt", self._attempt), **fields)

    # ── following ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _watch(self) -> None:
        self._loop.after(WATCH_SECONDS, self._watch)
        if self.leader:
            self.leader.watch()
            if not self._looks:                                # where the storage is slow: one look at a time
                self._looks, next = True, self.leader.attempt + 1
                self._scribe.ask(lambda: self._shared.taken(next), lambda taken: self._looked(next, taken))

    def _looked(self, attempt: int, taken: bool) -> None:
        """Has another controller begun that attempt?"""
        self._looks = False
        if taken and self.leader and self.leader.attempt + 1 == attempt:
            self.deposed()

    def _beat(self) -> None:
        self._loop.after(BEAT_SECONDS, self._beat)
        if self._welcomed and self._up:
            self._up.send("alive", self._attempt, sent=time.monotonic(), heard=self._stamp)
            if not self._told_ready and self._base.state()[1]:
                self._told_ready = True
                self._up.send("ready", self._attempt)

    def check_lease(self) -> None:
        """Before anything else is done: this process may have been stopped, and its news be old."""
        if self._welcomed and time.monotonic() - self._lease > SILENCE:
            self._lost(silent=True)

    def _ordered(self, link: Link, message: Message) -> None:
        """From the controller, or whom we took for it."""
        if link is not self._up:
            return
        kind = message["kind"]
        if kind == "ack":
            self._lease, self._answered = max(self._lease, message["sent"]), time.monotonic()
            self._stamp = message["at"]
        elif kind == "welcome":
            self._welcomed, self._controller, self.session = True, message["controller"], message["session"]
            self._lease = self._asked                          # not now: the answer may have been long on its way
            self._answered, self._stamp, self._told_ready = time.monotonic(), 0.0, False
            self._search.found()
            self._loop.after(SILENCE, self._look_at_lease)
        elif kind == "redirect":
            self._drop_up()
            self._search.hint = message["controller"]
        elif kind == "finish":
            if reason := message.get("reason"):
                say(f"{self.o.name}: {reason}")
            self._base.leave(message["code"])
        else:
            if kind == "start":
                self._attempt = message["attempt"]
            self._base.obey(message)

    def _look_at_lease(self) -> None:
        """A timer that fires when the lease would end; every event of the loop looks, too."""
        if self._welcomed:
            self.check_lease()
            self._loop.after(max(0.05, self._lease + SILENCE - time.monotonic()), self._look_at_lease)

    def _drop_up(self) -> None:
        if self._up:
            self._up.close()
        self._up, self._welcomed, self._asked = None, False, 0.0

    def _lost(self, *, silent: bool) -> None:
        """Fencing: nobody answers for this node's workers any more, so they die now, before anything else."""
        self._base.halt()
        self._drop_up()
        say(f"{self.o.name}: the controller is lost ({'silent' if silent else 'its connection ended'}): the workers here are killed")
        dead = not silent and not answers(self._controller)
        safe = 0.0 if dead else self._answered + SILENCE + MARGIN
        self._search.begin(self._controller, dead=dead, silent=silent, not_before=safe)
        self._loop.after(0, self._seek)

    # ── seeking ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _seek(self) -> None:
        """Find the controller, or become it."""
        if self.leader or self._welcomed:
            return
        if (code := self._shared.ended(self.session)) is not None:         # its message has not reached us
            self._base.leave(code)
            return
        self._search.give_up("no controller")
        wait = LOOK_SECONDS
        if self._base.state()[0] and time.monotonic() >= self._asked + ANSWER_SECONDS:
            self._drop_up()
            move = self._search.next(self.own, self.session, self._attempt)
            wait = move.wait
            if move.lead:
                self._lead(move.after)
            elif move.dial:
                wait = LOOK_SECONDS if self._dial(move.dial) else wait
        self._loop.after(wait, self._seek)

    def _dial(self, id: str) -> bool:
        try:
            sock = dial(id)
        except OSError as error:
            self._search.failed(id, refused=isinstance(error, ConnectionRefusedError))
            return False
        self._up = Link(self._loop, sock, Seal(self._secret, self.o.run_id, dialled=True), self._ordered, self._ended)
        self._asked = time.monotonic()
        self._up.send("join", self._attempt, id=self.own, name=self.o.name, workers=self.o.workers, ready=self._base.state()[1],
                      token=self._token)
        return True

    def _lead(self, after: Claim | None) -> None:
        session = self.session if after else secrets.token_hex(8)
        leader = self._base.lead(session, after, self._search.dead, self._search.not_before)
        if leader is None:                                     # another agent was faster
            return
        self.leader, self.session = leader, session
        self._search.found()
        seekers, self._seekers = self._seekers, {}
        for member in seekers.values():
            if member.link:
                self._welcome(member.link, member)

    def begun(self, attempt: int) -> None:
        """As controller: our own node has a part in this attempt."""
        self._attempt = attempt

    def deposed(self) -> None:
        """Another controller has the next attempt: become an ordinary agent again."""
        say(f"{self.o.name}: another controller has the next attempt")
        if self.leader:
            self.leader.dismiss()
        self._base.halt()
        self.leader, self._names, self._asked = None, {}, 0.0
        self._search.begin()
        self._loop.after(0, self._seek)

    def close(self) -> None:
        for guests in self._guests:
            guests.close()
        if self._up:
            self._up.close()
        if self.own:
            self._shared.withdraw(self.own)

