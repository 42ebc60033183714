"""Somebody on the network of the nodes, without the run's secret. In a network namespace where one can be made, else at another loopback
address."""
from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import attacker
from hosts import events, hosts, possible

from mltrain.runs.outcome import last_status
from mltrain.testing.faults import wait_for

PORT = 29400
GREETING = re.compile(r"(mltrain-agent/1 [0-9a-f]{32}\n)?")
STEPS = 600              # half a minute, unless the test has seen enough

# Each rank counts in a file of its own, and goes on where it stood.
COUNTS = """
import os, time
from mltrain.runs.pulse import Pulse
pulse, rank = Pulse.from_environment(), os.environ["RANK"]
MEET
lines = open(rank).read().splitlines() if os.path.exists(rank) else []
step = AGREE(len(lines))
value = int(lines[step - 1]) if step else int(rank)
lines = lines[:step]
with open(rank, "w") as file:
    file.writelines(line + "\\n" for line in lines)
    while step < STEPS:
        pulse.beat("compute", step)
        AGREE(step)
        value, step = (value * 31 + step) % 1000003, step + 1
        print(value, file=file, flush=True)
        time.sleep(0 if os.path.exists("enough") else 0.05)
"""
ALONE = COUNTS.replace("MEET", "").replace("AGREE", "")
# The same with a process group: gloo, over torch's store.
TOGETHER = COUNTS.replace("MEET", """
import datetime
import torch, torch.distributed as dist
with open("store.part", "w") as file: file.write(os.environ["MASTER_PORT"])
os.replace("store.part", "store")
while not os.path.exists("go"): pulse.beat("load", 0); time.sleep(0.05)
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=10))
def agree(number):
    least = torch.tensor(number)
    dist.all_reduce(least, dist.ReduceOp.MIN)
    return int(least)
""").replace("AGREE", "agree")


def expected(rank: int) -> list[int]:
    """What that rank's file holds in the end, whatever happened on the way."""
    value, values = rank, []
    for step in range(STEPS):
        value = (value * 31 + step) % 1000003
        values.append(value)
    return values


class Loopback:
    """Instead of a host, where no namespaces can be made: an address."""

    def __init__(self, number: int) -> None:
        self.name, self.address, self.agent = f"node{number}", f"127.0.0.{10 + number}", None

    def start(self, run: Path, *words: str, cwd: Path) -> None:
        with open(run.parent / f"{run.name}.{self.name}.out", "ab") as out:
            command = [sys.executable, "-m", "mltrain", "agent", "--node-name", self.name, "--run-dir", str(run), *words]
            self.agent = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)


