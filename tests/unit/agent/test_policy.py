from __future__ import annotations

import pytest

from mltrain.agent.cause import End
from mltrain.agent.policy import Policy


def end(code: int, step: int = -1, trained: int = 0, **fields: str) -> End:
    return End(0, 1, code, 0.0, "compute", step, trained, **fields)


@pytest.mark.parametrize("code", [64, 65, 66, 69, 78])
def test_what_comes_back_is_never_restarted(code: int) -> None:
    assert Policy(16).judge(end(code), 1.0).code == code


@pytest.mark.parametrize("code", [74, 1, 3, 139, -9, -11])
def test_the_rest_is(code: int) -> None:
    assert Policy(16).judge(end(code), 1.0).code is None


def test_a_broken_connection_may_come_back_an_exception_may_not() -> None:
    policy = Policy(16)
    broken, bad = end(70, 5, 1, type="RuntimeError", message="Connection closed by peer"), end(70, 5, 1, type="ValueError", message="bad")
    assert [policy.judge(one, 1.0).code for one in (broken, broken, bad, bad)] == [None, None, None, 70]


def test_an_exception_while_the_ranks_met_is_tried_once_more() -> None:
    """Somebody on the network may have written into torch's store."""
    policy, met = Policy(16), end(1, 0, type="ValueError", message="while the ranks met: basic_string::_M_create")
    assert [policy.judge(one, 1.0).code for one in (met, met)] == [None, 70]
    assert Policy(16).judge(end(1, 0, type="ValueError", message="basic_string::_M_create"), 1.0).code == 70


def test_the_first_restart_is_immediate_then_the_wait_doubles() -> None:
    policy = Policy(16)
    waits = [policy.judge(end(-9), 0.0).wait for _ in range(10)]
    assert waits == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_an_attempt_that_ran_longer_than_the_wait_is_followed_at_once() -> None:
    policy = Policy(16)
    assert [policy.judge(end(-9), seconds).wait for seconds in (0.1, 0.1, 0.5, 3.0, 1.5)] == [0.0, 0.15, 0.0, 0.0, 0.5]


def test_the_budget_ends_with_the_workers_code() -> None:
    policy = Policy(2)
    assert [policy.judge(end(-9), 1.0).code for _ in range(3)] == [None, None, 137]


def test_a_new_saved_step_gives_the_budget_back_an_old_one_does_not() -> None:
    policy = Policy(1)
    policy.saved(10)
    assert policy.judge(end(-9), 1.0).code is None
    policy.saved(11)
    assert policy.judge(end(-9), 1.0).code is None
    policy.saved(11)
    assert policy.judge(end(-9), 1.0).code == 137


def test_an_exception_before_the_first_step_is_not_restarted() -> None:
    assert Policy(16).judge(end(1, step=0, type="ValueError"), 1.0).code == 70
    assert Policy(16, own=True).judge(end(70), 1.0).code == 70


def test_after_a_step_it_is_restarted_once() -> None:
    policy = Policy(16)
    assert policy.judge(end(70, 5, 5, type="ValueError", message="x"), 1.0).code is None
    assert policy.judge(end(70, 5, 0, type="ValueError", message="x"), 1.0).code == 70


@pytest.mark.parametrize("second", [
    end(70, 6, 1, type="ValueError", message="x"), end(70, 5, 1, type="ValueError", message="y"), end(-9, 5, 1)])
def test_another_step_message_or_kind_is_another_failure(second: End) -> None:
    policy = Policy(16)
    policy.judge(end(70, 5, 5, type="ValueError", message="x"), 1.0)
    assert policy.judge(second, 1.0).code is None


@pytest.mark.parametrize(("seconds", "code"), [(5.0, 70), (3600.0, None)])
def test_without_steps_a_like_running_time_stands_for_the_step(seconds: float, code: int | None) -> None:
    policy = Policy(16)
    policy.judge(end(1, type="ValueError", message="x"), 1.0)
    assert policy.judge(end(1, type="ValueError", message="x"), seconds).code == code


def test_a_script_that_cannot_be_imported_is_not_restarted() -> None:
    assert Policy(16).judge(end(1, type="ModuleNotFoundError", message="No module named 'x'"), 0.1).code == 70


def test_steps_that_no_disk_takes_are_not_trained_a_third_time() -> None:
    policy = Policy(16)
    assert [policy.judge(end(74, step=24, trained=24), 1.0).code for _ in range(2)] == [None, 74]


def test_a_storage_that_is_out_of_reach_at_the_start_is_waited_for() -> None:
    policy = Policy(16)
    assert [policy.judge(end(74), 1.0).code for _ in range(5)] == [None] * 5
