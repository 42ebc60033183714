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

    def slow(self, milliseconds: int) -> None:
        """Every packet that leaves is late; 0: no more."""
        words = ["replace", "dev", "eth0", "root", "netem", "delay", f"{milliseconds}ms"]
        words = words if milliseconds else ["del", "dev", "eth0", "root"]
        subprocess.run(["ip", "netns", "exec", self.name, "tc", "qdisc", *words], check=True, capture_output=True)


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """So many, up and connected; at the end all their processes are gone."""
    tag = secrets.token_hex(2)
    bridge, net = f"mltbr{tag}", f"10.{100 + secrets.randbelow(100)}.{secrets.randbelow(250)}"
    made = [Host(f"h{tag}{number}", f"{net}.{number}") for number in range(1, count + 1)]
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{net}.254/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for host in made:
            _ip("netns", "add", host.name)
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
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)


def events(run: Path, name: str) -> list[ledger.Row]:
    return [row for row in ledger.read(ledger_file(run)) if row["event"] == name]


def training(run: Path, nodes: list[str]) -> bool:
    """Has the newest attempt these nodes, and has each of its ranks done a step in it?"""
    started = events(run, "attempt started")
    if not started or started[-1]["nodes"] != nodes and sorted(started[-1]["nodes"]) != sorted(nodes):
        return False
    ranks = last_status(run).get("ranks", [])
    trained = [row for row in events(run, "training") if row.get("attempt") == started[-1]["attempt"]]
    first = trained[0].get("first", 0) if trained else None
    return first is not None and len(ranks) == started[-1]["workers"] and all(
        rank["phase"] not in ("none", "load") and pid_lives(rank["pid"]) for rank in ranks)


def await_training(run: Path, nodes: list[str], limit: float = 60.0) -> None:
    wait_for(lambda: training(run, nodes), limit, f"training on {', '.join(nodes)}")
