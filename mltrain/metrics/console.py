"""Numbers for people: a line that renews itself on a terminal, one plain line every few seconds elsewhere.

    step 120/1000  loss 2.314  12.3k tokens/s  48.2 samples/s  step 81 ms  data 0.4%  memory 412 MiB  eta 1m12s

Always a line of its own: the first step, evaluations, notes and the last step. A worker's standard output is a log file; where the launcher
sits at a terminal it names it in MLTRAIN_TERMINAL, and the live line goes there while the log gets the plain lines.
"""
from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

from mltrain.metrics.sink import Record

if TYPE_CHECKING:
    from rich.live import Live

_HEAD = {"kind", "step", "time", "steps"}       # of an evaluation: all the rest are its results


class Console:
    """interval: seconds between plain lines."""

    def __init__(self, interval: float = 10.0) -> None:
        self.interval = interval
        self._terminal = _terminal()
        self._live: Live | None = None
        self._printed: float | None = None      # time of the last plain train line
        self._waiting: Record | None = None     # the newest train record without a line of its own

    def write(self, record: Record) -> None:
        if record["kind"] != "train":
            self._line(_plain(record))
            return
        self._waiting = record
        now = _number(record, "time", time.time())
        last = record["step"] == record.get("steps")
        if self._printed is None or last or (now - self._printed >= self.interval and not self._own_terminal):
            self._printed, self._waiting = now, None
            self._line(train_line(record))
        else:
            self._renew(train_line(record))

    def close(self) -> None:
        if self._waiting is not None:           # a run that stops early ends with its last numbers, too
            self._line(train_line(self._waiting))
        if self._live is not None:
            self._live.stop()
        if self._terminal is not None and not self._own_terminal:
            self._terminal.close()

    @property
    def _own_terminal(self) -> bool:
        return self._terminal is sys.stdout

    def _line(self, text: str) -> None:
        if self._live is not None and self._own_terminal:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        if self._live is not None:              # the agent shows this line on the same terminal: leave it an empty row to begin on
            self._renew("")
        print(text, flush=True)

    def _renew(self, text: str) -> None:
        if self._terminal is None:
            return
        try:
            self._draw(text)
        except OSError:                         # the terminal went away (a closed ssh session): the plain lines go on
            self._terminal = self._live = None

    def _draw(self, text: str) -> None:
        from rich.text import Text
        line = Text(text, no_wrap=True, overflow="ellipsis")
        if self._live is None:
            from rich.console import Console as Terminal
            from rich.live import Live
            # No thread of rich's: records come often enough. Its wrappers around print belong only where stdout is this terminal.
            self._live = Live(line, console=Terminal(file=self._terminal, force_terminal=True), auto_refresh=False, transient=True,
                              redirect_stdout=self._own_terminal, redirect_stderr=self._own_terminal)
            self._live.start()
        self._live.update(line, refresh=True)


def train_line(record: Record) -> str:
    """A train record in one line; what the record lacks is left out."""
    step_seconds = _number(record, "step_seconds", 0.0)
    parts = [_step(record), f"loss {_number(record, 'loss', float('nan')):.4g}"]
    if _number(record, "tokens_per_second", 0.0):
        parts.append(f"{_short(_number(record, 'tokens_per_second', 0.0))} tokens/s")
    if "samples_per_second" in record:
        parts.append(f"{_short(_number(record, 'samples_per_second', 0.0))} samples/s")
    if step_seconds:
        parts += [f"step {_duration(step_seconds)}", f"data {100 * _number(record, 'data_seconds', 0.0) / step_seconds:.1f}%"]
    if "memory_bytes" in record:
        parts.append(f"memory {_bytes(_number(record, 'memory_bytes', 0.0))}")
    if "eta_seconds" in record:
        parts.append(f"eta {_duration(_number(record, 'eta_seconds', 0.0))}")
    if record.get("skipped"):
        parts.append("skipped: no update was made")
    return "  ".join(parts)


def _plain(record: Record) -> str:
    if record["kind"] == "note":
        return str(record["text"])
    shown = {name: value for name, value in record.items() if name not in _HEAD}
    results = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items())
    return "  ".join([f"{record['kind']} step {record['step']}", *results])


def _terminal() -> TextIO | None:
    """The terminal a person looks at, if there is one."""
    if sys.stdout.isatty():
        return sys.stdout
    device = os.environ.get("MLTRAIN_TERMINAL")
    if not device:
        return None
    try:
        file = open(device, "w")
    except OSError:                             # the terminal was closed since: the plain lines remain
        return None
    if file.isatty():
        return file
    file.close()
    return None


def _step(record: Record) -> str:
    return f"step {record['step']}/{record['steps']}" if "steps" in record else f"step {record['step']}"


def _number(record: Record, name: str, default: float) -> float:
    value = record.get(name)
    return float(value) if isinstance(value, (int, float)) else default


def _short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _bytes(value: float) -> str:
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if minutes < 60:
        return f"{minutes}m{int(seconds % 60):02d}s"
    return f"{hours}h{minutes % 60:02d}m" if days == 0 else f"{days}d{hours % 24:02d}h"
