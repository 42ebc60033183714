"""What the agent writes into the run directory: ledger rows, status.json about once a second, the lease. Without a run directory:
nothing. A thread writes (`scribe.py`): while the run goes on, the event loop never waits for the storage."""
from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mltrain.agent.cause import End
from mltrain.agent.policy import Verdict
from mltrain.agent.scribe import Scribe
from mltrain.errors import StorageError
from mltrain.runs import ledger
from mltrain.runs.goodput import LOST, WAITING, goodput, seconds, summary
from mltrain.runs.layout import ledger_file, make_folder
from mltrain.runs.lease import Lease
from mltrain.runs.outcome import last_status, write_status
from mltrain.trust.redact import redact

_REOPENS = (ledger.ROLLED_BACK, "changed")         # after one of these a finished run may be started again


def say(text: str) -> None:
    """One line for people."""
    print(f"mltrain: {redact(text)}", file=sys.stderr, flush=True)


class Journal:
    """run None: nothing is written (a foreign command without --run-dir), only said."""

    def __init__(self, run: Path | None, scribe: Scribe) -> None:
        self.run, self.attempt, self._scribe = run, 0, scribe
        self._status: dict[str, Any] = {}
        self._started, self._begun = 0.0, (-1, 0.0)
        self._waits = -1                                       # the attempt after which a wait for nodes was written down
        # For the thread: rows with their moments, the newest status; whether it is to come for them; whether all is another's now.
        self._rows: deque[tuple[str, float | None, dict[str, Any]]] = deque()
        self._newest: dict[str, Any] = {}
        self._called = self._expected = self._abandoned = False
        # The thread's own: rows that the disk has not taken yet, because it is full; what `score` found.
        self._held: list[tuple[str, float | None, dict[str, Any]]] = []
        self._full, self._scores = False, dict[str, Any]()
        if run is not None:
            make_folder(run)
            self._lease, self._ledger = Lease(run), ledger.Ledger(ledger_file(run))

    def done(self) -> bool:
        """Is the run finished already, and nothing has reopened it?"""
        if self.run is None:
            return False
        rows = ledger.read(self._ledger.path)
        return next((row["event"] for row in reversed(rows) if row["event"] in ("done", *_REOPENS)), "") == "done"

    def open(self, shape: dict[str, Any], claimed: int = 0) -> bool:
        """Take the run. False if it is finished already. Raises UsageError (64) if another agent has it. shape: for the ledger.
        claimed: the newest attempt that somebody has claimed; it may have died before its row was written."""
        if self.run is None:
            return True
        self._scribe.settle()
        self._abandoned = False
        self._lease.acquire()
        rows = ledger.read(self._ledger.path)
        self.attempt = max(ledger.attempts(self._ledger.path), claimed)
        if not rows:
            self.row("created", **shape)
        last = next((row["event"] for row in reversed(rows) if row["event"] in ("done", *_REOPENS)), "")
        self._status = {**last_status(self.run), "host": socket.gethostname(), "pid": os.getpid(), "code": None, "reason": ""}
        self._outlived(rows)
        return last != "done"

    def _outlived(self, rows: list[ledger.Row]) -> None:
        """An attempt whose agent was killed with it has no end in the ledger: it gets what the status last said of it."""
        ends = [row["event"] for row in rows if row["event"] in ("attempt started", "attempt ended", LOST)]
        found = self._status.pop("account", None) or {}
        if ends[-1:] == ["attempt started"] and found.get("attempt") == self.attempt:
            self.row(LOST, **found)

    def take_over(self, attempt: int, started: float) -> bool:
        """As the successor of a controller that is lost. attempt, started: its newest, and when that began. True if that attempt has no end
        in the ledger."""
        assert self.run is not None
        self._scribe.settle()
        self._abandoned = False
        self._lease.acquire(force=True)
        rows = ledger.read(self._ledger.path)
        self.attempt = max(ledger.attempts(self._ledger.path), attempt)
        self._status = {**last_status(self.run), "host": socket.gethostname(), "pid": os.getpid(), "code": None, "reason": ""}
        self._status.pop("account", None)
        self._started = started
        return [row["event"] for row in rows if row["event"] in ("attempt started", "attempt ended")][-1:] == ["attempt started"]

    def abandon(self) -> None:
        """Another controller has the run: not a word more from us."""
        self._abandoned = True
        self._scribe.post(self._lease.abandon)                 # there, where nobody beats in the same moment

    def row(self, event: str, **fields: object) -> None:
        """A full disk must not end a run that can still compute: it is said, the run goes on, and the row waits for room."""
        if self.run is not None:
            self._rows.append((event, time.time(), fields))
            if not self._called:                               # many rows at once share an fsync
                self._called = True
                self._scribe.post(self._catch_up)

    def settle(self, seconds: float | None = None) -> bool:
        """Wait until all that was written down is on the disk (or the disk is full). False if it is not after so many seconds."""
        return self._scribe.settle(seconds)

    def _catch_up(self) -> None:
        self._called = False
        while self._rows:
            self._held.append(self._rows.popleft())
        if self._abandoned:
            self._held.clear()
        try:
            if self._held:
                self._ledger.extend(self._held)
            self._full = False
        except StorageError as error:
            if not self._full:
                say(str(error))
            self._full = True

    def steps(self, steps: int) -> None:
        """How many steps the run is to make, as its workers have worked out."""
        self._status["steps"] = steps

    def waiting(self, nodes: int) -> None:
        """The next attempt waits for nodes, with so many there."""
        if self._waits != self.attempt:
            self._waits = self.attempt
            self.row(WAITING, nodes=nodes)

    def stragglers(self, rows: list[dict[str, Any]]) -> None:
        """The ranks that hold the others up now."""
        self._status["stragglers"] = rows

    def attempt_started(self, then: Callable[[], None], **fields: object) -> None:
        """then: once that is on the disk, so that no number is given twice. (A full disk is not waited for.)"""
        self.attempt += 1
        self._started, self._begun = time.time(), (-1, 0.0)
        self.row("attempt started", attempt=self.attempt, host=socket.gethostname(), pid=os.getpid(), **fields)
        self._status.update(state="running", attempts=self.attempt,
                            started=self._status.get("started") or self._started, ended=None, ranks=[])
        self.write([], None)
        self._scribe.ask(lambda: None, lambda _: then())

    def attempt_ended(self, cause: End | None, echoes: int, verdict: Verdict, step: int, parts: dict[str, float]) -> None:
        """outcome: restarted, failed, or how the run stops. parts: where its time went, {} if that is not known."""
        outcome = "restarted" if verdict.code is None else "failed" if cause else "done" if verdict.reason == "done" else "stopped"
        first, moment = self._begun
        training = round(time.monotonic() - moment, 3) if first >= 0 else 0.0
        fields = {"cause": cause.row(), "echoes": echoes} if cause else {}
        rest = time.time() - self._started - sum(parts.values())           # other nodes' ends, and the verdict
        last = "unknown" if not parts else "restart" if cause else "ending"
        parts = {**parts, last: round(parts.get(last, 0.0) + max(0.0, rest), 3)}
        self.row("attempt ended", attempt=self.attempt, outcome=outcome, reason=verdict.reason, step=step, first_step=first,
                 training_seconds=training, wait=round(verdict.wait, 3), parts=parts, **fields)
        self._status.pop("account", None)

    def write(self, ranks: list[dict[str, Any]], begun: tuple[int, float] | None, parts: dict[str, float] | None = None) -> None:
        """status.json, and the lease's beat. ranks, parts: as `Node.pulse` has them. begun: (step, time.monotonic) at which training
        began."""
        if self.run is None:
            return
        self._begun = begun or self._begun
        lowest = next((row for row in ranks if row.get("beats") and row["step"] >= 0), None)
        if lowest:
            self._status.update({key: lowest[key] for key in ("step", "samples", "tokens", "loss")})
        if ranks:
            self._status["ranks"] = [{key: row[key] for key in ("rank", "host", "pid", "phase", "step")} for row in ranks]
        self._status.update(beat=round(time.time(), 3))
        if parts:
            self._status["account"] = {"attempt": self.attempt, "until": round(time.time(), 3), "first_step": self._begun[0],
                                       "step": self._status.get("step") or 0, "parts": parts}
        self._newest = {**self._status}
        if not self._expected:                                 # where the storage is slow only the newest is written
            self._expected = True
            self._scribe.post(self._write)

    def _write(self) -> None:
        self._expected = False                                 # first: what comes from now on is for the next time
        self._catch_up()
        if self.run is None or self._abandoned:
            return
        with contextlib.suppress(StorageError, OSError):       # said at the end, when it matters; once a second would be noise
            self._lease.beat(self.attempt)
            write_status(self.run, {**self._newest, **self._scores})

    def score(self) -> None:
        """Goodput so far, and where the time went. Reads the whole ledger: not every second."""
        if self.run is not None:
            account = self._status.get("account")
            self._scribe.post(lambda: self._score(account))

    def _score(self, account: dict[str, Any] | None) -> None:
        spent = seconds(ledger.read(self._ledger.path), account)
        self._scores = {"goodput": goodput(spent), "spent": spent}

    def command_for_more(self) -> str:
        """What shows the culprit's last lines."""
        assert self.run is not None
        name = self.run.name if self.run.parent == Path("runs").absolute() else os.path.relpath(self.run)
        return f"mltrain logs {shlex.quote(min(name, str(self.run), key=len))} --errors"

    def cancelled(self) -> bool:
        """Has somebody asked for the end of this run since the newest attempt began?"""
        if self.run is None:
            return False
        self._scribe.settle()
        events = [row["event"] for row in ledger.read(self._ledger.path) if row["event"] in (ledger.CANCEL, "attempt started")]
        return events[-1:] == [ledger.CANCEL]

    def close(self, state: str, code: int, reason: str) -> None:
        """The last word. The lease goes last: whoever waits for it finds everything written."""
        if self.run is None:
            return
        self.row(state, code=code, reason=reason, step=self._status.get("step"))
        self._status.update(state=state, code=code, reason=redact(reason), ended=round(time.time(), 3))
        self._scribe.settle()
        self._score(self._status.get("account"))
        if self._scores["goodput"] is not None:
            say(summary(self._scores["spent"]))
        try:
            write_status(self.run, {**self._status, **self._scores, "beat": round(time.time(), 3)}, durable=True)
        except StorageError as error:
            say(str(error))
        self._lease.release()

    def release(self) -> None:
        """Let go without a word: nothing was started."""
        if self.run is not None:
            self._scribe.settle()
            self._lease.release()
