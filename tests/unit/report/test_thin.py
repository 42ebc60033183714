from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from mltrain.report.thin import thin


@settings(max_examples=60)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(2, 50))
def test_no_spike_is_lost_and_the_ends_stay(values, points):
    line = thin(range(1, len(values) + 1), values, points)
    low, high = line.low or line.values, line.high or line.values
    assert (line.steps[0], line.steps[-1]) == (1, len(values))
    assert len(line.steps) == len(line.values) <= max(points, 2)
    assert math.isclose(min(low), min(values), rel_tol=1e-5, abs_tol=1e-12)
    assert math.isclose(max(high), max(values), rel_tol=1e-5, abs_tol=1e-12)


def test_what_is_no_number_is_left_out_or_named():
    line = thin([1, 2, 3, 4, 5], [1.0, None, math.nan, math.inf, "text"])
    assert (line.steps, line.values, line.lost) == ([1], [1.0], [3, 4])
