"""Looks at this machine while an attempt starts: in a thread, so that neither the event loop nor the workers wait for it."""
from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from mltrain.agent.loop import Loop
from mltrain.errors import NodeUnfit
from mltrain.health.finding import Finding
from mltrain.health.gpus import Gpus
from mltrain.health.node import look

ANSWER_SECONDS = 20.0    # a driver or file system that has not answered for so long does not


class Fitness:
    """told: what is bad or a warning, once a look, in the loop; with the attempt that it was for."""

    def __init__(self, loop: Loop, run: Path | None, workers: int, told: Callable[[int, list[Finding]], None]) -> None:
        self._loop, self._run, self._workers, self._told, self._gpus = loop, run, workers, told, Gpus()
        self._answers: queue.SimpleQueue[tuple[int, list[Finding]]] = queue.SimpleQueue()
        self._wake, self._write = socket.socketpair()
        self._asked = self._answered = 0                       # attempts
        loop.watch(self._wake.fileno(), self._drain)

    def begin(self, attempt: int) -> None:
        """One look at a time: where the last has not come back, there is nothing to add."""
        if self._asked == self._answered:
            threading.Thread(target=self._look, args=(attempt,), name="fitness", daemon=True).start()
        self._asked = attempt
        self._loop.after(ANSWER_SECONDS, lambda: self._missing(attempt))

    def _look(self, attempt: int) -> None:
        try:
            found = look(self._run, self._workers, self._gpus)
        except Exception as error:                             # noqa: BLE001 a look that fails is no reason not to train
            found = [Finding("health", "warn", f"the look at this machine failed: {type(error).__name__}: {error}")]
        self._answers.put((attempt, found))
        self._write.send(b"f")

    def _drain(self) -> None:
        self._wake.recv(64)
        while not self._answers.empty():
            _, found = self._answers.get()
            self._answered = self._asked                       # also those that were begun meanwhile
            self._told(self._asked, [each for each in found if each.state != "ok"])

    def _missing(self, attempt: int) -> None:
        if self._answered < attempt == self._asked:
            text = f"no answer within {ANSWER_SECONDS:.0f} s: a driver or a file system hangs"
            self._told(attempt, [Finding("health", "bad", text, "look into `dmesg`; mltrain doctor --node", NodeUnfit.code)])
