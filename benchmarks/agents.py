"""How many nodes can one controller serve? Real sockets, the real protocol, a real `mltrain agent` as controller; only the other nodes have
no workers: each answers orders at once, as an agent would whose workers come and go in no time. Seconds, messages, bytes, and the
controller's processor time.

usage: python benchmarks/agents.py [--nodes 200,2000]
"""
from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import machine

from mltrain.agent.hosts.link import Link, Message, Seal
from mltrain.agent.loop import Loop
from mltrain.trust.run_secret import make_secret, read_secret

BEAT_SECONDS, TICK_SECONDS = 0.5, 1.0                          # as agents have them
STEADY_SECONDS = 5.0
LIMIT_SECONDS = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Counted(Seal):
    """Counts lines and bytes of all its kind."""

    messages = bytes = 0

    def line(self, kind: str, attempt: int, fields: Message) -> bytes:
        line = super().line(kind, attempt, fields)
        Counted.messages, Counted.bytes = Counted.messages + 1, Counted.bytes + len(line)
        return line

    def feed(self, data: bytes) -> Iterator[Message]:
        Counted.bytes += len(data)
        for message in super().feed(data):
            Counted.messages += 1
            yield message


class Peer:
    """One node, at an address of its own."""

    def __init__(self, swarm: Swarm, number: int) -> None:
        self._swarm, self._address = swarm, f"127.{64 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"
        self.id = f"{self._address}:29400"
        self.attempt, self.stopped, self.welcome, self.code = 0, 0, False, None
        self._heard = 0.0

    def dial(self) -> None:
        swarm, token = self._swarm, secrets.token_hex(16)
        (swarm.run / "nodes" / f"here-{self.id}").write_text(json.dumps(token))
        sock = socket.create_connection(("127.0.0.1", swarm.port), 30, (self._address, 0))
        self.link = Link(swarm.loop, sock, Counted(swarm.secret, swarm.run.name, dialled=True), self._received, self._ended)
        self.link.send("join", 0, id=self.id, name=self._address, workers=1, ready=True, token=token)

    def _received(self, link: Link, message: Message) -> None:
        kind = message["kind"]
        if kind == "welcome":
            self.welcome = True
        elif kind == "ack":
            self._heard = message["at"]
        elif kind == "start":
            self.attempt, self._rank = message["attempt"], message["first"]
            self.beat()
        elif kind in ("stop", "leave") and message["attempt"] == self.attempt:
            self.stopped = self.attempt
            link.send("stopped", self.attempt, ends=[], codes=[], trained=0, step=1, early=False, silent=["", 0.0], **self._pulse())
        elif kind == "finish":
            self.code = message["code"]

    def _ended(self, link: Link, why: str) -> None:
        """Given up by a controller that was too busy to hear us: as an agent does, come again."""
        self.welcome, self.stopped = False, self.attempt
        self._swarm.came_again += 1
        self._swarm.loop.after(0.5, self.dial)

    def alive(self) -> None:
        if not self.link.closed and self.welcome:
            self.link.send("alive", self.attempt, sent=time.monotonic(), heard=self._heard)

    def beat(self) -> None:
        if not self.link.closed and self.attempt > self.stopped:
            self.link.send("beat", self.attempt, **self._pulse())

    def _pulse(self) -> Message:
        row = {"rank": self._rank, "host": self._address, "pid": 4242, "phase": "compute", "step": 1}
        return {"ranks": [row], "begun": [0, 1.0], "parts": {}}


