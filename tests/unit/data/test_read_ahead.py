"""The reading thread: nothing lost, nothing hidden, and gone when nobody reads any more."""
from __future__ import annotations

import gc
import subprocess
import sys
import threading

import pytest

from mltrain.data.read_ahead import ReadAhead


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mltrain-read-ahead"]


def test_items_come_in_order_and_end():
    assert list(ReadAhead(iter(range(100)), 3)) == list(range(100))


def test_after_the_end_it_stays_ended():
    ahead = ReadAhead(iter([1]), 2)
    assert ([*ahead], [*ahead]) == ([1], [])


def failing():
    yield 1
    raise OSError("the disk went away")


def test_an_exception_comes_out_where_the_item_would_have():
    ahead = ReadAhead(failing(), 2)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="the disk went away"):
        next(ahead)


def test_it_reads_no_further_than_it_may():
    taken, enough = [], threading.Event()

    def items():
        for i in range(100):
            taken.append(i)
            if i == 3:
                enough.set()
            yield i
    ahead = ReadAhead(items(), 2)
    next(ahead)
    assert enough.wait(10) and len(taken) <= 4          # one taken, two waiting, one in the making
    ahead.close()


def test_closing_ends_the_thread():
    ahead = ReadAhead(iter(range(10**9)), 2)
    next(ahead)
    ahead.close()
    assert threads() == []


def test_forgetting_it_ends_the_thread():
    ahead = ReadAhead(iter(range(10**9)), 2)
    next(ahead)
    del ahead
    gc.collect()
    assert threads() == []


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "del loader"])
def test_a_process_ends_while_its_thread_reads(ending):
    code = f"""
import itertools
from mltrain.data.read_ahead import ReadAhead
loader = ReadAhead(itertools.count(), 2)
next(loader)
{ending}
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
