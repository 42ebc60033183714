"""The workers of one node in one attempt: started by a fork of the template or by plain spawn, watched by pidfd, ended by SIGKILL,
left behind where even that does not end them (`undying.py`).

What a dead worker leaves (phase, step, exception) is read from its pulse page. The agent's callbacks: `ended(End)` for each worker,
`reported(row)` for each line a worker sends for the ledger; `empty` is true when all are gone.
"""
from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mltrain.agent import tie
from mltrain.agent.cause import GRACEFUL, HUNG, NO_MEMORY, End
from mltrain.agent.forks import START, Forks
from mltrain.agent.journal import say
from mltrain.agent.loop import Loop
from mltrain.agent.output import Output
from mltrain.agent.processes import memory_kills
from mltrain.agent.retreat import LEAVE, OUT, OUT_SECONDS
from mltrain.agent.undying import Undying
from mltrain.runs.pulse import PAGE_VARIABLE, REPORT_VARIABLE, Beat, Page, Spent

_PACKET = 1 << 17        # more than the longest report


@dataclass(frozen=True, slots=True)
class Command:
    """What a worker runs. argv: the whole command, for a fresh process. script: path or module name and its arguments if a fork of the
    template can run it, else empty."""

    argv: list[str]
    script: list[str] = field(default_factory=list)
    module: bool = False


