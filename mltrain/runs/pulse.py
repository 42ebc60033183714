"""The pulse of one worker: 64 KiB of memory (memfd) shared with its agent, and a socket for what must not be lost.

    byte 0      beats, phase (index into PHASES), step (optimizer steps done, -1: none known), loss, samples, tokens
    byte 48     step and moment at which this attempt began to train, moment of the exception record, 1 if STACK_SIGNAL writes the stack,
                moment of the newest beat, exit code to leave with at the next one (chaos)
    byte 96     the account: moment at which the first step was done, seconds in each phase since then, the same at the newest step's end
    byte 1024   exception record, JSON: type, message, where, code
    byte 4096   stack of all threads, text of faulthandler

A beat is a few stores into memory (about 1 us), and the page outlives the worker: a dead one can still be asked where it was, and how long
it has been where.
Any script may beat; without an agent it does nothing:

    from mltrain.runs.pulse import Pulse
    pulse = Pulse.from_environment()
    pulse.beat("compute", step)
"""
from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import mmap
import os
import signal
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any

from mltrain.runs import frames
from mltrain.trust.digest import plain
from mltrain.trust.redact import redact, redact_data

PHASES = ("none", "load", "data", "compute", "collective", "save", "evaluate", "callback")
PAGE_VARIABLE, REPORT_VARIABLE = "MLTRAIN_PULSE_FD", "MLTRAIN_REPORT_FD"
STACK_SIGNAL = signal.SIGRTMIN + 7       # scripts use SIGUSR1 and SIGUSR2 themselves (submitit, Lightning)
PAGE_BYTES, RECORD_AT, STACK_AT = 65536, 1024, 4096
_NUMBERS = struct.Struct("qqqdqq")       # what a beat writes
_PHASE, _BEGIN, _MOMENT, _DUMPS, _BEAT, _EXIT = 8, 48, 64, 72, 80, 88   # offsets; two doubles for _BEGIN, one byte for _EXIT
_FIRST, _SPENT, _STEPPED = 96, 104, 168  # double; as many doubles as there are phases, twice
_DOUBLE = struct.Struct("d")
_SECONDS = struct.Struct(f"{len(PHASES)}d")
_NUMBER_OF = {name: number for number, name in enumerate(PHASES)}
_MEMORY = "mltrain-pulse"
_REPORT_BYTES = 60_000                   # of one report: a socket's packet, and a ledger's row, has an end


