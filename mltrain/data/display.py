"""Shows how far a prepare or verify is, on stderr, once it takes longer than two seconds: a bar on a terminal, else a line now and then."""
from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from mltrain.data.prepare import State

_QUIET_SECONDS, _LINE_SECONDS = 2.0, 5.0


class Display:
    """A `Report` and a context manager. what: names the work."""

    def __init__(self, what: str) -> None:
        self.what, self.began, self._last_line = what, time.monotonic(), 0.0
        self._bar: Progress | None = None

    def __call__(self, state: State) -> None:
        now = time.monotonic()
        if now - self.began < _QUIET_SECONDS:
            return
        if sys.stderr.isatty():
            self._show_bar(state)
        elif now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            share = state.bytes_done / max(state.bytes_total, 1)
            rate = state.bytes_done / (now - self.began)
            left = (state.bytes_total - state.bytes_done) / max(rate, 1)
            counts = f", {state.documents:,} documents, {state.tokens:,} tokens" if state.documents else ""
            print(f"mltrain: {self.what}: {share:.0%} of {state.bytes_total / 1e6:,.0f} MB{counts}, "
                  f"{rate / 1e6:.0f} MB/s, {left:.0f} s left", file=sys.stderr, flush=True)

    def _show_bar(self, state: State) -> None:
        if self._bar is None:
            self._bar = Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
                                 console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task(self.what, total=state.bytes_total)
        self._bar.update(self._bar.task_ids[0], completed=state.bytes_done)

    def __enter__(self) -> Display:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
