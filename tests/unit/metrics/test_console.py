"""What a person sees: plain lines with the time of the records, and a live line on a terminal (a real pseudo-terminal)."""
from __future__ import annotations

import os
import pty
import select

import pytest

from mltrain.metrics.console import Console, train_line

FULL = {"kind": "train", "step": 120, "time": 0.0, "steps": 1000, "loss": 2.31412, "norm": 1.0, "lr": 1e-3, "weight": 8.0, "samples": 960,
        "tokens": 122880, "samples_per_second": 48.2, "tokens_per_second": 12345.6, "step_seconds": 0.0812, "data_seconds": 0.000325,
        "memory_bytes": 412 * 2**20, "eta_seconds": 72.4}


def train(step, time, steps=1000):
    return FULL | {"step": step, "time": time, "steps": steps}


def shown(capsys):
    return [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]


def test_a_line_of_everything():
    assert train_line(FULL) == ("step 120/1000  loss 2.314  12.3k tokens/s  48.2 samples/s  step 81.2 ms  data 0.4%  "
                                "memory 412 MiB  eta 1m12s")


def test_what_a_record_lacks_is_left_out():
    assert train_line({"kind": "train", "step": 3, "loss": float("nan")}) == "step 3  loss nan"


def test_no_tokens_no_tokens_a_second():
    assert "tokens/s" not in train_line(FULL | {"tokens_per_second": 0.0})


def test_a_skipped_step_says_so():
    assert train_line(FULL | {"skipped": True}).endswith("skipped: no update was made")


@pytest.mark.parametrize(("seconds", "text"), [(0.25, "250 ms"), (7.0, "7s"), (72, "1m12s"), (11520, "3h12m"), (360000, "4d04h")])
def test_durations(seconds, text):
    assert train_line(FULL | {"eta_seconds": seconds}).endswith(f"eta {text}")


def test_plain_lines_first_every_interval_and_last(capsys):
    console = Console(interval=10)
    for step in range(1, 26):
        console.write(train(step, time=float(step), steps=25))
    console.close()
    assert shown(capsys) == ["step 1/25", "step 11/25", "step 21/25", "step 25/25"]


def test_a_run_that_stops_early_ends_with_its_last_numbers(capsys):
    console = Console(interval=10)
    for step in (1, 2, 3):
        console.write(train(step, time=float(step)))
    console.close()
    assert shown(capsys) == ["step 1/1000", "step 3/1000"]


def test_evaluations_and_notes_have_lines_of_their_own(capsys):
    console = Console(interval=1e9)
    console.write({"kind": "evaluate", "step": 100, "time": 0.0, "loss": 1.83, "bits_per_byte": 2.6401})
    console.write({"kind": "note", "step": 100, "time": 0.0, "text": "attempt 2 goes on at step 100"})
    console.close()
    assert capsys.readouterr().out == "evaluate step 100  loss 1.83  bits_per_byte 2.64\nattempt 2 goes on at step 100\n"


@pytest.fixture
def terminal():
    """A pseudo-terminal: the device's name, and a function that reads what has been shown on it."""
    outer, inner = pty.openpty()

    def read():
        text = b""
        while select.select([outer], [], [], 0.2)[0]:
            text += os.read(outer, 65536)
        return text.decode()

    yield os.ttyname(inner), read
    os.close(outer)
    os.close(inner)


def test_the_live_line_goes_to_the_named_terminal_and_plain_lines_to_the_log(capsys, monkeypatch, terminal):
    device, read = terminal
    monkeypatch.setenv("MLTRAIN_TERMINAL", device)
    console = Console(interval=10)
    for step in (1, 2, 3):
        console.write(train(step, time=float(step)))
    screen = read()
    console.close()
    assert "step 2/1000" in screen and "step 3/1000" in screen
    assert "\n" not in screen
    assert shown(capsys) == ["step 1/1000", "step 3/1000"]


def test_before_a_plain_line_the_live_line_is_taken_away(monkeypatch, terminal, capsys):
    """Both end up on one terminal: the plain line must not begin in the middle of the live one."""
    device, read = terminal
    monkeypatch.setenv("MLTRAIN_TERMINAL", device)
    console = Console(interval=10)
    console.write(train(1, time=1.0))
    console.write(train(2, time=2.0))
    read()
    console.write({"kind": "note", "step": 2, "time": 2.0, "text": "saved"})
    assert read() == "\r\x1b[2K"
    assert capsys.readouterr().out.endswith("saved\n")
    console.close()


def test_a_device_that_is_no_terminal_is_not_written_to(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLTRAIN_TERMINAL", str(tmp_path / "file"))
    console = Console()
    console.write(train(1, time=1.0))
    console.close()
    assert (tmp_path / "file").read_text() == ""
    assert shown(capsys) == ["step 1/1000"]


def test_a_terminal_that_is_gone_leaves_the_plain_lines(monkeypatch, capsys):
    outer, inner = pty.openpty()
    monkeypatch.setenv("MLTRAIN_TERMINAL", os.ttyname(inner))
    console = Console(interval=1)
    os.close(inner)
    os.close(outer)
    console.write(train(1, time=1.0))
    console.write(train(2, time=9.0))
    console.close()
    assert shown(capsys) == ["step 1/1000", "step 2/1000"]
