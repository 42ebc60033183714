"""One event loop: descriptors (pidfds, sockets, pipes), signals, timers. Nothing polls."""
from __future__ import annotations

import heapq
import itertools
import selectors
import signal
import socket
import time
from collections.abc import Callable

Action = Callable[[], None]


class Loop:
    """watch() a descriptor, when_writable(), after() some seconds, on_signals(): each calls back from run(), which returns when `done`
    says so."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Action]] = []
        self._count = itertools.count()
        self.first: Action = lambda: None                      # before the events of each turn: they may be old, if we were stopped

    def watch(self, fd: int, action: Action) -> None:
        self._selector.register(fd, selectors.EVENT_READ, (action, None))

    def when_writable(self, fd: int, action: Action) -> None:
        """Once, when a descriptor that is watched can be written to."""
        self._selector.modify(fd, selectors.EVENT_READ | selectors.EVENT_WRITE, (self._selector.get_key(fd).data[0], action))

    def forget(self, fd: int) -> None:
        """Must come before the descriptor is closed: its number may be another file's the next moment."""
        self._selector.unregister(fd)

    def after(self, seconds: float, action: Action) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), action))

    def on_signals(self, numbers: set[signal.Signals], action: Callable[[signal.Signals], None]) -> None:
        """Signals arrive as bytes on a socket, between two events: never in the middle of one."""
        wake, write = socket.socketpair()
        wake.setblocking(False)
        write.setblocking(False)
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)
        self._sockets = wake, write                            # keeps both open

        def drain() -> None:
            for number in wake.recv(64):
                if number in numbers:
                    action(signal.Signals(number))

        self.watch(wake.fileno(), drain)

    def run(self, done: Callable[[], bool]) -> None:
        while not done():
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            found = self._selector.select(wait)
            self.first()
            for key, events in found:
                if self._selector.get_map().get(key.fd) is key:            # not closed by an earlier one of these
                    self._happened(key, events)
            while self._timers and self._timers[0][0] <= time.monotonic() and not done():
                heapq.heappop(self._timers)[2]()

    def _happened(self, key: selectors.SelectorKey, events: int) -> None:
        read, write = key.data
        if write and events & selectors.EVENT_WRITE:           # what else there is to read comes in the next turn
            self._selector.modify(key.fd, selectors.EVENT_READ, (read, None))
            write()
        else:
            read()
