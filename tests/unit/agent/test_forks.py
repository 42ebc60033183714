"""Processes forked ahead by a real template (with nothing imported): they take orders at once, and one that has died is passed over."""
from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mltrain.agent.forks import Forks
from mltrain.agent.loop import Loop
from mltrain.agent.tie import adopt_orphans
from mltrain.runs.outcome import pid_lives
from mltrain.runs.pulse import Page

SECONDS = 30


class Bench:
    """A loop with a template, and what an agent does with them."""

    def __init__(self, folder: Path) -> None:
        adopt_orphans()
        self.loop, self.folder, self.notes = Loop(), folder, []
        self.forks = Forks(self.loop, [], [], True, self.notes.append)
        self.forks.start()
        (folder / "script.py").write_text("import os, sys\nopen(sys.argv[1], 'w').write(f'{os.getpid()} {os.environ[\"NAME\"]}')\n")

    def until(self, true: object) -> None:
        give_up = time.monotonic() + SECONDS
        assert callable(true)

        def again() -> None:
            assert time.monotonic() < give_up, "it did not happen"
            self.loop.after(0.01, again)
        again()
        self.loop.run(true)

    def ahead(self, count: int) -> list[int]:
        def ready() -> bool:
            self.forks.keep_ready(count)
            return len(self.forks._ahead) == count
        self.until(ready)
        return [pid for pid, _ in self.forks._ahead]

    def order(self, name: str) -> int:
        """Run the script; its pid, as the agent was told it."""
        born: list[int] = []
        page, null = Page(), os.open(os.devnull, os.O_WRONLY)
        fds = [null, os.dup(null), os.dup(page.fd), os.dup(null)]
        self.forks.order(name, fds, lambda pid, unsent: born.append(pid), kind="worker", env={**os.environ, "NAME": name},
                         argv=[str(self.folder / "script.py"), str(self.folder / name)], module=False)
        self.until(lambda: born and (self.folder / name).exists() and (self.folder / name).read_text().endswith(name))
        page.close()
        assert (self.folder / name).read_text() == f"{born[0]} {name}"
        return born[0]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for pid, control in bench.forks._ahead:
        control.close()
        os.waitpid(pid, 0)
    assert bench.forks._control
    bench.forks._control.close()


def test_an_order_is_taken_by_one_that_waits(bench: Bench) -> None:
    waiting = bench.ahead(2)
    assert bench.order("first") == waiting[0]
    assert [pid for pid, _ in bench.forks._ahead] == waiting[1:]


def test_without_one_the_template_forks(bench: Bench) -> None:
    assert bench.order("plain") > 0


def test_one_that_has_died_is_passed_over(bench: Bench) -> None:
    first, second = bench.ahead(2)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    assert bench.order("second") == second


def test_no_more_are_made_than_wanted(bench: Bench) -> None:
    assert bench.ahead(2) == bench.ahead(2) and all(map(pid_lives, bench.ahead(2)))
