"""Who tells that this machine, or this job's time, comes to its end; and how long there is to save.

    signals      SIGTERM (Kubernetes, a cloud's shutdown, mltrain cancel), SIGHUP, and SIGUSR1 or SIGUSR2 (Slurm's --signal)
    Slurm        SLURM_JOB_END_TIME: the end of the job's time, without any signal
    the clouds   their metadata services (clouds.py), asked by a thread of its own; on other machines nothing runs and nothing is asked

A notice that is final asks for the run's end, as SIGTERM does: all ranks save at a step boundary, and the run ends with 75.

MLTRAIN_METADATA=aws=http://HOST:PORT puts another service in the cloud's place (aws, gcp, azure); `off` asks none.
"""
from __future__ import annotations

import os
import queue
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from mltrain.agent.clouds import Cloud, Notice, Unanswered, clean, cloud, which
from mltrain.agent.journal import say
from mltrain.agent.loop import Loop
from mltrain.errors import ConfigError

VARIABLE = "MLTRAIN_METADATA"
SIGNALS = {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
KUBERNETES_SECONDS = 30.0          # what a pod has between SIGTERM and SIGKILL unless its terminationGracePeriodSeconds says otherwise
_MARGIN = 2.0                      # of what a notice leaves: for the ledger, and for who sends us the SIGKILL a little early
_LEAST = 1.0                       # also of a machine that should be gone by now
_RETRY, _LONGEST_RETRY = 5.0, 60.0
_TOLD_AFTER = 3                    # unanswered looks


class Notices:
    """hand: takes each notice once, in the loop. (Signals go to the agent, which asks `of_signal` what they say.)"""

    def __init__(self, loop: Loop, hand: Callable[[Notice], None]) -> None:
        self._loop, self._hand = loop, hand
        self._found: queue.SimpleQueue[Notice | str] = queue.SimpleQueue()
        self._sockets: tuple[socket.socket, socket.socket] | None = None

    def begin(self, grace: float, environment: Mapping[str, str] = os.environ) -> None:
        """Listen from now on. grace: seconds that workers may need to save. Raises ConfigError (78) for a wrong MLTRAIN_METADATA."""
        if (left := seconds_of_job(environment)) is not None:
            lead = min(grace, left / 10)
            self._loop.after(left - lead, lambda: self._hand(Notice("Slurm", "the end of the job's time (SLURM_JOB_END_TIME)", lead)))
        if (service := service_of(environment)) is not None:
            wake, write = self._sockets = socket.socketpair()
            self._loop.watch(wake.fileno(), self._drain)
            threading.Thread(target=self._watch, args=(service, write), name="notices", daemon=True).start()

    def _drain(self) -> None:
        assert self._sockets is not None
        self._sockets[0].recv(64)
        while not self._found.empty():
            found = self._found.get()
            say(found) if isinstance(found, str) else self._hand(found)

    def _watch(self, service: Cloud, wake: socket.socket) -> None:
        """In the thread. Until a final notice."""
        told: set[str] = set()
        failures, pause = 0, _RETRY
        while True:
            try:
                found: list[Notice | str] = [notice for notice in service.look() if notice.text not in told]
                failures, pause = 0, _RETRY
            except Unanswered as error:
                failures, found = failures + 1, []
                if failures == _TOLD_AFTER:
                    found = [f"the metadata service of {service.name} does not answer ({clean(error)}): its notices may come too late"]
            for each in found:
                told.add(each.text if isinstance(each, Notice) else each)
                self._found.put(each)
            if found:
                with suppress(OSError):                        # the agent has ended
                    wake.send(b"n")
            if any(isinstance(each, Notice) and each.final for each in found):
                return
            time.sleep(pause if failures else service.pause)
            pause = min(_LONGEST_RETRY, 2 * pause) if failures else _RETRY


def of_signal(number: signal.Signals, environment: Mapping[str, str] = os.environ) -> Notice:
    """What a signal says here."""
    if number in (signal.SIGUSR1, signal.SIGUSR2) or (number == signal.SIGTERM and "SLURM_JOB_ID" in environment):
        left = seconds_of_job(environment)
        return Notice("Slurm" if "SLURM_JOB_ID" in environment else "signal", number.name, left)
    if number == signal.SIGTERM and "KUBERNETES_SERVICE_HOST" in environment:
        return Notice("Kubernetes", "termination (SIGTERM)")
    return Notice("signal", number.name)


def seconds_to_leave(notice: Notice, grace: float) -> float:
    """How long workers may take to save and leave."""
    return grace if notice.seconds is None else min(grace, max(_LEAST, notice.seconds - _MARGIN))


def default_grace(usual: float, environment: Mapping[str, str] = os.environ) -> float:
    """Kubernetes does not tell a pod how long it has: the usual time of a pod, then."""
    return min(usual, KUBERNETES_SECONDS - _MARGIN) if "KUBERNETES_SERVICE_HOST" in environment else usual


def seconds_of_job(environment: Mapping[str, str]) -> float | None:
    """Until Slurm ends this job; None outside of Slurm, or of a job without a limit."""
    text = environment.get("SLURM_JOB_END_TIME", "")
    if "SLURM_JOB_ID" not in environment or not text.isdigit():
        return None
    left = int(text) - time.time()
    return left if 0 < left < 366 * 86400 else None


def service_of(environment: Mapping[str, str]) -> Cloud | None:
    """The cloud to ask; None on a machine of no cloud."""
    text = environment.get(VARIABLE, "")
    if text == "off":
        return None
    if text:
        name, _, base = text.partition("=")
        if not re.fullmatch(r"aws|gcp|azure", name) or not base.startswith("http://"):
            raise ConfigError(f"{VARIABLE}={text}: not NAME=http://HOST:PORT", "NAME is aws, gcp or azure; off asks nobody")
        return cloud(name, base)
    name = which()
    return cloud(name) if name else None

