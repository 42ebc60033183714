"""Which rank failed first, and what to say of it. The other ranks' broken connections are echoes of that one failure."""
from __future__ import annotations

import re
import signal
import time
from dataclasses import asdict, dataclass
from typing import Any

# What gloo, NCCL and torch's store say when a peer is gone.
_ECHO = re.compile(
    r"connection (closed|reset|refused|was closed|was likely closed)|broken pipe|socket (closed|is not connected)|peer .*(closed|gone)"
    r"|application timeout caused pair closure|remote process exited|ncclRemoteError|recvvalue failed|timed out", re.IGNORECASE)
_IMPORT_ERRORS = ("ImportError", "ModuleNotFoundError", "SyntaxError", "IndentationError", "TabError")
GRACEFUL = (0, 75, 130)
HUNG, NO_MEMORY, LOST, UNFIT = "Hang", "OutOfMemory", "NodeLost", "NodeUnfit"  # types of what the agent finds out without an exception
_NO_NUMBER = re.compile(r"\b(loss|norm) -?(nan|inf)\b|\bloss spike: ")
_CORRUPT = re.compile(r"^step \d+: the state of ranks? \d")
_NO_ROOM = re.compile(r"no space left on device|file too large|disk quota exceeded", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class End:
    """How one worker ended. code: exit code, -N for signal N (one that still lives has noted the code it will exit with). step: optimizer
    steps done, -1 unknown. trained: steps of this attempt. moment: when it failed (time.monotonic). type, message, where: its exception,
    if any."""

    rank: int
    pid: int
    code: int
    moment: float
    phase: str = "none"
    step: int = -1
    trained: int = 0
    type: str = ""
    message: str = ""
    where: str = ""
    stack: str = ""      # file within the run directory
    host: str = ""       # which node, where there are several
    silent: float = 0.0  # seconds from its last sign of life until it was judged to hang

    @property
    def failed(self) -> bool:
        return self.code not in GRACEFUL

    @property
    def is_exception(self) -> bool:
        """An exception of the script itself: Python's exit code 1 with a record, or our own 70."""
        return self.code == 70 or (self.code == 1 and bool(self.type))

    @property
    def is_unfit(self) -> bool:
        """The agent itself has found the machine wanting (a second line of the message says what to do)."""
        return self.type == UNFIT and not self.pid

    @property
    def cannot_import(self) -> bool:
        return self.is_exception and self.type in _IMPORT_ERRORS

    @property
    def is_echo(self) -> bool:
        return bool(self.type) and is_broken_connection(self.message)

    @property
    def exit_code(self) -> int:
        """What a shell would report: 128 + N for signal N; an uncaught exception is 70 whatever Python made of it."""
        if self.is_exception:
            return 70
        return 128 - self.code if self.code < 0 else self.code

    @property
    def kind(self) -> str:
        """The class of failure: hang, out of memory, numerics, corruption, import, network (a broken connection, nobody died before it),
        storage, exception, configuration, data, node, signal, exit."""
        if self.type == HUNG:
            return "hang"
        if self.type == LOST:
            return "node"
        if self.type in (NO_MEMORY, "OutOfMemoryError", "MemoryError"):
            return "out of memory"
        if self.cannot_import:
            return "import"
        if self.is_exception:
            if self.type == "TaskError" and _NO_NUMBER.search(self.message):
                return "numerics"
            if self.type == "TaskError" and _CORRUPT.search(self.message):
                return "corruption"
            return "network" if self.is_echo else "storage" if _NO_ROOM.search(self.message) else "exception"
        return {64: "configuration", 65: "data", 66: "data", 69: "node", 74: "storage", 78: "configuration"}.get(
            self.code, "signal" if self.code < 0 else "exit")

    def signature(self) -> tuple[str, str, str, int]:
        """Equal for the same failure at the same step."""
        return (self.type or f"exit code {self.code}", self.message, self.where, self.step)

    def row(self) -> dict[str, Any]:
        """For the ledger."""
        values = asdict(self)
        del values["moment"]
        if not self.silent:
            del values["silent"]
        return {"kind": self.kind, **{key: value for key, value in values.items() if value not in ("", None)}}

    def packed(self, now: float) -> dict[str, Any]:
        """As JSON, for another machine. now: time.monotonic() here."""
        values = asdict(self)
        del values["moment"]
        return {**values, "age": now - self.moment}

    @classmethod
    def unpacked(cls, values: dict[str, Any], now: float) -> End:
        """now: time.monotonic() here, which says something else than the sender's."""
        fields = {key: value for key, value in values.items() if key != "age"}
        return cls(moment=now - values["age"], **fields)

    def describe(self) -> str:
        """rank 1 (pid 123) killed by SIGKILL at step 17, phase compute"""
        if self.type == LOST:
            return f"node {self.host} is lost: {self.message}"
        if self.is_unfit:
            return f"{self.host or 'this node'} is unfit: {self.message.splitlines()[0]}"
        who = f"rank {self.rank} (pid {self.pid}{f' on {self.host}' if self.host else ''})"
        place = f" at step {self.step}, phase {self.phase}" if self.step >= 0 else ""
        if self.type == HUNG:
            return f"{who} hung{place}: {self.message}" + (f"; its stack: {self.stack}" if self.stack else "")
        if self.type == NO_MEMORY:
            return f"{who} killed by the kernel: out of memory{',' if place else ''}{place}"
        how = f"killed by {_signal_name(-self.code)}" if self.code < 0 else f"exited with {self.code}"
        text = f"{who} {how}"
        if self.type or self.message:
            first = self.message.splitlines()[0] if self.message else ""
            text += f": {self.type + ': ' if self.type else ''}{first[:200]}" + (f" ({self.where})" if self.where else "")
        return text + (f"{',' if self.type else ''}{place}" if place else "")


def lost_node(name: str, why: str, step: int) -> End:
    """The end of a whole node, as the controller sees it."""
    return End(-1, 0, -signal.SIGKILL, time.monotonic(), step=step, type=LOST, message=why, host=name)


def is_broken_connection(message: str) -> bool:
    return bool(_ECHO.search(message))


def pick(ends: list[End]) -> tuple[End, int]:
    """(the cause, number of echoes): the earliest failure that is not a broken connection, else the earliest. At least one must have
    failed."""
    failed = sorted((end for end in ends if end.failed), key=lambda end: (end.is_echo, end.moment))
    return failed[0], len(failed) - 1


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
