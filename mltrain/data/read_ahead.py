"""An iterator read by a thread, some items ahead. The thread ends when the reader stops, fails, is collected, or the process ends."""
from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")
_POLL_SECONDS = 0.1           # how long a full queue keeps the thread from noticing that nobody reads any more


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class ReadAhead(Iterator[T]):
    """items: read in a thread, up to `depth` items that nobody has taken yet (and one in the making). Exceptions come out where the item
    would have."""

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._items: queue.Queue[T | _Failure] = queue.Queue(depth)
        stop = threading.Event()
        # Daemon, so that a read that hangs in a file system cannot keep the process alive; ended by `close`, which also runs at exit.
        self._thread = threading.Thread(target=_read, args=(items, self._items, stop), name="mltrain-read-ahead", daemon=True)
        self._thread.start()
        self.close = weakref.finalize(self, _end, stop, self._thread)

    def __next__(self) -> T:
        if not self.close.alive:
            raise StopIteration
        item = self._items.get()
        if isinstance(item, _Failure):
            self.close()
            raise item.error
        return item


def _read(items: Iterator[T], to: queue.Queue[T | _Failure], stop: threading.Event) -> None:
    try:
        for item in items:
            if not _put(item, to, stop):
                return
        _put(_Failure(StopIteration()), to, stop)
    except BaseException as error:  # noqa: BLE001 whatever it is, it belongs to the reader, in its thread
        _put(_Failure(error), to, stop)


def _put(item: T | _Failure, to: queue.Queue[T | _Failure], stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            to.put(item, timeout=_POLL_SECONDS)
            return True
        except queue.Full:
            continue
    return False


def _end(stop: threading.Event, thread: threading.Thread) -> None:
    stop.set()
    thread.join(5)
