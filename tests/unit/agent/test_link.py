from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrain.agent.hosts import link as module
from mltrain.agent.hosts.link import MOST_LINE, MOST_UNPROVEN_LINE, MOST_UNSENT, Link, Message, Refused, Seal
from mltrain.agent.loop import Loop

SECRET = b"s" * 32
JSON = st.recursive(st.none() | st.booleans() | st.integers(-10**9, 10**9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6)
FIELDS = st.dictionaries(st.text().filter(lambda name: name not in ("kind", "attempt", "seq")), JSON, max_size=3)
SAID = st.lists(st.tuples(st.text(max_size=8), st.integers(-1, 10**6), FIELDS), min_size=1, max_size=5)


def pair(secret: bytes = SECRET, run: str = "run") -> tuple[Seal, Seal]:
    """Two that have greeted each other: (dialler, listener)."""
    dialler, listener = Seal(SECRET, "run", dialled=True), Seal(secret, run, dialled=False)
    assert [*dialler.feed(listener.greeting), *listener.feed(dialler.greeting)] == []
    return dialler, listener


def hear(seal: Seal, stream: bytes, cuts: list[int] | None = None) -> tuple[list[Message], str]:
    """What a stream brings, given in pieces, and why it was refused ("": it was not)."""
    heard: list[Message] = []
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts or []), len(stream)]
    try:
        for start, stop in zip(places, places[1:], strict=False):
            for message in seal.feed(stream[start:stop]):
                heard.append(message)
    except Refused as error:
        return heard, str(error)
    return heard, ""


def messages(said: list[tuple[str, int, Message]]) -> list[Message]:
    return [{**fields, "kind": kind, "attempt": attempt, "seq": number} for number, (kind, attempt, fields) in enumerate(said)]


@given(SAID, st.lists(st.integers(0, 10**6), max_size=8))
def test_what_is_said_is_heard_however_the_stream_is_cut(said, cuts):
    dialler, listener = pair()
    stream = b"".join(dialler.line(*one) for one in said)
    assert hear(listener, stream, cuts) == (messages(said), "")


@settings(max_examples=300)
@given(SAID, st.data())
def test_a_stream_that_was_tampered_with_brings_nothing_else(said, data):
    """Flipped, cut out, put in, said twice, swapped: what is heard is the beginning of what was said, up to the place."""
    dialler, listener = Seal(SECRET, "run", dialled=True), Seal(SECRET, "run", dialled=False)
    assert [*dialler.feed(listener.greeting)] == []
    lines = [dialler.greeting, *(dialler.line(*one) for one in said)]
    stream = b"".join(lines)
    how = data.draw(st.sampled_from(["replace", "swap", "twice", "leave out"]))
    if how == "replace":
        start = data.draw(st.integers(0, len(stream)))
        stop = data.draw(st.integers(start, min(len(stream), start + 40)))
        changed = stream[:start] + data.draw(st.binary(max_size=40)) + stream[stop:]
    else:
        place = data.draw(st.integers(0, len(lines) - 1))
        other = {"swap": lines[:place] + lines[place + 1:place + 2] + [lines[place]] + lines[place + 2:],
                 "twice": lines[:place + 1] + lines[place:], "leave out": lines[:place] + lines[place + 1:]}
        changed = b"".join(other[how])
    heard, why = hear(listener, changed, data.draw(st.lists(st.integers(0, 10**6), max_size=4)))
    assert heard == messages(said)[:len(heard)]
    same = next((place for place, (a, b) in enumerate(zip(stream, changed, strict=False)) if a != b), min(len(stream), len(changed)))
    assert len(heard) <= stream[:same + 1].count(b"\n")
    if not stream.startswith(changed) and b"\n" in changed[same:]:
        assert why


@given(st.binary(max_size=300), st.booleans())
def test_garbage_is_refused_and_never_heard(garbage, greeted):
    dialler, listener = pair()
    seal = listener if greeted else Seal(SECRET, "run", dialled=False)
    heard, why = hear(seal, garbage + b"\n")
    assert heard == [] and why


