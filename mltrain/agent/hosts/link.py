"""One authenticated connection between two agents of a run, in either direction.

    each side, once      mltrain-agent/1 NONCE          32 hexadecimal digits, new for each connection
    then                 MAC BODY                       64 hexadecimal digits, a JSON object with seq, attempt, kind and more

A line each. MAC is HMAC-SHA256 over direction and BODY. Its key is made from the run's secret, the run's id and both nonces, so nothing
recorded elsewhere is worth anything here, nor what one side said in the mouth of the other. `seq` counts from 0: nothing is left out,
swapped or said twice. A body is parsed only once its MAC is right; nothing is unpickled. Traffic is authentic, not secret.

`Seal` is all of that without a socket. `Link` adds the socket and the event loop:

    link = Link(loop, sock, Seal(secret, run, dialled=True), received, ended)
    link.send("join", attempt=3, node=1)       # may come before the greeting of the other side
    received(link, {"kind": "welcome", "attempt": 3, "seq": 0, ...})          ended(link, "")        the other side is gone
                                                                              ended(link, "wrong MAC")      or has been cut off
"""
from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
import secrets
import socket
from collections.abc import Callable, Iterator
from typing import Any

from mltrain.agent.loop import Loop

Message = dict[str, Any]
MOST_LINE = 1 << 20              # bytes: a welcome that lists 2,000 nodes has some 100,000
MOST_UNPROVEN_LINE = 1 << 16     # of somebody who came to us and has proven nothing: 32 of them shall not fill our memory
MOST_UNSENT = 4 * MOST_LINE      # bytes kept for a peer that does not read; then it is cut off
_GREETING = re.compile(rb"mltrain-agent/1 ([0-9a-f]{32})")
_MOST_GREETING = 64
_READ = 1 << 16
_MAC = 64


class Refused(Exception):
    """What came is not the next message of somebody who holds the secret. The text says why."""


