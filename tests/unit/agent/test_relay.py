from __future__ import annotations

import os
import signal
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from mltrain.agent.console import Console, Lines
from mltrain.agent.loop import Loop


@settings(max_examples=50, derandomize=True)
@given(text=st.text("ab\n", max_size=60), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_lines_are_whole_however_they_arrive(text: str, cuts: list[int]) -> None:
    data, lines, out = text.encode(), Lines("> "), b""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, stop in zip(places, places[1:], strict=False):
        out += lines.feed(data[start:stop])
    out += lines.end()
    assert out == b"".join(b"> " + line + b"\n" for line in data.removesuffix(b"\n").split(b"\n")) if data else out == b""


def test_a_reader_that_does_not_read_stops_nobody_and_is_told() -> None:
    read, write = os.pipe()
    console = Console(write)
    for _ in range(5000):
        console.write(b"x" * 1000)
    taken = bytearray()
    reader = threading.Thread(target=lambda: [taken.extend(data) for data in iter(lambda: os.read(read, 1 << 20), b"")], daemon=True)
    reader.start()
    console.write(b"last\n")
    console.close()
    os.close(write)
    reader.join(10)
    assert len(taken) < 5_000_000
    assert b"bytes were not shown here" in taken


def test_a_closed_reader_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    console = Console(write)
    console.write(b"x")
    console.close()


def test_timers_fire_in_order_and_descriptors_between_them() -> None:
    loop, seen = Loop(), []
    read, write = os.pipe()
    loop.watch(read, lambda: seen.append(os.read(read, 10)))
    loop.after(0.02, lambda: seen.append("second"))
    loop.after(0.0, lambda: (seen.append("first"), os.write(write, b"data")))
    loop.run(lambda: len(seen) == 3)
    assert seen == ["first", b"data", "second"]


def test_a_signal_is_an_event() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    loop, seen = Loop(), []
    loop.on_signals({signal.SIGUSR1}, seen.append)
    loop.after(0.0, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    loop.run(lambda: bool(seen))
    signal.signal(signal.SIGUSR1, before)
    signal.set_wakeup_fd(-1)
    assert seen == [signal.SIGUSR1]