def test_a_recorded_stream_is_worth_nothing_on_another_connection():
    dialler, listener = pair()
    stream = dialler.line("join", 1, {"node": 2})
    assert hear(listener, stream)[1] == ""
    again = Seal(SECRET, "run", dialled=False)
    assert hear(again, dialler.greeting + stream) == ([], "wrong MAC")


def test_what_one_side_said_cannot_be_said_back_to_it():
    dialler, _ = pair()
    assert hear(dialler, dialler.line("stop", 1, {})) == ([], "wrong MAC")
    alone = Seal(SECRET, "run", dialled=False)
    assert hear(alone, alone.greeting) == ([], "our own greeting sent back")


@pytest.mark.parametrize("other", [{"secret": b"x" * 32}, {"run": "another"}])
def test_another_secret_or_run_is_refused(other):
    dialler, listener = pair(**other)
    assert hear(listener, dialler.line("join", 1, {"node": 2})) == ([], "wrong MAC")
    assert not listener.proven


def test_what_was_said_twice_or_left_out_is_out_of_sequence():
    dialler, listener = pair()
    first, second, third = (dialler.line("beat", 1, {"sent": n}) for n in range(3))
    heard, why = hear(listener, first + third)
    assert [message["sent"] for message in heard] == [0] and why == "out of sequence"


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"kind":' * 20_000, b"1" * 10_000, b"[]", b"{}", b"\xff",
                                  b'{"kind": 1, "attempt": 1, "seq": 0}',
                                  b'{"kind": "join", "attempt": true, "seq": 0}', b'{"kind": "join", "attempt": 1, "seq": 0.0}'],
                         ids=lambda body: body[:20].decode(errors="replace"))
def test_a_body_that_is_no_message_is_refused_even_from_one_of_us(body):
    dialler, listener = pair()
    heard, _ = hear(listener, dialler.line("join", 1, {}))
    line = dialler._mac(body, by_dialler=True) + b" " + body + b"\n"
    assert len(heard) == 1 and hear(listener, line) == ([], "not a message")


def test_nothing_is_parsed_before_it_is_proven(monkeypatch):
    def parse(text: bytes) -> None:
        raise AssertionError("parsed")
    _, listener = pair()
    monkeypatch.setattr(module.json, "loads", parse)
    assert hear(listener, b"0" * 64 + b" " + b"[" * 1000 + b"\n") == ([], "wrong MAC")


def test_a_line_without_an_end_is_refused_at_its_limit():
    dialler, listener = pair()
    assert hear(Seal(SECRET, "run", dialled=False), b"m" * 65) == ([], "not an agent of this version")
    assert hear(listener, b"0" * (MOST_UNPROVEN_LINE + 1)) == ([], "line too long")
    dialler, listener = pair()
    hear(listener, dialler.line("join", 1, {}))
    assert hear(listener, b"0" * MOST_LINE)[1] == "" and hear(listener, b"00") == ([], "line too long")


def test_a_message_that_the_other_side_would_refuse_is_not_made():
    dialler, listener = pair()
    with pytest.raises(ValueError, match="a message join of .* bytes is too long"):
        dialler.line("join", 1, {"much": "x" * MOST_UNPROVEN_LINE})
    with pytest.raises(ValueError, match="a message welcome"):
        listener.line("welcome", 1, {"much": "x" * MOST_LINE})
    with pytest.raises(ValueError):
        listener.line("welcome", 1, {"not": float("nan")})
    assert hear(dialler, listener.line("welcome", 1, {"much": "x" * (MOST_LINE - 200)}))[1] == ""


# ── over sockets ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────
class Side:
    """A link that notes what happens to it."""

    def __init__(self, loop: Loop, sock: socket.socket, *, dialled: bool) -> None:
        self.heard: list[Message] = []
        self.end: str | None = None
        self.link = Link(loop, sock, Seal(SECRET, "run", dialled=dialled), lambda _, message: self.heard.append(message), self._ended)

    def _ended(self, link: Link, why: str) -> None:
        assert self.end is None and link.closed
        self.end = why