class Seal:
    """Makes and checks the lines of one side. dialled: this side opened the connection. `feed` may be given the stream in any pieces."""

    def __init__(self, secret: bytes, run: str, *, dialled: bool) -> None:
        self._secret, self._run, self._dialled = secret, run, dialled
        self._nonce = secrets.token_hex(16).encode()
        self._key = b""
        self._sent = self._received = 0
        self._partial = bytearray()                            # a line that has no end yet

    @property
    def greeting(self) -> bytes:
        return b"mltrain-agent/1 " + self._nonce + b"\n"

    @property
    def greeted(self) -> bool:
        """The other side's nonce is here: lines can be made."""
        return bool(self._key)

    @property
    def proven(self) -> bool:
        """The other side holds the secret."""
        return self._received > 0

    @property
    def midway(self) -> bool:
        """A line has begun and not ended."""
        return bool(self._partial)

    def line(self, kind: str, attempt: int, fields: Message) -> bytes:
        """The next message. Raises ValueError if it is too long or no JSON: our own mistake."""
        body = json.dumps({**fields, "kind": kind, "attempt": attempt, "seq": self._sent}, allow_nan=False).encode()
        line = self._mac(body, by_dialler=self._dialled) + b" " + body
        if len(line) > (MOST_UNPROVEN_LINE if self._dialled and not self._sent else MOST_LINE):
            raise ValueError(f"a message {kind} of {len(line)} bytes is too long")
        self._sent += 1
        return line + b"\n"

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes; those before a bad line come before Refused."""
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._grow(end)
            line = bytes(self._partial)
            self._partial.clear()
            if self._key:
                yield self._open(line)
            else:
                self._meet(line)
        self._grow(rest)

    def _grow(self, part: bytes) -> None:
        most = _MOST_GREETING if not self._key else MOST_LINE if self.proven or self._dialled else MOST_UNPROVEN_LINE
        if len(self._partial) + len(part) > most:
            raise Refused("not an agent of this version" if not self._key else "line too long")
        self._partial += part

    def _meet(self, line: bytes) -> None:
        found = _GREETING.fullmatch(line)
        if not found:
            raise Refused("not an agent of this version")
        if found[1] == self._nonce:
            raise Refused("our own greeting sent back")
        nonces = (self._nonce, found[1]) if self._dialled else (found[1], self._nonce)
        run = self._run.encode(errors="surrogateescape")
        self._key = hmac.digest(self._secret, b" ".join((b"mltrain-agent/1", *nonces, run)), "sha256")

    def _open(self, line: bytes) -> Message:
        mac, body = line[:_MAC], line[_MAC + 1:]
        if line[_MAC:_MAC + 1] != b" " or not hmac.compare_digest(mac, self._mac(body, by_dialler=not self._dialled)):
            raise Refused("wrong MAC")
        try:
            message = json.loads(body)
            kind, attempt, number = message["kind"], message["attempt"], message["seq"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Refused("not a message") from None
        if not isinstance(kind, str) or type(attempt) is not int or type(number) is not int:
            raise Refused("not a message")
        if number != self._received:
            raise Refused("out of sequence")
        self._received += 1
        return dict(message)

    def _mac(self, body: bytes, *, by_dialler: bool) -> bytes:
        return hmac.new(self._key, (b">" if by_dialler else b"<") + body, hashlib.sha256).hexdigest().encode()


class Link:
    """Takes the socket over. received(link, message) for each message; ended(link, why) once, from the loop and never from send() or
    close(): why is "" where the other side ended it. node: for the owner, who is at the other end."""

    def __init__(self, loop: Loop, sock: socket.socket, seal: Seal, received: Callable[[Link, Message], None],
                 ended: Callable[[Link, str], None]) -> None:
        self.received, self.ended = received, ended
        self.node: int | None = None
        self.closed = False
        self._loop, self._sock, self._seal = loop, sock, seal
        self._early: list[tuple[str, int, Message]] = []       # said before the other side's greeting was here
        self._unsent = bytearray()
        self._mute, self._why = False, ""
        sock.setblocking(False)
        with contextlib.suppress(OSError):                     # no TCP: a test's socket pair
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.watch(sock.fileno(), self._read)
        self._write(seal.greeting)

    @property
    def proven(self) -> bool:
        return self._seal.proven

    def send(self, kind: str, attempt: int, **fields: Any) -> None:
        """Never waits, never raises for what the network does: a peer that does not read is cut off, and `ended` follows."""
        self._early.append((kind, attempt, fields))
        self._say()

    def close(self) -> None:
        """At once: what was not sent is not sent. `ended` is not called."""
        if not self.closed:
            self.closed = True
            self._loop.forget(self._sock.fileno())
            self._sock.close()

    def _say(self) -> None:
        while self._seal.greeted and self._early:
            self._write(self._seal.line(*self._early.pop(0)))

    def _write(self, data: bytes) -> None:
        if self._mute or self.closed:
            return
        if len(self._unsent) + len(data) > MOST_UNSENT:
            self._why = "does not read"
            self._hang_up()
            return
        idle = not self._unsent
        self._unsent += data
        if idle:
            self._flush()

    def _flush(self) -> None:
        try:
            del self._unsent[:self._sock.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:                                        # gone: what it said before is read to the end
            self._hang_up()
        if self._unsent:
            self._loop.when_writable(self._sock.fileno(), self._flush)

    def _hang_up(self) -> None:
        """The end comes as an event, like the other side's own: the owner may be in the middle of anything now."""
        self._mute = True
        self._unsent.clear()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            return self._end(self._why or "broken off in the middle of a line" * self._seal.midway)
        try:
            for message in self._seal.feed(data):
                self.received(self, message)
                if self.closed:
                    return
        except Refused as error:
            return self._end(str(error))
        self._say()

    def _end(self, why: str) -> None:
        self.close()
        self.ended(self, why)