class Swarm:
    """All nodes but the controller's."""

    def __init__(self, run: Path, port: int, count: int) -> None:
        self.loop, self.run, self.port, self.secret = Loop(), run, port, read_secret(run / "nodes" / "secret")
        self.came_again = 0
        self.peers = [Peer(self, number) for number in range(count)]
        self._spread(BEAT_SECONDS, Peer.alive)
        self._spread(TICK_SECONDS, Peer.beat)

    def _spread(self, seconds: float, what: Callable[[Peer], None], part: int = 0, parts: int = 50) -> None:
        """Each peer once in so many seconds, not all at the same moment."""
        for peer in self.peers[part::parts]:
            if hasattr(peer, "link"):
                what(peer)
        self.loop.after(seconds / parts, lambda: self._spread(seconds, what, (part + 1) % parts, parts))

    def until(self, done: Callable[[], bool], what: str) -> float:
        """Seconds."""
        began = time.monotonic()
        self.loop.run(lambda: done() or time.monotonic() - began > LIMIT_SECONDS)
        if not done():
            raise TimeoutError(f"{what}: not within {LIMIT_SECONDS:.0f} s; {sum(peer.welcome for peer in self.peers)} are welcome")
        return time.monotonic() - began

    def join(self, peers: list[Peer]) -> None:
        for place in range(0, len(peers), 100):                # the kernel's queue of new connections has its limit
            for peer in peers[place:place + 100]:
                peer.dial()
            self.until(lambda place=place: all(peer.welcome for peer in peers[:place + 1]), "joining")


@dataclass(frozen=True)
class Phase:
    seconds: float
    messages: int
    bytes: int
    cpu: float                                                 # the controller's, seconds

    def row(self, name: str) -> str:
        return f"| {name} | {self.seconds:.2f} | {self.messages:,} | {self.bytes / 1e6:.2f} | {self.cpu:.2f} |"


def measure(agent: int, work: Callable[[], Any]) -> Phase:
    began, messages, size, cpu = time.monotonic(), Counted.messages, Counted.bytes, processor_time(agent)
    work()
    return Phase(time.monotonic() - began, Counted.messages - messages, Counted.bytes - size, processor_time(agent) - cpu)


def processor_time(pid: int) -> float:
    """Seconds, of the process alone."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def controller(run: Path, nodes: int) -> Iterator[tuple[int, int]]:
    """(pid, port) of an agent that waits for the others of so many nodes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (run / "nodes").mkdir(parents=True)
    make_secret(run / "nodes" / "secret")
    command = [sys.executable, "-m", "mltrain", "agent", "--nodes", str(nodes), "--rendezvous", f"127.0.0.1:{port}", "--run-dir", str(run),
               "--address", "127.0.0.1", "--", "sleep", "1000"]
    with open(run.parent / "agent.log", "w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            began = time.monotonic()
            while True:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None or time.monotonic() - began > LIMIT_SECONDS:
                    raise RuntimeError((run.parent / "agent.log").read_text())
                time.sleep(0.05)
            yield process.pid, port
        finally:
            process.kill()


def simulate(nodes: int, folder: Path, steady: float = STEADY_SECONDS) -> tuple[dict[str, Phase], int]:
    """One controller, so many nodes in an attempt and one spare: (phases by name, how many nodes were given up that had not died)."""
    run, phases = folder / "run", {}
    with controller(run, nodes) as (agent, port):
        swarm = Swarm(run, port, nodes)                        # the controller's own node is one of the attempt's: so one is a spare
        members, spare = swarm.peers[:-1], swarm.peers[-1]

        def began(attempt: int, peers: list[Peer]) -> bool:
            return all(peer.attempt >= attempt for peer in peers)

        def all_join() -> None:
            swarm.join(members)
            swarm.until(lambda: began(1, members), "the first attempt")

        def one_dies() -> None:
            members[0].link.close()
            swarm.until(lambda: began(2, [*members[1:], spare]), "the next attempt")

        phases["all join, and the first attempt begins everywhere"] = measure(agent, all_join)
        swarm.join([spare])
        rest = time.monotonic() + steady
        swarm.loop.after(steady, lambda: None)
        phases[f"{steady:.0f} s of peace"] = measure(agent, lambda: swarm.until(lambda: time.monotonic() >= rest, "peace"))
        phases["a node dies: all stop, the next attempt begins everywhere"] = measure(agent, one_dies)
    return phases, swarm.came_again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="200,2000")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("## How many nodes can one controller serve?\n")
    for nodes in map(int, parser.parse_args().nodes.split(",")):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            print(f"| {nodes:,} nodes | seconds | messages | MB | controller's processor time, s |\n| --- | --- | --- | --- | --- |")
            phases, came_again = simulate(nodes, Path(folder))
            for name, phase in phases.items():
                print(phase.row(name))
            print(f"\n{came_again} were given up without a reason, and came again.\n" if came_again else "", flush=True)
    print(machine())


if __name__ == "__main__":
    main()