def until(loop: Loop, done: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    loop.after(60, lambda: None)
    loop.run(lambda: done() or time.monotonic() > limit)
    assert done()


def tcp() -> tuple[socket.socket, socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return socket.create_connection(listener.getsockname()), listener.accept()[0]


def test_two_agents_talk():
    loop, (one, other) = Loop(), tcp()
    dialler, listener = Side(loop, one, dialled=True), Side(loop, other, dialled=False)
    dialler.link.send("join", 0, node=3)                       # before it has read the greeting
    until(loop, lambda: bool(listener.heard))
    assert listener.heard == [{"node": 3, "kind": "join", "attempt": 0, "seq": 0}]
    assert listener.link.proven and not dialler.link.proven
    welcome = {"nodes": [f"node-{n:04}.some.cluster.example.org:29500" for n in range(2000)]}
    listener.link.send("welcome", 0, **welcome)
    until(loop, lambda: bool(dialler.heard))
    assert dialler.heard[0]["nodes"] == welcome["nodes"] and dialler.link.proven
    dialler.link.close()
    until(loop, lambda: listener.end is not None)
    assert (listener.end, dialler.end) == ("", None)


def test_a_peer_that_does_not_read_is_cut_off_and_keeps_no_memory():
    loop, (one, other) = Loop(), tcp()
    with closing(other):
        side = Side(loop, one, dialled=True)
        other.sendall(Seal(SECRET, "run", dialled=False).greeting)
        until(loop, lambda: side.link._seal.greeted)
        for _ in range(4 * MOST_UNSENT // 60_000):
            side.link.send("beat", 1, much="x" * 60_000)
        assert side.end is None                                # never from send
        until(loop, lambda: side.end is not None)
        assert side.end == "does not read" and not side.link._unsent


def test_a_slow_reader_gets_all():
    loop, (one, other) = Loop(), tcp()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    dialler, listener = Side(loop, one, dialled=True), Side(loop, other, dialled=False)
    until(loop, lambda: dialler.link._seal.greeted)
    for n in range(20):
        dialler.link.send("beat", 1, sent=n, much="x" * 50_000)
    assert dialler.link._unsent
    until(loop, lambda: len(listener.heard) == 20)
    assert [message["sent"] for message in listener.heard] == [*range(20)]


def test_last_words_are_heard_though_nobody_hears_ours():
    loop, (one, other) = Loop(), tcp()
    dialler, listener = Side(loop, one, dialled=True), Side(loop, other, dialled=False)
    until(loop, lambda: dialler.link._seal.greeted and listener.link._seal.greeted)
    dialler.link.send("failed", 1)
    dialler.link.close()                                       # with our words unread there: a reset, not an end
    listener.link.send("stop", 1)
    listener.link.send("stop", 1)
    until(loop, lambda: listener.end is not None)
    assert [message["kind"] for message in listener.heard] == ["failed"] and listener.end == ""


def test_who_is_refused_is_closed_and_told_nothing():
    loop, (one, other) = Loop(), tcp()
    with closing(other):
        side = Side(loop, one, dialled=False)
        other.sendall(b"GET / HTTP/1.1\r\n\r\n")
        until(loop, lambda: side.end is not None)
        assert side.end == "not an agent of this version"
        other.settimeout(60)
        assert re.fullmatch(rb"mltrain-agent/1 [0-9a-f]{32}\n", other.recv(1000))
        assert other.recv(1000) == b""


def test_an_end_in_the_middle_of_a_line_is_said():
    loop, (one, other) = Loop(), tcp()
    with closing(other):
        side = Side(loop, one, dialled=False)
        other.sendall(b"mltrain-ag")
        other.shutdown(socket.SHUT_WR)
        until(loop, lambda: side.end is not None)
        assert side.end == "broken off in the middle of a line"


def test_closing_while_messages_come_stops_them():
    loop, (one, other) = Loop(), tcp()
    with closing(one):
        heard: list[Message] = []

        def received(link: Link, message: Message) -> None:
            heard.append(message)
            link.close()

        link = Link(loop, other, Seal(SECRET, "run", dialled=False), received, lambda *_: heard.append({}))
        dialler = Seal(SECRET, "run", dialled=True)
        one.settimeout(60)
        assert [*dialler.feed(one.recv(100))] == []
        one.sendall(dialler.greeting + b"".join(dialler.line("beat", 1, {}) for _ in range(3)))
        until(loop, lambda: link.closed)
        assert [message["kind"] for message in heard] == ["beat"]
