"""The search for the controller: whom to ask next, and when to become it.

An heir (an agent of the newest attempt) asks those before it in that attempt's list; if none of them can be reached and the old
controller's workers are dead for sure, it leads. Others ask whoever may know: the rendezvous, the newest controller, the newest nodes.
Where nobody leads, as the run's lease says, and no heir has taken over, they begin anew.
"""
from __future__ import annotations

import socket
import time
from dataclasses import dataclass

from mltrain.agent.hosts.shared import Claim, Shared
from mltrain.agent.options import Options
from mltrain.errors import NodeUnfit
from mltrain.runs.lease import is_live

DIAL_SECONDS, LOOK_SECONDS = 0.3, 0.1
HEIRS_SECONDS = 10.0         # nodes of the newest attempt have so long to take over, before others may begin anew


@dataclass(frozen=True, slots=True)
class Move:
    """What to do now: dial that agent, or lead (after that attempt, None: anew), or nothing; and look again after `wait` seconds."""

    dial: str = ""
    lead: bool = False
    after: Claim | None = None
    wait: float = LOOK_SECONDS


class Search:
    """One search after another. first: we listen at the rendezvous. not_before: from when on an heir may lead. dead: agents that refused a
    connection, so that their workers are dead, too."""

    def __init__(self, options: Options, shared: Shared, rendezvous: tuple[str, int]) -> None:
        self.o, self._shared, self._rendezvous = options, shared, text(rendezvous)
        self.first, self.hint, self.not_before = False, "", 0.0
        self.dead: set[str] = set()
        self._silent: set[str] = set()                         # who did not take a connection
        self._to_dial: list[str] = []
        self._give_up = time.monotonic() + options.join_seconds
        self._orphaned = 0.0                                   # since when we have lost the controller

    def begin(self, lost: str = "", *, dead: bool = False, silent: bool = False, not_before: float = 0.0) -> None:
        """lost: the controller that we had. Neither dead nor silent: only our connection to it broke, and it is asked first."""
        now = time.monotonic()
        self.dead, self._silent = {lost} if dead else set(), {lost} if silent else set()
        self._to_dial, self.not_before, self._give_up = [], not_before, now + self.o.join_seconds
        self._orphaned = now if lost else 0.0

    def found(self) -> None:
        self.dead, self._silent, self._orphaned = set(), set(), 0.0

    def give_up(self, why: str) -> None:
        """Raises NodeUnfit (69) if it has lasted too long."""
        if time.monotonic() >= self._give_up:
            raise NodeUnfit(f"{why} within {self.o.join_seconds:.0f} s",
                            f"is an agent running at {self._rendezvous}, and reachable from here?")

    def failed(self, id: str, *, refused: bool) -> None:
        """That agent could not be reached."""
        (self.dead if refused else self._silent).add(id)

    def next(self, own: str, session: str, attempt: int) -> Move:
        """own: our HOST:PORT. session, attempt: in which we took part last."""
        newest = self._shared.newest()
        ours = newest is not None and newest.session == session
        heir = newest if newest and ours and newest.attempt == attempt and own in newest.nodes else None
        if not self._to_dial:
            self._to_dial = self._candidates(own, newest, heir)
        if self._to_dial and (id := self._to_dial.pop(0)) != own:
            return Move(dial=id, wait=LOOK_SECONDS if not self._to_dial else 0.0)
        self._to_dial = []
        if heir:                                               # those after us come to us
            return Move(lead=time.monotonic() >= self.not_before, after=heir, wait=LOOK_SECONDS / 2)
        orphaned = self._orphaned and time.monotonic() > self._orphaned + HEIRS_SECONDS
        return Move(lead=bool((self.first and not ours or orphaned) and self.o.run and not is_live(self.o.run)))

    def _candidates(self, own: str, newest: Claim | None, heir: Claim | None) -> list[str]:
        hint, self.hint = [self.hint] if self.hint else [], ""
        if heir:
            before = heir.nodes[:heir.nodes.index(own)]
            return [*hint, *(id for id in before if id not in self.dead | self._silent), own]
        known = [newest.controller, *newest.nodes[:8]] if newest else []
        there = [] if self.first else [self._rendezvous]
        return [*(id for id in dict.fromkeys([*hint, *there, *known]) if id != own), own]


def dial(id: str) -> socket.socket:
    """A connection to that agent. Raises OSError."""
    return socket.create_connection(parse(id), DIAL_SECONDS)


def answers(id: str) -> bool:
    """False if that host refuses the connection: its agent is dead and, by PR_SET_PDEATHSIG, so are its workers."""
    for _ in range(5):
        try:
            with dial(id) as sock:
                if sock.recv(1):
                    return True                                # a living agent greets
        except ConnectionRefusedError:
            return False
        except ConnectionError:
            pass
        except OSError:
            break                                              # silent: that proves nothing
        time.sleep(0.002)                                      # accepted and closed: a dying process closes its links before its listener
    return True


def text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def parse(id: str) -> tuple[str, int]:
    host, _, port = id.rpartition(":")
    return host.strip("[]"), int(port)