@dataclass(frozen=True, slots=True)
class Beat:
    """Where a worker is. step: optimizer steps done (-1: it never said). loss: of that step (nan: unknown).
    samples, tokens: consumed so far."""

    beats: int = 0
    phase: str = "none"
    step: int = -1
    loss: float = math.nan
    samples: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What a worker did with its time. begun, first, last: moments (time.monotonic) at which it began to train, had done its first step,
    gave its newest beat; 0: not yet. phase: since `last`. seconds: from `first` to `last`, by phase. stepped: the same as far as the end of
    its newest step."""

    begun: float = 0.0
    first: float = 0.0
    last: float = 0.0
    phase: str = "none"
    seconds: dict[str, float] = field(default_factory=dict)
    stepped: dict[str, float] = field(default_factory=dict)


class Page:
    """The shared memory, on either side. fd=None makes a new one (the agent's side); a worker maps the one it was given."""

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            fd = os.memfd_create(_MEMORY)
            os.ftruncate(fd, PAGE_BYTES)
            os.pwrite(fd, _NUMBERS.pack(0, 0, -1, math.nan, 0, 0) + struct.pack("qd", -1, 0.0), 0)
        self.fd, self.memory = fd, mmap.mmap(fd, PAGE_BYTES)

    def read(self) -> Beat:
        """The newest beat. Two equal readings in a row: a beat written meanwhile is never seen half."""
        one = self.memory[:_NUMBERS.size]
        while (two := self.memory[:_NUMBERS.size]) != one:
            one = two
        beats, phase, step, loss, samples, tokens = _NUMBERS.unpack(one)
        return Beat(beats, PHASES[phase] if 0 <= phase < len(PHASES) else "none", step, loss, samples, tokens)

    def moment(self) -> float:
        """time.monotonic of the newest beat; 0 before the first."""
        moment: float = _DOUBLE.unpack_from(self.memory, _BEAT)[0]
        return moment

    def order_exit(self, code: int) -> None:
        """The worker leaves with this exit code, 1 to 255, at its next beat: a fault made on purpose."""
        self.memory[_EXIT] = code

    def begin(self) -> tuple[int, float] | None:
        """(step, time.monotonic) at which this attempt began to train; None if it has not."""
        step, moment = struct.unpack_from("qd", self.memory, _BEGIN)
        return (step, moment) if moment else None

    def spent(self) -> Spent:
        """The account so far."""
        begun, beat = self.begin(), self.read()
        seconds, stepped = (dict(zip(PHASES, _SECONDS.unpack_from(self.memory, at), strict=True)) for at in (_SPENT, _STEPPED))
        first: float = _DOUBLE.unpack_from(self.memory, _FIRST)[0]
        return Spent(begun[1] if begun else 0.0, first, self.moment(), beat.phase, seconds, stepped)

    def record(self) -> dict[str, Any]:
        """The exception the worker ended with, {} if there was none: type, message, where (file:line), code, moment (time.monotonic)."""
        text = self._text(RECORD_AT, STACK_AT)
        if not text:
            return {}
        try:
            return {**json.loads(text), "moment": struct.unpack_from("d", self.memory, _MOMENT)[0]}
        except ValueError:
            return {}

    def write_record(self, error: BaseException, code: int) -> None:
        """The first exception stays: what follows it in a dying worker are its echoes."""
        if self.memory[RECORD_AT]:
            return
        name, where = type(error).__name__[:100], redact(frames.near(frames.where(error)))
        message = frames.MEETING * frames.meeting(error) + redact(str(error).strip())
        text = json.dumps({"type": name, "message": message[:600], "where": where[-300:], "code": code}).encode()
        if len(text) >= STACK_AT - RECORD_AT:                  # escapes can blow a message up twelvefold
            text = json.dumps({"type": name, "message": message[:60], "where": where[-60:], "code": code}).encode()
        struct.pack_into("d", self.memory, _MOMENT, time.monotonic())
        self.memory[RECORD_AT + 1:RECORD_AT + len(text)] = text[1:]
        self.memory[RECORD_AT:RECORD_AT + 1] = text[:1]        # last, so that a record is whole or absent

    def enable_stack(self) -> None:
        """In the worker: STACK_SIGNAL writes all threads' stacks, from C, even while a thread holds the GIL for ever."""
        os.lseek(self.fd, STACK_AT, os.SEEK_SET)
        faulthandler.register(STACK_SIGNAL, file=self.fd, all_threads=True)
        struct.pack_into("q", self.memory, _DUMPS, 1)

    def dumps_stack(self) -> bool:
        return bool(struct.unpack_from("q", self.memory, _DUMPS)[0])

    def clear_stack(self) -> None:
        """Before a new one is asked for. The file's position is common to both sides."""
        self.memory[STACK_AT:] = bytes(PAGE_BYTES - STACK_AT)
        os.lseek(self.fd, STACK_AT, os.SEEK_SET)

    def stack(self) -> str:
        return self._text(STACK_AT, PAGE_BYTES)

    def _text(self, start: int, end: int) -> str:
        return self.memory[start:end].split(b"\0", 1)[0].decode(errors="replace")

    def close(self) -> None:
        self.memory.close()
        os.close(self.fd)


class Pulse:
    """A worker's side. beat() says where it is, report() what must reach the ledger, failed() why it is about to leave."""

    def __init__(self, page: Page | None = None, reports: socket.socket | None = None) -> None:
        self.page, self._reports = page, reports
        self._beats, self._step, self._loss, self._samples, self._tokens, self._begun = 0, -1, math.nan, 0, 0, False
        if page:
            self._account = memoryview(page.memory).cast("d")
            last = page.read()
            self._beats, self._step, self._loss, self._samples, self._tokens = last.beats, last.step, last.loss, last.samples, last.tokens

    @classmethod
    def from_environment(cls) -> Pulse:
        """The pulse that the agent gave this worker; a silent one without an agent, and in children that inherit only the variables."""
        page_fd, report_fd = os.environ.get(PAGE_VARIABLE, ""), os.environ.get(REPORT_VARIABLE, "")
        if not page_fd.isdigit() or not _is_page(int(page_fd)):
            return cls()
        page = Page(int(page_fd))
        if not page.dumps_stack():                             # started by plain spawn: the template has not done this
            page.enable_stack()
        reports = None
        if report_fd.isdigit():
            with contextlib.suppress(OSError):                 # not a socket: somebody closed ours and opened another file
                reports = socket.socket(fileno=os.dup(int(report_fd)))
        return cls(page, reports)

    def beat(self, phase: str, step: int, loss: float | None = None, samples: int | None = None, tokens: int | None = None) -> None:
        """phase: one of PHASES. step: optimizer steps done so far. loss, samples, tokens: as of `step`; those not given stay."""
        if self.page is None:
            return
        if self.page.memory[_EXIT]:
            os._exit(self.page.memory[_EXIT])
        if loss is not None:
            self._loss = loss
        if samples is not None:
            self._samples = samples
        if tokens is not None:
            self._tokens = tokens
        now = time.monotonic()
        if self._begun:
            account, memory = self._account, self.page.memory  # not attributes of ours: a script may have several pulses
            account[_SPENT // 8 + memory[_PHASE]] += now - account[_BEAT // 8]
            if step > self._step:
                self._step_done(now)
        elif phase not in ("none", "load"):
            self._begun = True
            if not self.page.begin():
                struct.pack_into("qd", self.page.memory, _BEGIN, step, now)
        self._beats += 1
        self._step = step
        _DOUBLE.pack_into(self.page.memory, _BEAT, now)
        _NUMBERS.pack_into(self.page.memory, 0, self._beats, _NUMBER_OF[phase], step, self._loss, self._samples, self._tokens)

    def _step_done(self, now: float) -> None:
        """Of the first step, which may have compiled, nothing counts in the phases."""
        assert self.page is not None                           # beat() comes here with a page alone
        account, memory = self._account, self.page.memory
        if account[_FIRST // 8]:
            memory[_STEPPED:_STEPPED + _SECONDS.size] = memory[_SPENT:_SPENT + _SECONDS.size]
        else:
            memory[_SPENT:_SPENT + _SECONDS.size] = bytes(_SECONDS.size)
            account[_FIRST // 8] = now

    def phase(self, phase: str) -> None:
        """The same step, another phase."""
        self.beat(phase, self._step)

    def report(self, event: str, **fields: object) -> bool:
        """A row for the ledger, written there by the agent. False without an agent, and when it could not be handed over."""
        if self._reports is None:
            return False
        data = json.dumps(redact_data(plain({"event": event, **fields}))).encode()
        if len(data) > _REPORT_BYTES:
            raise ValueError(f"a report of {len(data)} bytes is too long for the ledger (at most {_REPORT_BYTES}): report a file's name")
        try:
            self._reports.sendall(data)
        except OSError:                                        # the agent is gone; so are we, in a moment
            return False
        return True

    def failed(self, error: BaseException, code: int | None = None) -> None:
        """Note the exception this worker ends with. code: its exit code (default: the error's own class, else 70)."""
        if self.page is not None:
            self.page.write_record(error, code if code is not None else int(getattr(error, "code", 70) or 70))


def page_of(pid: int) -> Page | None:
    """The page of a worker, from any process of the same user; None if it has none."""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}").startswith(f"/memfd:{_MEMORY}"):
                    return Page(os.open(f"/proc/{pid}/fd/{name}", os.O_RDWR | os.O_CLOEXEC))
    return None


def _is_page(fd: int) -> bool:
    """Is it our memory? An exec'd child inherits the variables but not the descriptors, and the number may name some other file by now."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(f"/memfd:{_MEMORY}")
    except OSError:
        return False
