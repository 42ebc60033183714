"""The order of samples is a permutation in every epoch, a function of the position alone, and as good as a shuffle."""
from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrain.data.order import SampleOrder, Sequential, Without
from mltrain.errors import DataError

AROUND_POWERS = st.builds(lambda k, d: 2**k + d, st.integers(1, 16), st.sampled_from([-1, 0, 1]))
SIZES = st.one_of(st.integers(1, 300), AROUND_POWERS, st.integers(1, 70_000))


@settings(max_examples=150)
@given(SIZES, st.integers(0, 2**63), st.integers(0, 5))
def test_every_epoch_has_each_sample_once(n, seed, epoch):
    ids = SampleOrder(n, seed).ids(epoch * n, (epoch + 1) * n)
    assert np.array_equal(np.bincount(ids, minlength=n), np.ones(n, int))


def test_the_order_is_what_it_was():
    """Runs that began with an older version go on with this one: these numbers may never change."""
    assert SampleOrder(10, 1).ids(0, 20).tolist() == [1, 3, 2, 7, 0, 9, 6, 5, 4, 8, 8, 0, 9, 6, 4, 1, 7, 3, 5, 2]
    assert SampleOrder(1_000_003, 7).ids(5, 11).tolist() == [133858, 977840, 318338, 286879, 473615, 46315]
    assert SampleOrder(10**12, 42).ids(7 * 10**11, 7 * 10**11 + 4).tolist() == [440133232547, 151690467565, 106641313317, 818598406778]


@settings(max_examples=60)
@given(st.integers(1, 500), st.integers(0, 2000), st.integers(0, 300))
def test_any_part_is_a_part_of_the_whole(n, start, length):
    whole = SampleOrder(n, 3).ids(0, start + length)
    assert np.array_equal(SampleOrder(n, 3).ids(start, start + length), whole[start:])


def test_positions_may_come_in_any_order():
    order, positions = SampleOrder(17, 5), np.array([40, 3, 3, 16, 17, 0])
    assert order.at(positions).tolist() == order.ids(0, 41)[positions].tolist()


def test_epoch_one_of_a_seed_is_not_epoch_zero_of_the_next():
    assert SampleOrder(1000, 1).ids(1000, 2000).tolist() != SampleOrder(1000, 2).ids(0, 1000).tolist()


def quality(ids: np.ndarray) -> dict[str, float]:
    """z scores of a permutation: correlation of neighbours, number of rises, filling of a grid of 100 x 100."""
    n, g = len(ids), 100
    u = ids / n - 0.5
    cells = np.bincount(np.arange(n) * g // n * g + ids * g // n, minlength=g * g)
    freedom = (g - 1) ** 2
    return {"neighbours": (u[:-1] * u[1:]).mean() * 12 * n**0.5, "rises": ((np.diff(ids) > 0).sum() - (n - 1) / 2) / ((n + 1) / 12) ** 0.5,
            "grid": (((cells - n / g / g) ** 2).sum() / (n / g / g) - freedom) / (2 * freedom) ** 0.5}


@pytest.mark.parametrize("n", [262_144, 200_003])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_looks_like_a_shuffle(n, seed):
    assert max(map(abs, quality(SampleOrder(n, seed).ids(0, n)).values())) < 4


def test_two_rounds_would_not():
    assert max(map(abs, quality(SampleOrder(200_003, 1, rounds=2).ids(0, 200_003)).values())) > 10


@pytest.mark.parametrize("other", [(1, 1), (2, 0)], ids=["epoch", "seed"])
def test_epochs_and_seeds_are_unrelated(other):
    n, (seed, epoch) = 100_003, other
    ids = SampleOrder(n, seed).ids(epoch * n, (epoch + 1) * n)
    assert abs(np.corrcoef(SampleOrder(n, 1).ids(0, n), ids)[0, 1]) * n**0.5 < 4


def test_nothing_of_the_size_of_the_data_is_built():
    order = SampleOrder(10**12, 1)
    tracemalloc.start()
    order.ids(7 * 10**11, 7 * 10**11 + 1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def seconds_for(n: int, start: int) -> float:
    order, times = SampleOrder(n, 1), []
    for _ in range(9):
        began = time.perf_counter()
        order.ids(start, start + 1024)
        times.append(time.perf_counter() - began)
    return min(times)


def test_a_late_position_of_a_large_dataset_costs_what_the_first_of_a_small_one_does():
    assert seconds_for(10**12, 7 * 10**14) < 4 * seconds_for(10**6, 0)


def test_sequential_counts_and_begins_again():
    assert Sequential(3).ids(1, 8).tolist() == [1, 2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize("n", [0, -1, 2**52 + 1])
def test_a_dataset_without_samples_has_no_order(n):
    with pytest.raises(DataError, match="1 to 2"):
        SampleOrder(n)


def test_positions_that_are_left_out_are_passed_over():
    order = Without(Sequential(100), [(20, 30), (4, 8)])
    assert order.ids(0, 20).tolist() == [0, 1, 2, 3, *range(8, 20), *range(30, 34)]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=6))
def test_ranges_may_overlap_and_repeat(ranges):
    left_out = {position for begin, length in ranges for position in range(begin, begin + length)}
    order = Without(SampleOrder(50, seed=3), [(begin, begin + length) for begin, length in ranges])
    kept = [position for position in range(200) if position not in left_out]
    assert order.places(np.arange(100)).tolist() == kept[:100]
    assert order.ids(7, 90).tolist() == SampleOrder(50, seed=3).at(np.array(kept[7:90])).tolist()