@dataclass
class Worker:
    """One process of the attempt. pid 0: ordered from the template under `key`, not yet born."""

    rank: int
    page: Page
    reports: socket.socket
    error_file: str = ""                 # where torch.distributed.elastic's @record writes
    pid: int = 0
    pidfd: int = -1
    key: str = ""
    hang: str = ""                       # why it was ended as hung
    hung_at: Beat | None = None          # where it was then: a stopped one goes on for a moment to write its stack
    stack: str = ""                      # where its stack is kept
    silent: float = 0.0                  # how long it had been then
    control: socket.socket | None = None                       # by which it may be called back

    def send(self, number: signal.Signals) -> None:
        """To the process alone: its data loaders are its own affair. SIGKILL goes to the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        if number == signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


class Workers:
    """All workers of one attempt after another."""

    def __init__(self, loop: Loop, forks: Forks, output: Output, ended: Callable[[End], None],
                 reported: Callable[[dict[str, Any]], None], again: bool = False) -> None:
        """again: workers that did not fail are called back, to serve in the next attempt."""
        self._again = again
        self._loop, self._forks, self._output, self._ended, self._reported = loop, forks, output, ended, reported
        self.running: dict[int, Worker] = {}
        self._last: dict[int, tuple[int, Beat]] = {}           # of the attempt's dead
        self._spent: dict[int, Spent] = {}                     # of these
        self._begun: tuple[int, float] | None = None
        self._memory_kills = 0                                 # of the kernel, when the attempt began
        self._undying = Undying(loop, self._leave_behind)

    @property
    def empty(self) -> bool:
        return not self.running

    def clear(self) -> None:
        """Before the first worker of an attempt."""
        self._last, self._spent, self._begun, self._memory_kills = {}, {}, None, memory_kills()

    def start(self, rank: int, command: Command, environment: dict[str, str], attempt: int) -> None:
        """One more worker. Forked if the template is there (or worth waiting for), else spawned."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        worker = self.running[rank] = Worker(rank, Page(), ours, environment.get("TORCHELASTIC_ERROR_FILE", ""))
        self._loop.watch(ours.fileno(), lambda: self._reports(worker))
        streams = self._output.open(rank, int(environment["LOCAL_RANK"]), attempt)
        fds = [*streams, os.dup(worker.page.fd), theirs.detach()]
        if command.script and self._forks.wanted:
            worker.key = key = f"{attempt}/{rank}"
            if self._again:
                fds.append(self._line_to(worker))

            def born(pid: int, unsent: list[int]) -> None:
                if unsent:
                    self._spawn(worker, command, environment, unsent)
                else:
                    self._born(worker, pid)

            self._forks.order(key, fds, born, kind="worker", env=environment, argv=command.script, module=command.module,
                              again=self._again)
        else:
            self._spawn(worker, command, environment, fds)

    def _spawn(self, worker: Worker, command: Command, environment: dict[str, str], fds: list[int]) -> None:
        """A fresh process that dies with the agent: our own runner for a Python script (it notes the exception), else tie.py and the
        command."""
        page, reports = fds[2], fds[3]                         # a fifth, for calling it back, is closed: it ends after its attempt
        environment = {**environment, PAGE_VARIABLE: str(page), REPORT_VARIABLE: str(reports)}
        if command.script:
            order = json.dumps({"agent": os.getpid(), "argv": command.script, "module": command.module})
            argv = [sys.executable, "-c", START, "run", order]
        else:
            argv = [sys.executable, "-I", "-S", tie.__file__, str(os.getpid()), *command.argv]
        process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=fds[0], stderr=fds[1], pass_fds=(page, reports),
                                   start_new_session=True)
        process.returncode = 0                                 # we wait for it ourselves, by pidfd
        for fd in fds:
            os.close(fd)
        self._born(worker, process.pid)

    def _born(self, worker: Worker, pid: int) -> None:
        if pid == 0:
            self._ended(self._gone(worker, 1, "the template process died before it had forked this worker"))
            return
        worker.pid, worker.pidfd = pid, os.pidfd_open(pid)     # our child and not yet waited for: the number cannot be another's
        self._loop.watch(worker.pidfd, lambda: self._exited(worker))

    def _line_to(self, worker: Worker) -> int:
        """The worker's end of a line by which it is called back."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker.control = ours
        self._loop.watch(ours.fileno(), lambda: self._out(worker))
        return theirs.detach()

    def call_back(self) -> None:
        """To all, in place of SIGKILL: come out of this attempt. Whoever cannot be called is killed, and whoever is not out in time."""
        for worker in list(self.running.values()):
            if worker.control is None or not worker.pid or worker.hang:
                self._send(worker, signal.SIGKILL)
                continue
            try:
                worker.control.send(LEAVE)
            except OSError:                                    # it is dying
                self.kill(worker)
            else:
                self._loop.after(OUT_SECONDS, functools.partial(self._too_late, worker))

    def _too_late(self, worker: Worker) -> None:
        if self.running.get(worker.rank) is worker:
            self.kill(worker)

    def _out(self, worker: Worker) -> None:
        """It is out, or its end of the line is closed."""
        assert worker.control is not None
        self._loop.forget(worker.control.fileno())
        try:
            said = worker.control.recv(len(OUT))
        except OSError:
            said = b""
        if said != OUT or worker.pidfd < 0:
            worker.control.close()
            worker.control = None
            return
        control, worker.control = worker.control, None
        self._loop.forget(worker.pidfd)
        os.close(worker.pidfd)
        self._forks.adopt(worker.pid, control)
        self._ended(self._gone(worker, -signal.SIGKILL))

    def send(self, number: signal.Signals) -> None:
        """To all. Whoever is not yet born will not be: it counts as ended by that signal."""
        for worker in list(self.running.values()):
            self._send(worker, number)

    def _send(self, worker: Worker, number: signal.Signals) -> None:
        if worker.pid and number == signal.SIGKILL:
            self.kill(worker)
        elif worker.pid:
            worker.send(number)
        else:
            self._forks.forget(worker.key)
            self._ended(self._gone(worker, -number))

    def kill(self, worker: Worker) -> None:
        """SIGKILL. Should that not end it, it is left behind: nobody waits for it."""
        worker.send(signal.SIGKILL)
        self._undying.expect(worker.pid)

    def _leave_behind(self, pid: int, why: str) -> None:
        worker = next(worker for worker in self.running.values() if worker.pid == pid)
        say(f"rank {worker.rank} (pid {pid}) is left behind: {why}")
        self._reported({"rank": worker.rank, "event": "left behind", "pid": pid, "reason": why})
        self._loop.forget(worker.pidfd)
        os.close(worker.pidfd)                                 # when it dies after all, it goes with the orphans
        self._ended(self._gone(worker, -signal.SIGKILL))

    def beats(self) -> dict[int, tuple[int, Beat]]:
        """rank -> (pid, newest beat), the last one of those that are dead."""
        living = {rank: (worker.pid, worker.page.read()) for rank, worker in self.running.items()}
        return dict(sorted({**self._last, **living}.items()))

    def spent(self) -> dict[int, Spent]:
        """rank -> its account, of the dead as of the living."""
        return dict(sorted({**self._spent, **{rank: worker.page.spent() for rank, worker in self.running.items()}}.items()))

    def begun(self) -> tuple[int, float] | None:
        """(step, time.monotonic) at which this attempt began to train; None if it has not."""
        if self._begun is None:
            self._begun = next((begin for _, worker in sorted(self.running.items()) if (begin := worker.page.begin())), None)
        return self._begun

    def dead_already(self) -> list[End]:
        """Of workers that have died but whose death is not the next event yet: their order of death is not that of our events."""
        found = []
        for worker in [worker for worker in self.running.values() if worker.pidfd >= 0]:
            if os.waitid(os.P_PIDFD, worker.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                found.append(self._reap(worker))
        return found

    def exceptions(self) -> list[End]:
        """Of workers that still live but have noted an exception: on their way out, and perhaps the cause of another's death."""
        return [self._end(worker, worker.page.record()["code"]) for worker in self.running.values() if worker.page.record()]

    def _reports(self, worker: Worker) -> None:
        self._receive(worker)

    def _receive(self, worker: Worker) -> bool:
        """One report. False when nothing is left."""
        try:
            data = worker.reports.recv(_PACKET)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            with contextlib.suppress(KeyError):
                self._loop.forget(worker.reports.fileno())
            return False
        with contextlib.suppress(ValueError):                  # not ours: somebody else wrote to that descriptor
            row = json.loads(data)
            if isinstance(row, dict) and isinstance(row.get("event"), str):
                self._reported({"rank": worker.rank, **row})
        return True

    def _exited(self, worker: Worker) -> None:
        self._ended(self._reap(worker))

    def _reap(self, worker: Worker) -> End:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)              # its data-loader children; before the wait, which frees the number
        self._loop.forget(worker.pidfd)
        result = os.waitid(os.P_PIDFD, worker.pidfd, os.WEXITED)
        os.close(worker.pidfd)
        status = result.si_status if result else 0
        return self._gone(worker, status if result and result.si_code == os.CLD_EXITED else -status)

    def _gone(self, worker: Worker, code: int, message: str = "") -> End:
        self._undying.forget(worker.pid)
        while self._receive(worker):                           # what it said before it died counts
            pass
        with contextlib.suppress(KeyError, ValueError):
            self._loop.forget(worker.reports.fileno())
        worker.reports.close()
        if worker.control:
            self._loop.forget(worker.control.fileno())
            worker.control.close()
        self._output.close(worker.rank)
        del self.running[worker.rank]
        end = self._end(worker, code, message)
        self._begun = self._begun or worker.page.begin()
        self._last[worker.rank], self._spent[worker.rank] = (worker.pid, worker.page.read()), worker.page.spent()
        worker.page.close()
        return end

    def _end(self, worker: Worker, code: int, message: str = "") -> End:
        beat, begin = worker.hung_at or worker.page.read(), worker.page.begin()
        record = {} if code in GRACEFUL else worker.page.record() or _error_file(worker.error_file)
        if code == -signal.SIGKILL:
            if worker.hang:
                record = {"type": HUNG, "message": worker.hang}
            elif not record and memory_kills() > self._memory_kills:
                record = {"type": NO_MEMORY}
        trained = beat.step - begin[0] if begin else 0
        return End(worker.rank, worker.pid, code, record.get("moment", time.monotonic()), beat.phase, beat.step, trained,
                   record.get("type", ""), record.get("message", message), record.get("where", ""), worker.stack, silent=worker.silent)

    def reap_orphans(self) -> None:
        """The agent adopts what dead workers leave (data loaders, stores). Not while a new worker's pid is still on its way."""
        known = {worker.pid for worker in self.running.values()}
        with contextlib.suppress(ChildProcessError):
            while not self._forks.pending:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if info is None or info.si_pid in known:
                    return
                os.waitpid(info.si_pid, 0)


def _error_file(path: str) -> dict[str, Any]:
    """What @record of torch.distributed.elastic wrote: for programs that are not run by us, the one trace of an exception."""
    try:
        with open(path) as file:
            name, _, message = json.load(file)["message"]["message"].partition(": ")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {"type": name, "message": message[:600]}
