"""Schedules are pure functions of the step."""
from __future__ import annotations

import pytest

from mltrain.errors import ConfigError
from mltrain.optim.schedules import constant, cosine, linear, wsd


def test_warm_up_rises_to_one() -> None:
    assert [constant(10, warmup=4)(s) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear_ends_at_final() -> None:
    assert [round(linear(10, final=0.5)(s), 6) for s in (0, 5, 10)] == [1.0, 0.75, 0.5]


def test_cosine_is_half_a_wave() -> None:
    assert [round(cosine(100, final=0.1)(s), 6) for s in (0, 50, 100)] == [1.0, 0.55, 0.1]


def test_wsd_stays_then_falls() -> None:
    factor = wsd(100, warmup=10, decay=0.2)
    assert [round(factor(s), 6) for s in (0, 9, 50, 80, 90, 100)] == [0.1, 1.0, 1.0, 1.0, 0.5, 0.0]


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="schedule.warmup=11 does not fit into 10 steps"):
        cosine(10, warmup=11)
