"""When a run stops."""
from __future__ import annotations

import os
import signal

import pytest

from mltrain.errors import ConfigError
from mltrain.trainer.stop import Stop, count_steps, seconds


@pytest.mark.parametrize("text, value", [("90", 90), (90, 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2d", 172800)])
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "soon", "-3", "3 weeks", "0"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="time_limit"):
        seconds(text)


@pytest.mark.parametrize("steps, count", [
    (100, 100), ("100", 100), ("2 epochs", 50), ("1 epoch", 25), ("10k tokens", 4), ("2560 tokens", 1)])
def test_lengths(steps: int | str, count: int) -> None:
    assert count_steps(steps, samples_per_step=40, tokens_per_sample=64, samples_per_epoch=1000) == count


@pytest.mark.parametrize("steps", ["many", "-1", "0", "3 weeks"])
def test_what_is_no_length_is_refused(steps: str) -> None:
    with pytest.raises(ConfigError, match="steps="):
        count_steps(steps, 40, 64, 1000)


def test_a_signal_becomes_a_wish() -> None:
    stop = Stop()
    stop.listen()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wish() == 2
    finally:
        stop.restore()


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
    assert Stop(time_limit="1000h").wish() == 0 and Stop(time_limit="0.000001").wish() == 1
