"""The agents' port: whoever connects is a guest until it has proven that it holds the run's secret. Only then does the owner hear of it.

    guests = Guests(loop, listener, lambda: Seal(secret, run, dialled=False), received, ended, refused)

received(link, message) and ended(link, why) are those of `Link`, and come for proven links only. refused({"10.0.0.7: wrong MAC": 3, ...})
comes at most once a second, for a row of the ledger (`event: refused`): who was turned away since the last one, and why.

Guests are few (32, and 8 of one address) and have 2 s. While all places are taken nobody is let in: those who wait do so in the kernel's
queue, so 2,000 agents that come at once are served 32 at a time; an agent needs about a millisecond. One address cannot take all places.
"""
from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable

from mltrain.agent.hosts.link import Link, Message, Seal
from mltrain.agent.loop import Loop

MOST_GUESTS, MOST_OF_ADDRESS = 32, 8
PROOF_SECONDS, ROW_SECONDS, PAUSE_SECONDS = 2.0, 1.0, 0.2
MOST_REASONS = 100       # of different ones in one row
QUEUE = 4096             # for `listen`: the kernel takes less where net.core.somaxconn is lower


def listen(host: str, port: int) -> socket.socket:
    """The agents' port. Raises OSError if it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=QUEUE)


class Guests:
    """Takes the listening socket over. The owner closes the links that it was given."""

    def __init__(self, loop: Loop, listener: socket.socket, seal: Callable[[], Seal], received: Callable[[Link, Message], None],
                 ended: Callable[[Link, str], None], refused: Callable[[dict[str, int]], None]) -> None:
        self._loop, self._listener, self._seal = loop, listener, seal
        self._received, self._ended, self._refused = received, ended, refused
        self._guests: dict[Link, str] = {}                     # and where they come from
        self._turned_away: Counter[str] = Counter()
        self._row_due = self._open = False
        listener.setblocking(False)
        self._watch()

    def close(self) -> None:
        """No new guests; those who have not proven themselves are sent away. Rows that are due are written."""
        self._shut()
        self._listener.close()
        for link in self._guests:
            link.close()
        self._guests.clear()
        self._write()

    def _watch(self) -> None:
        if not self._open and self._listener.fileno() >= 0 and len(self._guests) < MOST_GUESTS:
            self._open = True
            self._loop.watch(self._listener.fileno(), self._connected)

    def _shut(self) -> None:
        if self._open:
            self._open = False
            self._loop.forget(self._listener.fileno())

    def _connected(self) -> None:
        try:
            sock, (address, *_) = self._listener.accept()
        except (BlockingIOError, ConnectionError):             # gone before we looked
            return
        except OSError:                                        # no more descriptors: come back, but do not spin
            self._shut()
            self._loop.after(PAUSE_SECONDS, self._watch)
            return
        if sum(other == address for other in self._guests.values()) >= MOST_OF_ADDRESS:
            sock.close()
            self._turn_away(address, f"more than {MOST_OF_ADDRESS} at a time without a proof")
            return
        link = Link(self._loop, sock, self._seal(), self._proven, self._gone)
        self._guests[link] = address
        if len(self._guests) == MOST_GUESTS:
            self._shut()
        self._loop.after(PROOF_SECONDS, lambda: self._late(link))

    def _proven(self, link: Link, message: Message) -> None:
        """Its first message: from now on the owner hears the link itself."""
        link.received, link.ended = self._received, self._ended
        self._leave(link)
        self._received(link, message)

    def _late(self, link: Link) -> None:
        if link in self._guests:
            link.close()
            self._turn_away(self._leave(link), f"no proof within {PROOF_SECONDS:g} s")

    def _gone(self, link: Link, why: str) -> None:
        """An end without a reason is no more than a look whether somebody is here, as agents take it, too."""
        address = self._leave(link)
        if why:
            self._turn_away(address, why)

    def _leave(self, link: Link) -> str:
        address = self._guests.pop(link)
        self._watch()
        return address

    def _turn_away(self, address: str, why: str) -> None:
        reason = f"{address}: {why}"
        self._turned_away[reason if reason in self._turned_away or len(self._turned_away) < MOST_REASONS else "others"] += 1
        if not self._row_due:                                  # at most a row a second: a flood must not fill the disk
            self._row_due = True
            self._loop.after(ROW_SECONDS, self._write)

    def _write(self) -> None:
        self._row_due = False
        if self._turned_away:
            counts = dict(self._turned_away)
            self._turned_away.clear()
            self._refused(counts)
