"""Several hosts on one machine, for tests: network namespaces with addresses of their own on one bridge. Their agents are real, and can be
cut off, stopped, or lose their power. Needs root and iproute2 (`possible()`)."""
from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import slow_wire

from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file
from mltrain.runs.outcome import last_status, pid_lives
from mltrain.testing.faults import wait_for

PORT = 29400


def possible() -> str:
    """Why there can be no hosts here; "" if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip"):
        return "ip (Debian: iproute2) is not installed"
    name = f"t{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Host:
    """One host: its name (also of its namespace), its address, the agent that runs there."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self.agent: subprocess.Popen[bytes] | None = None

    def start(self, run: Path, *words: str, cwd: Path, environment: dict[str, str] | None = None) -> None:
        """An agent for that run directory; words: options, and the command after --."""
        agent = [sys.executable, "-m", "mltrain", "agent", "--node-name", self.name, "--run-dir", str(run)]
        with open(run.parent / f"{run.name}.{self.name}.out", "ab") as out:
            self.agent = subprocess.Popen(["ip", "netns", "exec", self.name, *agent, *words], cwd=cwd, stdout=out, stderr=out,
                                          stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}, start_new_session=True)

    def pids(self) -> list[int]:
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True).stdout
        return [int(pid) for pid in found.split()]

    def signal_all(self, number: int) -> None:
        """To every process there."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill_agent(self) -> None:
        assert self.agent is not None
        self.agent.kill()
        self.agent.wait(10)

    def link(self, state: str) -> None:
        """up, down: down is a cut cable, of which nobody is told."""
        _ip("-n", self.name, "link", "set", "eth0", state)

    def lose_power(self) -> None:
        """Nobody hears a word: no connection is closed."""
        self.link("down")
        self.signal_all(signal.SIGKILL)
        assert self.agent is not None
        self.agent.wait(10)


def _slow_wire(host: Host, delay: float) -> subprocess.Popen[bytes]:
    """From the bridge to the host, in place of a veth."""
    cards = [slow_wire.card(f"v{host.name}"), slow_wire.card(f"e{host.name}")]
    _ip("link", "set", f"e{host.name}", "netns", host.name, "name", "eth0")
    try:
        return subprocess.Popen([sys.executable, slow_wire.__file__, *map(str, cards), str(delay)], pass_fds=cards)
    finally:
        for fd in cards:
            os.close(fd)


@contextmanager
def hosts(count: int, delay: float = 0.0) -> Iterator[list[Host]]:
    """So many, up and connected; at the end all their processes are gone. delay: of every packet on its way to or from a host, seconds."""
    tag = secrets.token_hex(2)
    bridge, net = f"mltbr{tag}", f"10.{100 + secrets.randbelow(100)}.{secrets.randbelow(250)}"
    made = [Host(f"h{tag}{number}", f"{net}.{number}") for number in range(1, count + 1)]
    wires: list[subprocess.Popen[bytes]] = []
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{net}.254/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for host in made:
            _ip("netns", "add", host.name)
            if delay:
                wires.append(_slow_wire(host, delay))
            else:
                _ip("link", "add", f"v{host.name}", "type", "veth", "peer", "name", "eth0", "netns", host.name)
            _ip("link", "set", f"v{host.name}", "master", bridge, "up")
            _ip("-n", host.name, "link", "set", "lo", "up")
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.name, "link", "set", "eth0", "up")
        yield made
    finally:
        for host in made:
            with contextlib.suppress(subprocess.CalledProcessError):
                host.signal_all(signal.SIGKILL)
            if host.agent:
                host.agent.wait(10)
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True)
        for wire in wires:
            wire.kill()
            wire.wait(10)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)


def events(run: Path, name: str) -> list[ledger.Row]:
    return [row for row in ledger.read(ledger_file(run)) if row["event"] == name]


def nodes(run: Path) -> list[str]:
    """Of the newest attempt, in the order of their ranks."""
    started = events(run, "attempt started")
    return list(started[-1]["nodes"]) if started else []


def await_attempt(run: Path, attempt: int, limit: float = 90.0) -> list[str]:
    """Until that attempt trains, with all its ranks. Returns its nodes."""
    def trains() -> bool:
        status = last_status(run)
        ranks = status.get("ranks", [])
        begun = any(row["attempt"] == attempt for row in events(run, "training"))
        return begun and status["attempts"] == attempt and all(
            rank["step"] > 0 and rank["phase"] not in ("none", "load") and pid_lives(rank["pid"]) for rank in ranks) and len(ranks) > 0

    wait_for(trains, limit, f"attempt {attempt}")
    return nodes(run)
