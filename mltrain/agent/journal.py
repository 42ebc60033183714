"""What the agent writes into the run directory: ledger rows, status.json about once a second, the lease. Without a run directory:
nothing."""
from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys
import time
from pathlib import Path
from typing import Any

from mltrain.agent.cause import End
from mltrain.agent.policy import Verdict
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

    def __init__(self, run: Path | None) -> None:
        self.run, self.attempt = run, 0
        self._status: dict[str, Any] = {}
        self._started, self._begun = 0.0, (-1, 0.0)
        self._waits = -1                                       # the attempt after which a wait for nodes was written down
        self._held: list[tuple[float, str, dict[str, Any]]] = []           # rows that the disk has not taken yet, with their moments
        self._full = False
        if run is not None:
            make_folder(run)
            self._lease, self._ledger = Lease(run), ledger.Ledger(ledger_file(run))

    def done(self) -> bool:
        """Is the run finished already, and nothing has reopened it?"""
        if self.run is None:
            return False
        rows = ledger.read(self._ledger.path)
        return next((row["event"] for row in reversed(rows) if row["event"] in ("done", *_REOPENS)), "") == "done"

    def open(self, shape: dict[str, Any]) -> bool:
        """Take the run. False if it is finished already. Raises UsageError (64) if another agent has it. shape: for the ledger."""
        if self.run is None:
            return True
        self._lease.acquire()
        rows = ledger.read(self._ledger.path)
        self.attempt = ledger.attempts(self._ledger.path)
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

    def take_over(self, started: float) -> bool:
        """As the successor of a controller that is lost. started: when its attempt began. True if that attempt has no end in the ledger."""
        assert self.run is not None
        self._lease.acquire(force=True)
        rows = ledger.read(self._ledger.path)
        self.attempt = ledger.attempts(self._ledger.path)
        self._status = {**last_status(self.run), "host": socket.gethostname(), "pid": os.getpid(), "code": None, "reason": ""}
        self._status.pop("account", None)
        self._started = started
        return [row["event"] for row in rows if row["event"] in ("attempt started", "attempt ended")][-1:] == ["attempt started"]

    def abandon(self) -> None:
        """Another controller has the run: not a word more from us."""
        self._lease.abandon()

    def row(self, event: str, **fields: object) -> None:
        """A full disk must not end a run that can still compute: it is said, the run goes on, and the row waits for room."""
        if self.run is not None:
            self._held.append((time.time(), event, fields))
            self._catch_up()

    def _catch_up(self) -> None:
        while self._held:
            moment, event, fields = self._held.pop(0)
            try:
                self._ledger.append(event, moment, **fields)
            except StorageError as error:
                self._held.insert(0, (moment, event, fields))
                if not self._full:
                    say(str(error))
                self._full = True
                return
        self._full = False

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

    def attempt_started(self, **fields: object) -> None:
        self.attempt += 1
        self._started, self._begun = time.time(), (-1, 0.0)
        self.row("attempt started", attempt=self.attempt, host=socket.gethostname(), pid=os.getpid(), **fields)
        self._status.update(state="running", attempts=self.attempt,
                            started=self._status.get("started") or self._started, ended=None, ranks=[])
        self.write([], None)

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

    def write(self, ranks: list[dict[str, Any]], begun: tuple[int, float] | None, parts: dict[str, float] | None = None, *,
              durable: bool = False) -> None:
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
        self._catch_up()
        with contextlib.suppress(StorageError, OSError):       # said at the end, when it matters; once a second would be noise
            self._lease.beat(self.attempt)
            write_status(self.run, self._status, durable=durable)

    def score(self) -> None:
        """Goodput so far, and where the time went. Reads the whole ledger: not every second."""
        if self.run is None:
            return
        spent = seconds(ledger.read(self._ledger.path), self._status.get("account"))
        self._status.update(goodput=goodput(spent), spent=spent)

    def command_for_more(self) -> str:
        """What shows the culprit's last lines."""
        assert self.run is not None
        name = self.run.name if self.run.parent == Path("runs").absolute() else os.path.relpath(self.run)
        return f"mltrain logs {shlex.quote(min(name, str(self.run), key=len))} --errors"

    def cancelled(self) -> bool:
        """Has somebody asked for the end of this run since the newest attempt began?"""
        if self.run is None:
            return False
        events = [row["event"] for row in ledger.read(self._ledger.path) if row["event"] in (ledger.CANCEL, "attempt started")]
        return events[-1:] == [ledger.CANCEL]

    def close(self, state: str, code: int, reason: str) -> None:
        """The last word. The lease goes last: whoever waits for it finds everything written."""
        if self.run is None:
            return
        self.row(state, code=code, reason=reason, step=self._status.get("step"))
        self._status.update(state=state, code=code, reason=redact(reason), ended=round(time.time(), 3))
        self.score()
        if self._status["goodput"] is not None:
            say(summary(self._status["spent"]))
        try:
            write_status(self.run, {**self._status, "beat": round(time.time(), 3)}, durable=True)
        except StorageError as error:
            say(str(error))
        self._lease.release()

    def release(self) -> None:
        """Let go without a word: nothing was started."""
        if self.run is not None:
            self._lease.release()
