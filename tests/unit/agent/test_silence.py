"""How long a worker may be silent, told with a clock that is only numbers."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mltrain.agent.processes import Process, look, memory_kills
from mltrain.agent.watch.silence import Limits, StepTimes, Watched
from mltrain.agent.watch.stacks import waits_for_others
from mltrain.runs.pulse import Beat

OWN, FOREIGN = Limits.of(None, own=True), Limits.of(None, own=False)
IDLE = Process("S", 0.0, 0.0)
assert OWN and FOREIGN


def steps(seconds: float, count: int = 10) -> tuple[Watched, StepTimes]:
    """A rank that has made `count` steps of so many seconds, the last one just now; its clock begins at 100."""
    watched, times = Watched(100.0), StepTimes()
    for number in range(count + 1):
        now = 100.0 + number * seconds
        watched.look(now, Beat(number + 1, "compute", number), now, 0, None, times)
    return watched, times


@pytest.mark.parametrize(("seconds", "limit"), [(0.02, 5.0), (0.5, 5.0), (2.0, 20.0), (60.0, 600.0)])
def test_in_steps_ten_medians_and_at_least_five_seconds(seconds: float, limit: float) -> None:
    watched, times = steps(seconds)
    assert watched.limit(OWN, times) == pytest.approx(limit)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_first_step_may_compile(count: int) -> None:
    watched, times = steps(0.02, count)
    assert watched.limit(OWN, times) == 300


@pytest.mark.parametrize("phase", ["load", "data", "save", "evaluate", "callback"])
def test_other_phases_have_five_minutes(phase: str) -> None:
    watched, times = steps(0.02)
    watched.look(101.0, Beat(99, phase, 10), 101.0, 0, None, times)
    assert watched.limit(OWN, times) == 300


def test_a_stopped_rank_has_five_seconds_in_any_phase_and_script() -> None:
    watched, times = Watched(0.0), StepTimes()
    for now in (50.0, 54.0):
        watched.look(now, Beat(), 0.0, None, Process("T", 0.0, 0.0), times)
    assert (watched.limit(FOREIGN, times), watched.silent(54.0, FOREIGN)) == (5.0, 4.0)


def test_a_rank_that_is_stopped_at_each_look_but_beats_between_them_is_slow_not_hung() -> None:
    watched, times = Watched(0.0), StepTimes()
    for now in range(50, 60):
        watched.look(now, Beat(now, "compute", now), now - 0.5, 0, Process("T", 0.0, 0.0), times)
    assert watched.silent(59.0, OWN) == 0.0


@pytest.mark.parametrize(("wanted", "own", "floor", "other"), [
    (None, True, 5, 300), (None, False, 300, 300), (30, True, 30, 300), (600, True, 600, 600), (30, False, 30, 30)])
def test_the_option(wanted: float | None, own: bool, floor: float, other: float) -> None:
    limits = Limits.of(wanted, own)
    assert limits and (limits.floor, limits.other) == (floor, other)
    assert Limits.of(0, own) is None


def test_processor_time_is_a_sign_of_life_outside_of_steps_alone() -> None:
    for phase, silent in (("evaluate", 0.0), ("collective", 10.0)):
        watched, times = steps(0.02)
        watched.look(200.0, Beat(99, phase, 10), 200.0, 0, IDLE, times)
        watched.count(200.0, 1.0)
        watched.look(210.0, Beat(99, phase, 10), 200.0, 0, Process("R", 9.0, 9.0), times)
        watched.count(210.0, 1.0)
        assert watched.silent(210.0, OWN) == silent


def test_a_rank_that_computes_in_a_step_may_be_compiling_but_not_for_ever() -> None:
    watched, times = steps(0.02)
    for second in range(0, 400, 10):
        now = 200.0 + second
        watched.look(now, Beat(99, "compute", 10), 200.0, 0, Process("R", float(second), float(second)), times)
        watched.count(now, 1.0)
        assert watched.silent(now, OWN) == (0.0 if second < 300 else second)


def test_a_process_is_seen_with_its_children() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
                              "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout and child.stdin
    child.stdout.readline()
    seen, ours = look(child.pid), look(os.getpid())
    assert seen and ours and seen.state in "SR" and seen.own >= 0.3 and ours.cpu >= ours.own + 0.3
    child.communicate(b"\n")
    assert look(child.pid) is None and memory_kills() >= 0


@pytest.mark.parametrize(("innermost", "waits"), [
    ('File "/x/torch/distributed/distributed_c10d.py", line 3 in all_reduce', True),
    ('File "/x/torch/autograd/graph.py", line 9 in _engine_run_backward', True),
    ('File "train.py", line 4 in forward', False), ('File "/x/torch/nn/modules/linear.py", line 4 in forward', False)])
def test_a_stack_tells_who_waits(innermost: str, waits: bool) -> None:
    dump = ('Thread 0x1 (most recent call first):\n  File "/x/threading.py", line 1 in wait\n\n'
            f'Current thread 0x2 (most recent call first):\n  {innermost}\n  File "train.py", line 1 in <module>\n')
    assert waits_for_others(dump) is waits
