"""Who takes part: the agents a controller knows, and which of them make the next attempt."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mltrain.agent.hosts.link import Link


@dataclass(eq=False)
class Member:
    """One node. id: HOST:PORT at which its agent can be reached, "" where one node is all there is. name: for people. link: None for the
    controller's own node. ready: its workers could start at once. heard: when it last spoke. proven: the newest moment (of this clock)
    of which it has said that it heard us then. ranks, begun, parts: as in `Node.pulse`. silent: (part, seconds)
    of these in which nobody knew that it had failed."""

    id: str
    name: str
    workers: int
    link: Link | None = None
    ready: bool = True
    heard: float = field(default_factory=time.monotonic)
    proven: float = field(default_factory=time.monotonic)
    ranks: list[dict[str, Any]] = field(default_factory=list)
    begun: tuple[int, float] | None = None
    parts: dict[str, float] = field(default_factory=dict)
    silent: tuple[str, float] = ("", 0.0)

    @property
    def host(self) -> str:
        """Its address without the port: what is excluded when the node is unfit, since a new agent there has a new port."""
        return self.id.rpartition(":")[0]


def choose(members: Iterable[Member], most: int, least: int, fits: Callable[[int], bool]) -> list[Member]:
    """The greatest number of nodes, from the front, whose ranks the run can be cut into; empty if fewer than `least` would do."""
    chosen = list(members)[:most]
    while len(chosen) >= max(least, 1):
        if fits(sum(member.workers for member in chosen)):
            return chosen
        chosen.pop()
    return []
