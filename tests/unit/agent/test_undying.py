from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from mltrain.agent import undying as module
from mltrain.agent.loop import Loop
from mltrain.agent.undying import Undying, stuck

# A parent whose child was made with CLONE_VFORK waits uninterruptibly until that child ends.
CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
WAITS = f"import ctypes, signal, time; ctypes.CDLL(None).syscall({CLONE}, 0x4000 | signal.SIGCHLD, 0, 0, 0, 0) or time.sleep(1000)"
SLEEPS = "import time; time.sleep(1000)"
WORKS = "while True: pass"


@contextmanager
def process(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """Sent no signal: like one that SIGKILL does not end."""
    with subprocess.Popen([sys.executable, "-c", "print(flush=True)\n" + code], stdout=subprocess.PIPE, start_new_session=True) as each:
        assert each.stdout is not None and each.stdout.readline()
        try:
            yield each
        finally:
            with suppress(ProcessLookupError):
                os.killpg(each.pid, 9)


def given_up(pid: int, seconds: float = 60, before: Callable[[Loop, Undying], None] | None = None) -> tuple[list[tuple[int, str]], float]:
    """Who is given up within so many seconds, and after how long."""
    loop, found, began = Loop(), [], time.monotonic()
    undying = Undying(loop, lambda *end: found.append(end))
    undying.expect(pid)
    if before:
        before(loop, undying)
    loop.after(seconds, lambda: None)
    loop.run(lambda: bool(found) or time.monotonic() - began >= seconds)
    return found, time.monotonic() - began


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STUCK_SECONDS", 0.4)
    monkeypatch.setattr(module, "ENDING_SECONDS", 1.0)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)


def test_one_stuck_in_the_kernel_is_given_up_soon_and_told_where():
    with process(WAITS) as waits:
        while not stuck(waits.pid):
            time.sleep(0.01)
        found, seconds = given_up(waits.pid)
    assert found[0][0] == waits.pid and 0.3 < seconds
    assert found[0][1].startswith("SIGKILL has not ended it within 0.") and "uninterruptible wait of the kernel (state D)" in found[0][1]


def test_one_that_does_nothing_gets_longer():
    with process(SLEEPS) as sleeps:
        found, seconds = given_up(sleeps.pid)
    assert found[0][1].endswith("state S") and seconds > 0.9


def test_one_that_uses_processor_time_is_left_to_it_up_to_a_limit(monkeypatch: pytest.MonkeyPatch):
    with process(WORKS) as works:
        assert given_up(works.pid, 2)[0] == []
        monkeypatch.setattr(module, "LONGEST_SECONDS", 1.0)
        assert given_up(works.pid)[0][0][1].endswith("state R")


def test_one_that_died_is_not_given_up_nor_one_forgotten():
    with process(SLEEPS) as sleeps:
        assert given_up(sleeps.pid, 1.5, lambda loop, undying: loop.after(0.5, lambda: undying.forget(sleeps.pid)))[0] == []
        sleeps.kill()
        sleeps.wait()
        assert given_up(sleeps.pid, 1.5)[0] == []


def test_our_own_standstill_does_not_count(monkeypatch: pytest.MonkeyPatch):
    """Everything was stopped, and goes on: they had no time to die."""
    with process(SLEEPS) as sleeps:
        monkeypatch.setattr(module, "ENDING_SECONDS", 2.0)
        assert given_up(sleeps.pid, 2.4, lambda loop, undying: loop.after(0, lambda: time.sleep(2.0)))[0] == []