class Tap:
    """A wire that somebody listens to, and can speak into: what is dialled here goes to (host, port)."""

    def __init__(self, address: str, host: str, port: int) -> None:
        self._listener, self._to = socket.create_server((address, 0)), (host, port)
        self.port = self._listener.getsockname()[1]
        self.heard = b""                                       # of the one who dialled
        self.ends: list[socket.socket] = []                    # of the newest connection: who dialled, who was dialled
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:                                    # closed
                return
            try:
                far = socket.create_connection(self._to, 20)
            except OSError:                                    # nobody is there yet
                near.close()
                continue
            self.ends = [near, far]
            for source, target, keep in ((near, far, not self.heard), (far, near, False)):
                threading.Thread(target=self._carry, args=(source, target, keep), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, keep: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                self.heard += data if keep else b""
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        for sock in (self._listener, *self.ends):
            sock.close()


class Scene:
    """Two nodes that run a script, and the attacker."""

    def __init__(self, folder: Path, nodes: list, attackers_name: str, tap_address: str) -> None:
        self.folder, self.run, self.nodes, self._name = folder, folder / "run", nodes, attackers_name
        self.apart, self.tap_address = bool(attackers_name), tap_address

    def begin(self, script: str, *words: str, dial: str = "") -> None:
        (self.folder / "script.py").write_text(script.replace("STEPS", str(STEPS)))
        first = f"{self.nodes[0].address}:{PORT}"
        for node, where in zip(self.nodes, [first, dial or first], strict=True):
            options = ["--nodes", "2", "--rendezvous", where, "--address", node.address, *words]
            node.start(self.run, *options, "--", sys.executable, "script.py", cwd=self.folder)

    def attack(self, kind: str, *rest: object, port: int = PORT, node: int = 0) -> dict:
        inside = ["ip", "netns", "exec", self._name] if self._name else []
        command = [*inside, sys.executable, attacker.__file__, kind, self.nodes[node].address, str(port), *map(str, rest)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=self.folder, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def said(self) -> str:
        return "\n".join(file.read_text(errors="replace") for file in sorted(self.folder.glob("run.*.out")))

    def running(self, attempt: int = 1) -> None:
        """Until both ranks have made a step in that attempt, or a later one."""
        def stepped() -> bool:
            status = last_status(self.run) if self.run.is_dir() else {}
            ranks = status.get("ranks", [])
            return status.get("attempts", 0) >= attempt and len(ranks) == 2 and all(row["step"] > 0 for row in ranks)
        try:
            wait_for(stepped, 60, f"steps of attempt {attempt}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; the agents say:\n{self.said()}") from None

    def ends_right(self) -> None:
        """To the last step, with the numbers of a run that nobody disturbed."""
        (self.folder / "enough").touch()
        for node in self.nodes:
            assert node.agent.wait(120) == 0, self.said()
        for rank in (0, 1):
            assert [*map(int, (self.folder / str(rank)).read_text().split())] == expected(rank)


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        if possible():
            nodes = [Loopback(0), Loopback(1)]
            stack.callback(lambda: [node.agent.kill() for node in nodes if node.agent])
            yield Scene(folder, nodes, "", "127.0.0.1")
        else:
            *nodes, third = stack.enter_context(hosts(3))
            yield Scene(folder, nodes, third.name, re.sub(r"\d+$", "254", third.address))


def refusals(scene: Scene) -> dict[str, int]:
    """reason -> how often, without the addresses."""
    counts: dict[str, int] = {}
    for row in events(scene.run, "refused"):
        for reason, count in row["counts"].items():
            counts[reason.partition(": ")[2]] = counts.get(reason.partition(": ")[2], 0) + count
    return counts


def test_nobody_without_the_secret_is_heard_by_an_agent(tmp_path: Path):
    """Garbage, a forged join, a replay, a flood: refused, in the ledger, and the one attempt goes on to its end."""
    with scene(tmp_path) as s, closing(Tap(s.tap_address, s.nodes[0].address, PORT)) as tap:
        s.begin(ALONE, dial=f"{s.tap_address}:{tap.port}")
        s.running()
        (tmp_path / "recording").write_bytes(tap.heard)
        assert tap.heard.count(b"\n") > 1                      # a greeting, a join, what came then
        back = {**s.attack("garbage"), **s.attack("join", s.run.name), **s.attack("replay", tmp_path / "recording")}
        assert {name: text for name, text in back.items() if not GREETING.fullmatch(text)} == {}
        assert s.attack("flood", 2.0)["made"] > 100
        s.ends_right()
        counts = refusals(s)
        assert counts["wrong MAC"] >= 6 and counts["not an agent of this version"] >= 4
        assert len(events(s.run, "refused")) < 30 and len(events(s.run, "attempt started")) == 1
        assert "mallory" not in json.dumps(events(s.run, "node joined"))


def test_who_speaks_into_the_wire_is_cut_off_and_the_run_goes_on(tmp_path: Path):
    with scene(tmp_path) as s, closing(Tap(s.tap_address, s.nodes[0].address, PORT)) as tap:
        s.begin(ALONE, dial=f"{s.tap_address}:{tap.port}")
        s.running()
        tap.ends[0].sendall(b"0" * 64 + b' {"kind": "finish", "attempt": 1, "seq": 1, "code": 0}\n')     # as from the controller
        s.running(attempt=2)
        s.ends_right()


def listening(pid: int) -> dict[int, str]:
    """port -> address of all that listens in that process's network."""
    found = {}
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            address, port = fields[1].split(":")
            found[int(port, 16)] = socket.inet_ntoa(bytes.fromhex(address)[::-1])
    return found


def test_through_torchs_own_ports_no_code_runs_and_the_next_attempt_goes_on(tmp_path: Path):
    with scene(tmp_path) as s:
        s.begin(TOGETHER, "--hang-seconds", "10")
        wait_for((tmp_path / "store").exists, 120, "the first worker")
        # Before the ranks have met, what others write in the store can end the attempt.
        keys = s.attack("store", tmp_path / "pwned", port=int((tmp_path / "store").read_text()))["keys"]
        assert "mallory" in keys                               # it asks nobody: docs and SECURITY.md say so
        (tmp_path / "go").touch()
        s.running()
        for node, name in enumerate(s.nodes):
            ports = listening(name.agent.pid)
            if s.apart:                                        # agent, gloo, and the store where the controller is: on no other interface
                assert set(ports.values()) == {name.address} and len(ports) == (3 if node == 0 else 2)
            others = [port for port, address in ports.items() if address == name.address and port != PORT]
            s.attack("sockets", ",".join(map(str, others)), tmp_path / "pwned", node=node)
        s.ends_right()
        assert not (tmp_path / "pwned").exists()
