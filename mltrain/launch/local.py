"""Runs a job on this machine: one agent in a session of its own, in the foreground or detached."""
from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from mltrain.errors import ConfigError, NodeUnfit
from mltrain.launch.job import JobSpec
from mltrain.runs import ledger
from mltrain.runs.atomic import FILE_MODE
from mltrain.runs.layout import ledger_file
from mltrain.runs.lease import is_live, read_lease

_MOST_NODES = 64         # to try out on one machine
_START_SECONDS = 60.0    # the longest a detached agent may take to hold its run
_RELAYED = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}


class Local:
    """Processes on this machine.

    workers: how many a node; None: one an accelerator, else one. nodes: 1; more are tried out here, an agent and an address of the loopback
    interface each. spares: further nodes that wait. min_nodes: so many will do when others are lost (None: 1). restarts: failures in a row
    without a new checkpoint before the run is given up. hang_seconds: a worker silent for so long, and for ten steps, is restarted
    (None: 5; 0: never).
    straggler_seconds: a rank slower than the others for so long, and for 50 steps, is named (None: 25; 0: never).
    restart: process, or inprocess: ranks that did not fail keep their process."""

    def __init__(self, workers: int | None = None, nodes: int = 1, restarts: int = 16, hang_seconds: float | None = None,
                 straggler_seconds: float | None = None, restart: str = "process", spares: int = 0,
                 min_nodes: int | None = None) -> None:
        if nodes < 1 or spares < 0 or nodes + spares > _MOST_NODES:
            raise ConfigError(f"launcher.nodes={nodes}, launcher.spares={spares}: this is one machine",
                              f"up to {_MOST_NODES} nodes can be tried on it; real ones come with ssh and Slurm")
        if min_nodes is not None and not 1 <= min_nodes <= nodes:
            raise ConfigError(f"launcher.min_nodes={min_nodes}: from 1 to launcher.nodes={nodes}", "leave it null for 1")
        self.spares, self.min_nodes = spares, min_nodes
        if workers is not None and workers < 1:
            raise ConfigError(f"launcher.workers={workers}: at least one is needed", "leave it null for one an accelerator")
        if restarts < 0:
            raise ConfigError(f"launcher.restarts={restarts}: must not be negative", "0 never restarts")
        if hang_seconds is not None and not 0 <= hang_seconds < float("inf"):
            raise ConfigError(f"launcher.hang_seconds={hang_seconds:g}: not a number of seconds", "0 looks for no hangs")
        if straggler_seconds is not None and not 0 <= straggler_seconds < float("inf"):
            raise ConfigError(f"launcher.straggler_seconds={straggler_seconds:g}: not a number of seconds", "0 names nobody")
        if restart not in ("process", "inprocess"):
            raise ConfigError(f"launcher.restart={restart}: no kind of restart", "process or inprocess")
        self.straggler_seconds, self.restart = straggler_seconds, restart
        self.workers, self.nodes, self.restarts, self.hang_seconds = workers, nodes, restarts, hang_seconds

    def command(self, job: JobSpec) -> list[str]:
        """The agent's command line."""
        workers = "auto" if self.workers is None else str(self.workers)
        limits = {"--hang-seconds": self.hang_seconds, "--straggler-seconds": self.straggler_seconds}
        given = [word for name, value in limits.items() if value is not None for word in (name, str(value))]
        given += ["--restart", self.restart] if self.restart != "process" else []
        if self._several:
            given += ["--here", "--nodes", str(self.nodes), "--spares", str(self.spares), "--min-nodes", str(self.min_nodes or 1)]
        return [sys.executable, "-m", "mltrain", "agent", "--workers", workers, "--restarts", str(self.restarts), *given,
                "--run-dir", str(job.run), "--", *job.worker]

    @property
    def _several(self) -> bool:
        return self.nodes + self.spares > 1

    def render(self, job: JobSpec) -> dict[str, str]:
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(job.environment.items())]
        return {"launch.sh": "".join(lines) + f"exec {shlex.join(self.command(job))}\n"}

    def submit(self, job: JobSpec, detach: bool = False) -> int:
        return self._detached(job) if detach else self._foreground(job)

    def _foreground(self, job: JobSpec) -> int:
        """Run the agent, relaying signals. An agent that is itself killed by a signal is started again: its workers died with it."""
        relay = _Relay()
        failures, saved = 0, _saved(job.run)
        command = self.command(job)
        split = command.index("--")
        command[split:split] = ["--parent", str(os.getpid())]
        try:
            while True:
                code = relay.run(lambda: self._start(job, command))
                if code >= 0 or relay.stopping:
                    return code if code >= 0 else 128 - code
                kept = _saved(job.run)
                failures, saved = (1 if kept > saved else failures + 1), kept
                if failures > self.restarts:
                    return 128 - code
                again = f"starting it again ({failures} of {self.restarts})"
                print(f"mltrain: the agent was killed by signal {-code}; {again}", file=sys.stderr)
                relay.sleep(0.0 if failures == 1 else min(30.0, 0.25 * 2 ** (failures - 2)))
                if relay.stopping:
                    return 128 - code
        finally:
            relay.restore()

    def _detached(self, job: JobSpec) -> int:
        """Start the agent with nothing of ours open, and return when it holds the run."""
        log = agent_log(job.run)
        start = log.stat().st_size if log.exists() else 0
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
        process = self._start(job, self.command(job), fd, log)
        os.close(fd)
        give_up = time.monotonic() + _START_SECONDS
        while time.monotonic() < give_up:
            code = process.poll()
            if code is not None:
                with log.open() as file:
                    file.seek(start)
                    print(file.read(), end="", file=sys.stderr)
                return code if code >= 0 else 128 - code
            holder = read_lease(job.run)
            if holder and (self._several or holder.pid == process.pid) and is_live(job.run):
                process.returncode = 0                         # it is on its own now: no warning when we leave first
                return 0
            time.sleep(0.02)
        process.kill()
        raise NodeUnfit(f"the agent did not start within {_START_SECONDS:.0f} s", f"see {log}")

    def _start(self, job: JobSpec, command: list[str], out: int | None = None, log: Path | None = None) -> subprocess.Popen[bytes]:
        """The agent, in a session of its own: the one that waits already if there is one. out, log: where it prints, if not here."""
        if job.early and not self._several and (process := job.early.order(command[4:], job.environment, log)):
            return process
        return subprocess.Popen(command, env={**os.environ, **job.environment}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                start_new_session=True, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _RELAYED))

    def status(self, run: Path) -> str:
        return "live" if is_live(run) else "gone"

    def logs(self, run: Path) -> list[Path]:
        return [log] if (log := agent_log(run)).is_file() else []

    def cancel(self, run: Path) -> None:
        """SIGTERM to the agent. Raises NodeUnfit (69) when it runs on another host."""
        holder = read_lease(run)
        if holder is None or not is_live(run):
            return
        if holder.host != socket.gethostname():
            raise NodeUnfit(f"{run.name} runs on {holder.host}, this is {socket.gethostname()}", "cancel it there")
        try:
            os.kill(holder.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass                                               # it has just ended
        except PermissionError:
            raise NodeUnfit(f"{run.name} is another user's process {holder.pid}", "ask its owner to cancel it") from None


class _Relay:
    """Passes this process's signals on to the agent, whichever it is at the time."""

    def __init__(self) -> None:
        self.stopping = False
        self._process: subprocess.Popen[bytes] | None = None
        self._before = {number: signal.signal(number, self._pass_on) for number in _RELAYED}

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(_RELAYED[signal.Signals(number)])

    def run(self, start: Callable[[], subprocess.Popen[bytes]]) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, _RELAYED)     # a signal between the start and its being known would be lost
        try:
            self._process = process = start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _RELAYED)
        return process.wait()

    def sleep(self, seconds: float) -> None:
        """Between two agents; a signal ends it."""
        if seconds and not self.stopping:
            signal.sigtimedwait((), seconds)

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def agent_log(run: Path) -> Path:
    """What a detached agent prints: its own lines and rank 0's."""
    return run / "agent.log"


def _saved(run: Path) -> int:
    """Number of saved steps in the ledger."""
    return sum(row["event"] == "saved" for row in ledger.read(ledger_file(run)))
