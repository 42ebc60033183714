from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from mltrain.agent.chaos import KINDS, Fault, disturb, plan
from mltrain.errors import UsageError
from mltrain.runs.pulse import PAGE_VARIABLE, Page, page_of


def test_a_seed_is_its_faults() -> None:
    assert [*islice(plan(7, KINDS), 40)] == [*islice(plan(7, KINDS), 40)] != [*islice(plan(8, KINDS), 40)]
    assert [fault.kind for fault in islice(plan(7, KINDS), 4)] == ["exit", "kill", "stop", "slow"]


def test_each_kind_comes_before_any_comes_again() -> None:
    drawn: list[Fault] = [*islice(plan(1, KINDS), 12)]
    assert all({fault.kind for fault in drawn[start:start + 4]} == set(KINDS) for start in (0, 4, 8))


@pytest.mark.parametrize(("kinds", "message"), [(["melt"], "'melt' is no kind of fault"), ([], "'' is no kind"), (["kill"], "is not live")])
def test_what_cannot_be_done_is_said(tmp_path: Path, kinds: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        [*disturb(tmp_path, 0, kinds, 1.0, None)]


def test_a_worker_leaves_at_its_next_beat_with_the_code_that_was_ordered() -> None:
    page = Page()
    script = "import sys; from mltrain.runs.pulse import Pulse; p = Pulse.from_environment(); p.beat('compute', 1); print(flush=True)\n" \
             "for line in sys.stdin: p.beat('compute', 2)"
    worker = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[page.fd],
                              env={**os.environ, PAGE_VARIABLE: str(page.fd)})
    assert worker.stdout and worker.stdin
    worker.stdout.readline()
    other = page_of(worker.pid)
    assert other and other.read().step == 1
    other.order_exit(74)
    other.close()
    worker.communicate(b"\n", timeout=20)
    assert worker.returncode == 74
    page.close()
