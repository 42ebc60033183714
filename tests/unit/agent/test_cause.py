from __future__ import annotations

import pytest

from mltrain.agent.cause import HUNG, NO_MEMORY, End, pick

PEER = "Connection closed by peer [127.0.0.1]:24969"


def end(rank: int, code: int, moment: float = 0.0, **fields: object) -> End:
    return End(rank=rank, pid=100 + rank, code=code, moment=moment, **fields)     # type: ignore[arg-type]


@pytest.mark.parametrize(("ends", "rank", "echoes"), [
    ([end(0, 1, 1.0), end(1, 1, 2.0)], 0, 1),
    ([end(0, 1, 2.0), end(1, 1, 1.0)], 1, 1),
    ([end(0, 1, 1.0, type="RuntimeError", message=PEER), end(1, -9, 2.0)], 1, 1),
    ([end(0, 1, 1.0, type="RuntimeError", message=PEER), end(1, 1, 2.0, type="ValueError", message="bad")], 1, 1),
    ([end(0, 1, 2.0, type="RuntimeError", message=PEER), end(1, 1, 1.0, type="RuntimeError", message=PEER)], 1, 1),
    ([end(0, 0), end(1, 75), end(2, 3)], 2, 0),
])
def test_the_cause_is_the_first_failure_that_is_no_echo(ends: list[End], rank: int, echoes: int) -> None:
    cause, others = pick(ends)
    assert (cause.rank, others) == (rank, echoes)


@pytest.mark.parametrize(("code", "kind", "exit_code"), [
    (-9, "", 137), (-15, "", 143), (3, "", 3), (1, "", 1), (1, "ValueError", 70), (70, "", 70), (78, "ConfigError", 78)])
def test_exit_codes_of_the_run(code: int, kind: str, exit_code: int) -> None:
    assert end(0, code, type=kind).exit_code == exit_code


@pytest.mark.parametrize(("one", "text"), [
    (end(1, -9, step=17, phase="compute"), "rank 1 (pid 101) killed by SIGKILL at step 17, phase compute"),
    (end(1, -9), "rank 1 (pid 101) killed by SIGKILL"),
    (end(0, 3), "rank 0 (pid 100) exited with 3"),
    (end(0, 1, step=3, phase="load", type="ValueError", message="bad\nbatch", where="a.py:7"),
     "rank 0 (pid 100) exited with 1: ValueError: bad (a.py:7), at step 3, phase load"),
    (end(1, -9, step=17, phase="compute", type=HUNG, message="silent for 5.1 s", stack="attempts/0001/stack-rank-1.txt"),
     "rank 1 (pid 101) hung at step 17, phase compute: silent for 5.1 s; its stack: attempts/0001/stack-rank-1.txt"),
    (end(1, -9, step=17, phase="compute", type=NO_MEMORY),
     "rank 1 (pid 101) killed by the kernel: out of memory, at step 17, phase compute"),
    (end(0, -64), "rank 0 (pid 100) killed by SIGRTMAX"),
])
def test_one_line_says_who_how_and_where(one: End, text: str) -> None:
    assert one.describe() == text


@pytest.mark.parametrize(("message", "kind"), [
    (PEER, "network"), ("[Errno 28] No space left on device", "storage"),
    ("[Errno 27] File too large: 'x'", "storage"), ("bad", "exception")])
def test_the_class_of_an_exception(message: str, kind: str) -> None:
    assert end(0, 1, type="OSError", message=message).kind == kind


def test_a_row_holds_what_is_known() -> None:
    assert end(1, -9).row() == {"kind": "signal", "rank": 1, "pid": 101, "code": -9, "phase": "none", "step": -1, "trained": 0}


@pytest.mark.parametrize(("one", "kind"), [
    (end(0, -9, type=HUNG), "hang"), (end(0, -9, type=NO_MEMORY), "out of memory"), (end(0, 70, type="OutOfMemoryError"), "out of memory"),
    (end(0, 1, type="ModuleNotFoundError"), "import"), (end(0, 1, type="ValueError"), "exception"), (end(0, 74), "storage"),
    (end(0, 70, type="TaskError", message="step 3: loss nan, gradient norm 0.1: no update was made"), "numerics"),
    (end(0, 70, type="TaskError", message="step 18: loss spike: 93.1, 40.2 spreads above the last 16: back to step 12"), "numerics"),
    (end(2, 70, type="TaskError", message="step 20: the state of rank 2 differs from its replicas'; back to step 10"), "corruption"),
    (end(0, 70, type="TaskError", message="the task has no parameter"), "exception"), (end(0, -9), "signal"), (end(0, 3), "exit")])
def test_the_class_of_a_failure(one: End, kind: str) -> None:
    assert one.kind == kind
