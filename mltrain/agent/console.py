"""Relays workers' output to the terminal from a thread of its own: a terminal that is paused, or a pipe that nobody reads, must not stop
the agent from watching its workers. What does not fit into the queue is dropped from the terminal, never from the logs."""
from __future__ import annotations

import os
import queue
import threading

_CHUNKS = 2000           # of up to 64 KiB: more than any terminal is behind
_LAST_SECONDS = 2.0      # how long the end waits for a slow terminal


class Console:
    """write() never waits. Chunks of one writer stay in order; with a prefix they are cut into whole lines first (by `Lines`)."""

    def __init__(self, fd: int = 1) -> None:
        self._fd, self._dropped = fd, 0
        self._queue: queue.Queue[bytes | None] = queue.Queue(_CHUNKS)
        self._thread: threading.Thread | None = None

    def write(self, data: bytes) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._relay, name="console", daemon=True)
            self._thread.start()
        try:
            if self._dropped:
                self._queue.put_nowait(self._told())
                self._dropped = 0
            self._queue.put_nowait(data)
        except queue.Full:
            self._dropped += len(data)

    def _told(self) -> bytes:
        return f"\n[{self._dropped} bytes were not shown here: this terminal is too slow]\n".encode()

    def close(self) -> None:
        """Wait for what is on its way, but not for ever."""
        if self._thread is not None:
            try:
                if self._dropped:
                    self._queue.put(self._told(), timeout=_LAST_SECONDS)
                self._queue.put(None, timeout=_LAST_SECONDS)
            except queue.Full:
                return
            self._thread.join(_LAST_SECONDS)

    def _relay(self) -> None:
        while (data := self._queue.get()) is not None:
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(self._fd, view):]
            except OSError:                                    # the reader has gone: `mltrain launch ... | head`
                self._fd = os.open(os.devnull, os.O_WRONLY)


class Lines:
    """Cuts a stream into whole lines and puts a prefix before each, so that several ranks can share one terminal."""

    def __init__(self, prefix: str) -> None:
        self._prefix, self._rest = prefix.encode(), b""

    def feed(self, data: bytes) -> bytes:
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if len(self._rest) > 1 << 16:                          # a progress bar that never ends its line
            whole, newline, self._rest = whole + newline + self._rest, b"\n", b""
        return b"".join(self._prefix + line + b"\n" for line in whole.split(b"\n")) if newline else b""

    def end(self) -> bytes:
        rest, self._rest = self._rest, b""
        return self._prefix + rest + b"\n" if rest else b""
