"""The end that was asked for: by a signal or a notice, on whatever node; who is behind it, and with which code the run then ends."""
from __future__ import annotations

import signal
import time
from typing import Any

from mltrain.agent.attempt import Attempt
from mltrain.agent.clouds import Notice
from mltrain.agent.journal import Journal, say
from mltrain.agent.notices import seconds_to_leave
from mltrain.agent.policy import Verdict
from mltrain.errors import INTERRUPTED, PREEMPTED

DOUBLE_SECONDS = 0.1     # two SIGINT closer together are one (`timeout -s INT` signals a process and its group)


class Ending:
    """number: the signal that asked for the end; None: nobody has. grace: seconds that workers may take to save. own: as in `Options`."""

    def __init__(self, journal: Journal, grace: float, own: bool) -> None:
        self.number: signal.Signals | None = None
        self._journal, self._grace, self._own = journal, grace, own
        self._moment, self._why = 0.0, ""
        self._told: set[tuple[str, str]] = set()

    def ask(self, number: signal.Signals, node: str, notice: dict[str, Any] | None) -> dict[str, Any] | None:
        """The order for whoever runs; None if nothing follows. SIGTERM: save and leave. SIGINT: the same; a second one: at once. notice:
        why, the fields of a `Notice` that came to that node; one that is not final asks for nothing."""
        seconds = self._noticed(node, Notice(**notice)) if notice else self._grace
        if seconds is None:
            return None
        now = time.monotonic()
        if self.number is not None and number == signal.SIGINT:
            if now - self._moment <= DOUBLE_SECONDS:
                return None
            self.number = signal.SIGINT
            return {"kind": "stop"}
        if self.number is None:
            self.number, self._moment = number, now
        return {"kind": "leave", "signal": int(number), "seconds": seconds}            # again: there may be less time now

    def _noticed(self, node: str, notice: Notice) -> float | None:
        """Said, and written down. Returns how many seconds it leaves; None if it asks for nothing, or has come before."""
        if (notice.source, notice.text) in self._told:
            return None
        self._told.add((notice.source, notice.text))
        seconds = seconds_to_leave(notice, self._grace)
        left = {} if notice.seconds is None else {"seconds": round(notice.seconds, 1)}
        self._journal.row("notice", node=node, source=notice.source, text=notice.text, final=notice.final, **left)
        if notice.source != "signal":
            self._why = self._why or (f" ({notice.source}: {notice.text})" if notice.final else "")
            say(f"{notice.source}: {notice.text}" + (f"; {seconds:.0f} s to save and leave" if notice.final else ""))
        return seconds if notice.final else None

    def verdict(self, attempt: Attempt) -> Verdict:
        """130 by the user, 75 if workers said that they saved (or had nothing to save), else 143."""
        if self.number == signal.SIGINT:
            return Verdict(INTERRUPTED, "stopped by the user")
        if not attempt.codes and not attempt.ends and attempt.nodes:
            # the last step was done when the signal came
            return Verdict(0, "stopped with state saved" if attempt.stopped_early else "done")
        nothing_done = self._own and attempt.trained <= 0
        if attempt.codes == {PREEMPTED} or nothing_done or not attempt.nodes:
            return Verdict(PREEMPTED, f"stopped with state saved{self._why}")
        return Verdict(128 + signal.SIGTERM, f"stopped; no worker said that state was saved{self._why}")
