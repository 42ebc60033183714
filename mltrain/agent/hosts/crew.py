"""Who takes part in the next attempt, and when it may begin: the controller's view of its nodes.

Times hang together (seconds, all clocks run equally fast; derivation in docs/agent.md):
    SILENCE    a node that has had no answer for so long kills its workers; a controller gives up a node that has not confirmed an answer
               for so long
    MARGIN     how much later than meant a timer may fire and a SIGKILL take effect
    FENCE      SILENCE + MARGIN after a node was last heard, its workers are dead, whatever has become of it
    MINORITY   how much longer a part with less than half of the last attempt's nodes waits, or a controller that is left alone with half:
               the greater part goes first
"""
from __future__ import annotations

import time
from collections.abc import Callable

from mltrain.agent.hosts.members import Member, choose

SILENCE, MARGIN, MINORITY = 3.0, 0.5, 3.0
FENCE = SILENCE + MARGIN
FIRST_SECONDS = 30.0     # the first attempt waits so long for the last nodes once there are enough
REPLACE_SECONDS = 2.0    # a node whose agent died may come back, or a spare be ready, within that time
SILENT_SECONDS = 0.5     # one that fell silent has had its time already


class Crew:
    """The nodes that are there. most, least: of an attempt. fits: whether a number of ranks will do. seconds: to wait for `least` nodes."""

    def __init__(self, own: Member, most: int, least: int, fits: Callable[[int], bool], seconds: float) -> None:
        self.members = {own.id: own}
        self.excluded: set[str] = set()
        self._own, self._most, self._least, self._fits, self._seconds = own.id, most, least, fits, seconds
        self._heir = False                                     # of another controller, and no attempt begun yet
        self.last: list[str] = []                              # nodes of the newest attempt, in their order
        self._dead: set[str] = set()                           # of these, whose agents are known to be dead
        self._fenced: dict[str, float] = {}                    # when the workers of a lost node will be dead
        self._patience = time.monotonic() + FIRST_SECONDS if most > 1 else 0.0
        self._give_up = time.monotonic() + seconds

    # ── who is there ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def join(self, member: Member) -> None:
        self.members[member.id] = member
        self._fenced.pop(member.id, None)                      # an agent that joins has no workers
        self._dead.discard(member.id)

    def lose(self, id: str, *, dead: bool, silent: bool) -> Member:
        """dead: its agent has ended for sure, and its workers with it; else they are once it has fenced itself."""
        member = self.members.pop(id)
        if dead:
            self._dead.add(id)
        else:
            self._fenced[id] = member.heard + FENCE
        self._wait(SILENT_SECONDS if silent else REPLACE_SECONDS)
        return member

    def exclude(self, id: str) -> None:
        """This node is unfit, and whoever comes from its host."""
        self.excluded.add(self.members[id].host if id in self.members else id.rpartition(":")[0])

    def succeed(self, nodes: list[str], dead: set[str], fenced: dict[str, float]) -> None:
        """Go on after another controller's attempt. fenced: when the workers of its nodes that may not come back are dead."""
        self.last, self._dead, self._fenced, self._heir = nodes, dead, fenced, True
        self._patience = time.monotonic()
        self._wait(SILENT_SECONDS)

    def _wait(self, seconds: float) -> None:
        now = time.monotonic()
        self._patience, self._give_up = max(self._patience, now + seconds), max(self._give_up, now + self._seconds)

    # ── the next attempt ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def eligible(self) -> list[Member]:
        """In the order in which they are taken: ours, those of the newest attempt, then the others. A newcomer only once it is ready: the
        rest would wait for it."""
        there = [member for member in self.members.values() if member.host not in self.excluded
                 and (member.ready or not self.last or member.id in self.last)]
        known = {id: place for place, id in enumerate(self.last)}
        return sorted(there, key=lambda member: (member.id != self._own, known.get(member.id, len(known))))

    def nodes(self) -> list[Member]:
        """Those that the next attempt would have now; [] if they are too few."""
        return choose(self.eligible, self._most, self._least, self._fits)

    def ready(self, now: float) -> list[Member]:
        """Those that may begin now; [] while there is something to wait for."""
        hoped = len([id for id in self.last if id.rpartition(":")[0] not in self.excluded]) or self._most
        if (len(self.eligible) < hoped and now < self._patience) or now < self.safe:
            return []
        return self.nodes()

    @property
    def safe(self) -> float:
        """When workers of nodes that are lost are dead, and a greater part of the last nodes would have gone on."""
        gone = [id for id in self.last if id not in self.members and id not in self._dead]
        there, half = len([id for id in self.last if id in self.members]), (len(self.last) - len(self._dead)) / 2
        # of two halves an heir goes first: a controller that hears nobody at all is more likely the one that is cut off
        minority = there < half or (there == half and len(self.members) == 1 and not self._heir)
        return max((self._fenced.get(id, 0.0) for id in gone), default=0.0) + (MINORITY if gone and minority else 0.0)

    def hopeless(self, now: float) -> bool:
        """Too few, and nobody has come for long enough; or nobody who could."""
        return now >= self._give_up and not self.nodes()

    def begin(self, nodes: list[Member]) -> None:
        self.last, self._dead, self._fenced, self._patience = [node.id for node in nodes], set(), {}, 0.0
        self._heir = False

    def larger(self, ranks: int) -> list[Member]:
        """Nodes that could run with more ranks than so many; [] if there are none."""
        nodes = self.nodes()
        return nodes if sum(node.workers for node in nodes) > ranks else []
