from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mltrain.errors import ConfigError
from mltrain.runs.pulse import PAGE_VARIABLE, PHASES, REPORT_VARIABLE, Beat, Page, Pulse
from mltrain.trust.redact import register


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    page = Page()
    monkeypatch.setenv(PAGE_VARIABLE, str(page.fd))
    return page


def test_a_new_page_says_nothing(page: Page) -> None:
    beat = page.read()
    assert (beat.beats, beat.phase, beat.step, beat.samples) == (0, "none", -1, 0) and math.isnan(beat.loss) and page.begin() is None
    assert page.record() == {} and page.stack() == ""


@pytest.mark.parametrize("phase", PHASES)
def test_a_beat_is_read_on_the_other_side(page: Page, phase: str) -> None:
    Pulse.from_environment().beat(phase, 7, loss=0.5, samples=10, tokens=20)
    assert page.read() == Beat(1, phase, 7, 0.5, 10, 20)


def test_what_is_not_given_stays(page: Page) -> None:
    pulse = Pulse.from_environment()
    pulse.beat("compute", 1, loss=0.5, samples=10, tokens=20)
    pulse.beat("collective", 1)
    assert page.read() == Beat(2, "collective", 1, 0.5, 10, 20)


def test_training_begins_after_loading(page: Page) -> None:
    pulse = Pulse.from_environment()
    pulse.beat("load", 0)
    assert page.begin() is None
    pulse.beat("compute", 100)
    pulse.beat("compute", 101)
    begin = page.begin()
    assert begin and begin[0] == 100 and begin[1] <= time.monotonic()


def test_a_beat_costs_a_few_microseconds(page: Page) -> None:
    pulse = Pulse.from_environment()
    start = time.perf_counter()
    for step in range(20_000):
        pulse.beat("compute", step, loss=0.5, samples=step, tokens=step)
    assert (time.perf_counter() - start) / 20_000 < 20e-6          # 0.4 us here; the bound is for a busy machine


def test_an_unknown_phase_is_a_mistake(page: Page) -> None:
    with pytest.raises(KeyError):
        Pulse.from_environment().beat("thinking", 0)


def test_without_an_agent_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PAGE_VARIABLE, raising=False)
    pulse = Pulse.from_environment()
    pulse.beat("compute", 1)
    pulse.failed(ValueError("x"))
    assert pulse.report("saved", step=1) is False


@pytest.mark.parametrize("value", ["", "x", "999", "0"])
def test_a_descriptor_that_is_not_ours_is_left_alone(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(PAGE_VARIABLE, value)
    assert Pulse.from_environment().page is None


def test_a_file_under_our_number_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "data", os.O_RDWR | os.O_CREAT)
    monkeypatch.setenv(PAGE_VARIABLE, str(fd))
    assert Pulse.from_environment().page is None
    os.close(fd)


def test_the_first_exception_stays(page: Page) -> None:
    pulse = Pulse.from_environment()
    try:
        raise ConfigError("width=0", "use 1")
    except ConfigError as error:
        pulse.failed(error)
    pulse.failed(ValueError("echo"))
    record = page.record()
    assert (record["type"], record["message"], record["code"]) == ("ConfigError", "width=0\n  use 1", 78)
    assert os.path.abspath(record["where"].partition(":")[0]) == __file__ and record["moment"] <= time.monotonic()


@pytest.mark.parametrize("message", ["", "x" * 100_000, "🙂" * 5_000, "\0\n\udc80"])
def test_any_message_fits(page: Page, message: str) -> None:
    Pulse.from_environment().failed(RuntimeError(message))
    assert page.record()["type"] == "RuntimeError"


def test_a_record_holds_no_secret(page: Page) -> None:
    register("a-secret-of-the-record")
    Pulse.from_environment().failed(RuntimeError("login with a-secret-of-the-record failed"))
    assert page.record()["message"] == "login with *** failed"


def test_reports_arrive_whole_and_in_order(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setenv(REPORT_VARIABLE, str(theirs.fileno()))
    pulse = Pulse.from_environment()
    assert pulse.report("saved", step=1, loss=math.nan) and pulse.report("noted", text="x" * 50_000)
    assert ours.recv(1 << 17) == b'{"event": "saved", "step": 1, "loss": "nan"}'
    assert len(ours.recv(1 << 17)) > 50_000
    with pytest.raises(ValueError, match="too long for the ledger"):
        pulse.report("noted", text="x" * 100_000)
    ours.close()
    assert pulse.report("saved", step=2) is False


def test_a_record_says_whether_the_ranks_were_just_meeting() -> None:
    for file, begins in (("/env/torch/distributed/distributed_c10d.py", "while the ranks met: bad"), ("/home/me/train.py", "bad")):
        there: dict[str, Callable[[], None]] = {}
        exec(compile("def init_process_group(): raise ValueError('bad')", file, "exec"), there)
        page = Page()
        try:
            there["init_process_group"]()
        except ValueError as error:
            page.write_record(error, 1)
        assert page.record()["message"] == begins
        page.close()
