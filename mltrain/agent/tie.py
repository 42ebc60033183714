"""Ties a process to the agent: it dies when the agent dies, however that happens. Also the small program that plain commands start through:

    python -I -S tie.py AGENT_PID COMMAND...
"""
from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def adopt_orphans() -> None:
    """Make this process the parent of all descendants whose parents have gone: the agent becomes the parent of workers forked by the
    template."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """The kernel sends this signal when our parent dies."""
    _prctl(_SET_PDEATHSIG, number)


def tie_to(agent: int) -> None:
    """Die with the agent. Set only after the kernel has made the agent our parent: the exit of the process between would fire it."""
    give_up = time.monotonic() + 5
    while os.getppid() != agent:
        if time.monotonic() > give_up:
            os._exit(69)
        time.sleep(0.0002)
    die_with_parent()
    if os.getppid() != agent:                                  # it died just before the call
        os._exit(69)


def main() -> None:
    tie_to(int(sys.argv[1]))
    command = sys.argv[2:]
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"mltrain: cannot start {command[0]}: {error.strerror}", file=sys.stderr)
        raise SystemExit(78) from None


if __name__ == "__main__":
    main()
