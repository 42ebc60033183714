"""Several programs in one measurement, one at a time: each makes a slice of its steps when it is its turn and waits else. Whatever slows
the machine down for a while slows all of them: a few per cent are found where runs one after the other differ by half.

The program calls `Turns.next(seconds)` between two slices; whoever measures calls `measure`. They meet at a socket (BENCH_TURNS).
"""
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS, SLICE_SECONDS = 180.0, 120.0


class Turns:
    """In the program. Without BENCH_TURNS it never waits."""

    def __init__(self) -> None:
        self._path = os.environ.get("BENCH_TURNS", "")
        self._socket: socket.socket | None = None

    def next(self, seconds: float = 0.0) -> None:
        """Says what the last slice took, and waits for the next turn. Does not return after the last one."""
        if not self._path:
            return
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(self._path)
        with contextlib.suppress(OSError):
            self._socket.sendall(f"{seconds!r}\n".encode())
            if self._socket.recv(1):
                return
        os._exit(0)


@dataclass
class Player:
    """A program, and the seconds that its slices took. It runs in a folder of its own (BENCH_FOLDER)."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def __enter__(self) -> Player:
        self._folder = tempfile.mkdtemp(prefix="bench-")
        path = str(Path(self._folder, "turns"))
        with socket.socket(socket.AF_UNIX) as listener, open(Path(self._folder, "out"), "wb") as out:
            listener.bind(path)
            listener.listen()
            environment = {**os.environ, **self.environment, "BENCH_TURNS": path, "BENCH_FOLDER": self._folder}
            self._process = subprocess.Popen(self.command, env=environment, cwd=self._folder, start_new_session=True,
                                             stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            self._socket = self._meet(listener)
        return self

    def _meet(self, listener: socket.socket) -> socket.socket:
        listener.settimeout(0.5)
        for _ in range(int(START_SECONDS / 0.5)):
            with contextlib.suppress(TimeoutError):
                met, _ = listener.accept()
                met.settimeout(SLICE_SECONDS)
                met.recv(64)
                return met
            if self._process.poll() is not None:
                break
        said = self._said()
        self.__exit__()
        raise SystemExit(f"{' '.join(self.command)} came to no step:\n{said}")

    def turn(self) -> None:
        self._socket.sendall(b"g")
        said = b""
        while not said.endswith(b"\n"):
            if not (part := self._socket.recv(64)):
                raise SystemExit(f"{' '.join(self.command)} ended too early:\n{self._said()}")
            said += part
        self.seconds.append(float(said))

    def _said(self) -> str:
        return Path(self._folder, "out").read_text(errors="replace")[-3000:]

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def measure(players: dict[str, Player], turns: int, slices: int) -> None:
    """So many turns of so many slices for each, every other slice in the opposite order, after a turn that does not count.
    `seconds` has a figure a turn: of its slices together."""
    with contextlib.ExitStack() as stack:
        for player in players.values():
            stack.enter_context(player)
        for number in range((turns + 1) * slices):
            for player in [*players.values()] if number % 2 else [*reversed(players.values())]:
                player.turn()
    for player in players.values():
        made, player.seconds = player.seconds, []
        for begin in range(slices, len(made), slices):
            player.seconds.append(sum(made[begin:begin + slices]))
