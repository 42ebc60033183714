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
from mltrain.runs.goodput import Span, goodput, spans
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
        if run is not None:
            make_folder(run)
            self._lease, self._ledger = Lease(run), ledger.Ledger(ledger_file(run))

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
        return last != "done"

    def row(self, event: str, **fields: object) -> None:
        """A full disk must not end a run that can still compute: it is said, and the run goes on."""
        if self.run is not None:
            try:
                self._ledger.append(event, **fields)
            except StorageError as error:
                say(str(error))

    def steps(self, steps: int) -> None:
        """How many steps the run is to make, as its workers have worked out."""
        self._status["steps"] = steps

    def attempt_started(self, **fields: object) -> None:
        self.attempt += 1
        self._started, self._begun = time.time(), (-1, 0.0)
        self.row("attempt started", attempt=self.attempt, host=socket.gethostname(), pid=os.getpid(), **fields)
        self._status.update(state="running", attempts=self.attempt,
                            started=self._status.get("started") or self._started, ended=None, ranks=[])
        self.write([], None)

    def attempt_ended(self, cause: End | None, echoes: int, verdict: Verdict, step: int) -> None:
        """outcome: restarted, failed, or how the run stops."""
        outcome = "restarted" if verdict.code is None else "failed" if cause else "done" if verdict.reason == "done" else "stopped"
        first, moment = self._begun
        training = round(time.monotonic() - moment, 3) if first >= 0 else 0.0
        fields = {"cause": cause.row(), "echoes": echoes} if cause else {}
        self.row("attempt ended", attempt=self.attempt, outcome=outcome, reason=verdict.reason, step=step, first_step=first,
                 training_seconds=training, **fields)

    def write(self, ranks: list[dict[str, Any]], begun: tuple[int, float] | None, *, durable: bool = False) -> None:
        """status.json, and the lease's beat. ranks: as `Node.pulse` has them. begun: (step, time.monotonic) at which training began."""
        if self.run is None:
            return
        self._begun = begun or self._begun
        lowest = next((row for row in ranks if row.get("beats") and row["step"] >= 0), None)
        if lowest:
            self._status.update({key: lowest[key] for key in ("step", "samples", "tokens", "loss")})
        if ranks:
            self._status["ranks"] = [{key: row[key] for key in ("rank", "host", "pid", "phase", "step")} for row in ranks]
        self._status.update(beat=round(time.time(), 3))
        with contextlib.suppress(StorageError, OSError):       # said at the end, when it matters; once a second would be noise
            self._lease.beat(self.attempt)
            write_status(self.run, self._status, durable=durable)

    def score(self, live: bool) -> None:
        """Goodput so far. Reads the whole ledger: at the beginning of an attempt's training and at its end, not every second."""
        if self.run is None:
            return
        first, moment = self._begun
        now = None
        if live and first >= 0:
            now = Span(self._started, time.time(), first, int(self._status.get("step") or 0), time.monotonic() - moment)
        self._status["goodput"] = goodput(spans(ledger.read(self._ledger.path), now))

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
        self.score(live=False)
        try:
            write_status(self.run, {**self._status, "beat": round(time.time(), 3)}, durable=True)
        except StorageError as error:
            say(str(error))
        self._lease.release()

    def release(self) -> None:
        """Let go without a word: nothing was started."""
        if self.run is not None:
            self._lease.release()
