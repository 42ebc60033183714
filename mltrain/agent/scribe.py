"""A thread that writes to the run directory and reads there for the event loop: storage that does not answer for a while must not keep
the agent from answering the other nodes, which would kill their workers, or from restarting a failed attempt."""
from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from mltrain.agent.loop import Loop

T = TypeVar("T")


class Scribe:
    """Does jobs in their order. loop: where answers are given, and what a job raises is raised: a thread that died of it would leave all
    that waits for it waiting for ever."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._jobs: deque[Callable[[], None]] = deque()
        self._answers: deque[Callable[[], None]] = deque()
        self._some, self._busy = threading.Condition(), False
        self._thread: threading.Thread | None = None
        self._wake, self._write = socket.socketpair()
        self._write.setblocking(False)
        loop.watch(self._wake.fileno(), self._drain)

    def post(self, job: Callable[[], None]) -> None:
        """Do this later, and soon."""
        with self._some:
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="scribe", daemon=True)
                self._thread.start()
            self._some.notify_all()

    def ask(self, question: Callable[[], T], then: Callable[[T], None]) -> None:
        """then(question()) in the loop, question() in the thread."""
        self.post(lambda: self._tell(partial(then, question())))

    def settle(self, seconds: float | None = None) -> bool:
        """Wait until all is done. False if it is not after so many seconds."""
        with self._some:
            return self._some.wait_for(lambda: not self._jobs and not self._busy, seconds)

    def _work(self) -> None:
        while True:
            with self._some:
                self._some.wait_for(lambda: bool(self._jobs))
                job, self._busy = self._jobs.popleft(), True
            try:
                job()
            except Exception as error:                         # noqa: BLE001 whatever it is, the loop must hear of it
                self._tell(partial(_raise, error))
            finally:
                with self._some:
                    self._busy = False
                    self._some.notify_all()

    def _tell(self, answer: Callable[[], None]) -> None:
        self._answers.append(answer)
        try:
            self._write.send(b"s")
        except BlockingIOError:                                # the loop has enough to wake up by
            pass

    def _drain(self) -> None:
        self._wake.recv(4096)
        while self._answers:
            self._answers.popleft()()


def _raise(error: Exception) -> None:
    raise error
