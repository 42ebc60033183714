"""When a run stops."""
from __future__ import annotations

import os
import signal

import pytest

from mltrain.errors import ConfigError
from mltrain.trainer.stop import Stop, count_steps


@pytest.mark.parametrize("amount, unit, count", [
    (100, "steps", 100), (2, "epochs", 50), (1, "epochs", 25), (10_000, "tokens", 4), (2560, "tokens", 1), (41, "samples", 2)])
def test_lengths(amount: float, unit: str, count: int) -> None:
    assert count_steps(amount, unit, samples_per_step=40, tokens_per_sample=64, samples_per_epoch=1000) == count


def test_data_without_tokens_cannot_be_counted_in_tokens() -> None:
    with pytest.raises(ConfigError, match="this data has no tokens"):
        count_steps(10, "tokens", 40, 0, 1000)


def test_a_signal_becomes_a_wish() -> None:
    stop = Stop()
    stop.listen()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wish() == 2
    finally:
        stop.restore()


def test_slurms_signals_are_wishes_where_nobody_else_has_them() -> None:
    before = signal.signal(signal.SIGUSR2, lambda *_: None)        # a callback's own
    stop = Stop()
    stop.listen()
    try:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert stop.wish() == 0
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.wish() == 2
    finally:
        stop.restore()
        signal.signal(signal.SIGUSR2, before)
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_asked_twice_it_stops_at_once() -> None:
    stop = Stop()
    stop.listen()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wish() == 3
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        stop.restore()


def test_a_time_limit_is_a_wish() -> None:
    assert Stop(seconds=1e6).wish() == 0 and Stop(seconds=0.0).wish() == 1
