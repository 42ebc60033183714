"""Who is named as slow, and who is not: ranks whose work is made up, looked at once a second."""
from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mltrain.agent.watch.stragglers import DEFAULT_SECONDS, Change, Stragglers, Work

Spend = Callable[[int, int], tuple[float, float, float, float]]      # (rank, second) -> compute, data, other, starved: seconds a step


def changes(ranks: int, seconds: int, spend: Spend, steps: int = 10) -> list[tuple[int, Change]]:
    """What is said in the course of a run of so many steps a second: (second, change)."""
    watch, works, found = Stragglers(), {rank: Work(0, 0, 0, 0, 0) for rank in range(ranks)}, []
    for second in range(seconds):
        found += [(second, change) for change in watch.look(float(second), dict(works))]
        for rank, work in works.items():
            parts = spend(rank, second)
            works[rank] = Work(work.step + steps, *(done + steps * part for done, part in zip(work[1:], parts, strict=True)))
    return found


@pytest.mark.parametrize("phase", ["compute", "data", "other"])
@pytest.mark.parametrize("ranks", [2, 3, 16])
def test_a_slow_rank_is_named_with_ratio_and_phase(ranks: int, phase: str) -> None:
    def spend(rank: int, second: int) -> tuple[float, float, float, float]:
        more = {name: 0.03 if name == phase and rank == 1 else 0.0 for name in ("compute", "data", "other")}
        return 0.03 + more["compute"], more["data"], more["other"], 0.0
    (second, change), = changes(ranks, 120, spend)
    assert change.slow and (change.slow.rank, change.slow.phase) == (1, phase) and change.slow.ratio == pytest.approx(2.0)
    assert second <= DEFAULT_SECONDS + 5
    assert change.slow.describe() == f"60 ms a step where the others need 30 ms (2.0 times), in phase {phase}"


def test_one_that_recovers_is_said_to_be_over_and_may_be_named_again() -> None:
    def spend(rank: int, second: int) -> tuple[float, float, float, float]:
        return (0.06 if rank == 0 and not 60 <= second < 150 else 0.03), 0.0, 0.0, 0.0
    said = [change.slow.rank if change.slow else f"{change.over} over" for _, change in changes(4, 240, spend)]
    assert said == [0, "0 over", 0]


def test_a_pause_names_nobody() -> None:
    """Ten seconds of swapping, of a log rotation, of a garbage collection."""
    assert changes(4, 200, lambda rank, second: (0.09 if rank == 2 and second % 60 < 10 else 0.03, 0.0, 0.0, 0.0)) == []


def test_a_small_difference_names_nobody() -> None:
    """A first rank that writes the logs; a rank whose work is twice that of the others, but of no weight in a step of 100 ms."""
    assert changes(4, 200, lambda rank, second: (0.05 + 0.004 * (rank == 0), 0.0, 0.0, 0.0)) == []
    assert changes(4, 200, lambda rank, second: (0.008 if rank == 3 else 0.004, 0.0, 0.0, 0.0)) == []


def test_all_ranks_of_a_slow_host_are_named() -> None:
    """Half of the ranks, as in a run on two hosts: each does the same work, so the slower half lags."""
    said = changes(16, 60, lambda rank, second: (0.06 if rank >= 8 else 0.03, 0.0, 0.0, 0.0))
    assert [change.slow.rank for _, change in said if change.slow] == list(range(8, 16))


def test_without_a_processor_for_long_is_named_as_that() -> None:
    (second, change), = changes(2, 200, lambda rank, second: (0.08 if rank == 1 else 0.03, 0.0, 0.0, 0.05 if rank == 1 else 0.0))
    assert change.slow and change.slow.phase == "processor" and "taken by other work" in change.slow.describe() and second >= 70
    assert changes(2, 200, lambda rank, second: (0.08 if rank == 1 and second % 60 < 40 else 0.03, 0.0, 0.0, 0.05 * (rank == 1))) == []


@pytest.mark.parametrize("ranks", [2, 4, 64])
def test_noise_names_nobody(ranks: int) -> None:
    """Every second of every rank is anything from its time to twice that, now and then four times."""
    draw = random.Random(ranks)
    seconds = 7200 if ranks < 10 else 600
    assert changes(ranks, seconds, lambda rank, second: (0.03 * draw.choice([1, 1, 1.2, 1.5, 2, 4]), 0.0, 0.0, 0.0)) == []


def test_slow_steps_need_as_many_steps_not_seconds() -> None:
    def spend(rank: int, second: int) -> tuple[float, float, float, float]:
        return (0.9 if rank else 0.4), 0.0, 0.0, 0.0
    (second, _), = changes(2, 200, spend, steps=1)
    assert 50 <= second <= 70


def test_ranks_that_come_and_go_begin_anew() -> None:
    watch = Stragglers(within=5.0)
    for second in range(30):
        works = {rank: Work(20 * second, (1.0 + rank) * second, 0.0, 0.0, 0.0) for rank in range(2 + second % 2)}
        assert watch.look(float(second), works) == []


def test_one_rank_alone_is_never_slow() -> None:
    assert changes(1, 100, lambda rank, second: (0.1, 0.0, 0.0, 0.0)) == []
