from __future__ import annotations

import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from mltrain.agent.hosts import guests as module
from mltrain.agent.hosts.guests import MOST_GUESTS, MOST_OF_ADDRESS, MOST_REASONS, Guests, listen
from mltrain.agent.hosts.link import Link, Message, Seal
from mltrain.agent.loop import Loop

SECRET = b"s" * 32


class Owner:
    """An agent's end: notes what it hears of its guests."""

    def __init__(self, wrap: Callable[[socket.socket], socket.socket] = lambda listener: listener) -> None:
        self.loop, listener = Loop(), listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.heard: list[tuple[Link, Message]] = []
        self.ends: list[str] = []
        self.rows: list[dict[str, int]] = []
        self.sockets: list[socket.socket] = []
        self.guests = Guests(self.loop, wrap(listener), lambda: Seal(SECRET, "run", dialled=False),
                             lambda link, message: self.heard.append((link, message)), lambda _, why: self.ends.append(why),
                             self.rows.append)

    @property
    def refused(self) -> Counter[str]:
        return sum((Counter(row) for row in self.rows), Counter())

    def until(self, done: Callable[[], bool]) -> None:
        limit = time.monotonic() + 60
        self.loop.after(60, lambda: None)
        self.loop.run(lambda: done() or time.monotonic() > limit)
        assert done()

    def connect(self, address: str = "127.0.0.1") -> socket.socket:
        sock = socket.socket()
        sock.settimeout(60)
        sock.bind((address, 0))
        sock.connect(("127.0.0.1", self.port))
        self.sockets.append(sock)
        return sock

    def dial(self, node: int, address: str = "127.0.0.1") -> Link:
        """One that holds the secret, and says so as soon as it is greeted."""
        link = Link(self.loop, self.connect(address), Seal(SECRET, "run", dialled=True), lambda *_: None, lambda *_: None)
        link.send("join", 0, node=node)
        return link


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    monkeypatch.setattr(module, "ROW_SECONDS", 0.05)
    owner = Owner()
    yield owner
    owner.guests.close()
    for sock in owner.sockets:
        sock.close()


def test_whoever_has_proven_itself_is_the_owners(owner: Owner):
    dialler = owner.dial(7)
    owner.until(lambda: bool(owner.heard))
    link, message = owner.heard[0]
    assert message["node"] == 7 and not owner.guests._guests
    dialler.send("beat", 0, sent=1)
    owner.until(lambda: len(owner.heard) == 2)
    dialler.close()
    owner.until(lambda: owner.ends == [""])
    assert owner.rows == [] and link.closed


def test_the_silent_are_sent_away_and_the_proven_stay(owner: Owner, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PROOF_SECONDS", 0.1)
    owner.dial(7)
    silent = owner.connect()
    owner.until(lambda: bool(owner.rows))
    assert owner.refused == {"127.0.0.1: no proof within 0.1 s": 1}
    assert silent.recv(100).startswith(b"mltrain-agent/1 ") and silent.recv(100) == b""
    assert len(owner.heard) == 1 and owner.ends == []


def test_a_flood_of_garbage_is_a_few_rows_and_honest_agents_come_in(owner: Owner, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ROW_SECONDS", 0.5)
    for number in range(200):
        owner.connect("127.0.0.9").sendall(os.urandom(80) + b"\n")
        if number == 100:
            owner.dial(1, "127.0.0.2")
    owner.until(lambda: bool(owner.heard) and owner.refused.total() == 200)
    assert {reason.partition(": ")[0] for reason in owner.refused} == {"127.0.0.9"}
    assert len(owner.rows) < 20 and owner.ends == []


def test_one_address_cannot_take_all_places(owner: Owner):
    for _ in range(MOST_OF_ADDRESS + 1):
        owner.connect("127.0.0.9")
    owner.until(lambda: bool(owner.rows))
    assert owner.refused == {f"127.0.0.9: more than {MOST_OF_ADDRESS} at a time without a proof": 1}
    owner.dial(1, "127.0.0.2")
    owner.until(lambda: bool(owner.heard))


def test_when_all_places_are_taken_the_next_wait_for_one(owner: Owner, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PROOF_SECONDS", 0.5)
    for number in range(MOST_GUESTS):
        owner.connect(f"127.0.1.{number % 4 + 1}")
    owner.until(lambda: len(owner.guests._guests) == MOST_GUESTS)
    for node in range(MOST_GUESTS):
        owner.dial(node, f"127.0.2.{node + 1}")
    assert owner.heard == []
    owner.until(lambda: len(owner.heard) == MOST_GUESTS and owner.refused.total() == MOST_GUESTS)


def test_a_look_is_no_refusal_but_a_line_that_breaks_off_is(owner: Owner):
    owner.connect().close()
    halfway = owner.connect("127.0.0.2")
    halfway.sendall(b"mltrain")
    halfway.shutdown(socket.SHUT_WR)
    owner.until(lambda: bool(owner.rows))
    assert owner.refused == {"127.0.0.2: broken off in the middle of a line": 1}


def test_a_row_names_a_hundred_reasons_and_counts_the_rest(owner: Owner, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ROW_SECONDS", 1.0)
    for number in range(MOST_REASONS + 20):
        owner.connect(f"127.0.3.{number + 1}").sendall(b"GET / HTTP/1.1\r\n")
    owner.until(lambda: owner.refused.total() == MOST_REASONS + 20)
    assert len(owner.rows) > 1 or owner.refused["others"] == 20
    assert all(len(row) <= MOST_REASONS + 1 for row in owner.rows)


def test_without_descriptors_it_waits_and_does_not_spin(monkeypatch: pytest.MonkeyPatch):
    class Poor(socket.socket):
        """A listener in a process that has no more descriptors, for a while."""
        failures = 0

        def accept(self) -> tuple[socket.socket, object]:
            if self.failures < 3:
                self.failures += 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    owner = Owner(lambda listener: Poor(fileno=listener.detach()))
    before, cpu = time.monotonic(), time.process_time()
    link = owner.dial(1)
    owner.until(lambda: bool(owner.heard))
    assert time.monotonic() - before >= 3 * module.PAUSE_SECONDS and time.process_time() - cpu < 0.3
    owner.guests.close()
    link.close()


def test_after_its_end_nobody_is_let_in(owner: Owner):
    guest = owner.connect()
    owner.until(lambda: bool(owner.guests._guests))
    owner.guests.close()
    assert guest.recv(100).startswith(b"mltrain") and guest.recv(100) == b""
    with pytest.raises(ConnectionRefusedError):
        owner.connect()
    owner.guests.close()                                       # twice is no harm
