from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from mltrain.agent import sockets
from mltrain.agent.chaos.disturb import KINDS, Fault, disturb, plan
from mltrain.agent.chaos.no_room import no_room
from mltrain.errors import UsageError
from mltrain.runs.pulse import PAGE_VARIABLE, Page, page_of


def test_a_seed_is_its_faults() -> None:
    """Literal: what a seed brought to light can be made again by the next version."""
    assert [*islice(plan(7, KINDS, 20), 40)] == [*islice(plan(7, KINDS, 20), 40)] != [*islice(plan(8, KINDS, 20), 40)]
    assert [(fault.kind, int(2 * fault.place), fault.at) for fault in islice(plan(7, KINDS, 20), 4)] == [
        ("network", 0, 28), ("stop", 0, 44), ("slow", 0, 67), ("kill", 0, 94)]


def test_each_kind_comes_before_any_comes_again() -> None:
    drawn: list[Fault] = [*islice(plan(1, KINDS, 20), 24)]
    assert all({fault.kind for fault in drawn[start:start + 8]} == set(KINDS) for start in (0, 8, 16))


def test_faults_are_as_far_apart_as_was_asked() -> None:
    moments = [0, *(fault.at for fault in islice(plan(1, KINDS, 20), 400))]
    gaps = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    assert (min(gaps), max(gaps)) == (10, 30) and 19 < sum(gaps) / 400 < 21
    assert [fault.at for fault in islice(plan(1, KINDS, 1), 3)] == [1, 2, 3]


@pytest.mark.parametrize(("kinds", "message"), [(["melt"], "'melt' is no kind of fault"), ([], "'' is no kind"), (["kill"], "is not live")])
def test_what_cannot_be_done_is_said(tmp_path: Path, kinds: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        [*disturb(tmp_path, 0, kinds, 1)]


@contextlib.contextmanager
def other(script: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has said a line and waits for its standard input to end."""
    process = subprocess.Popen([sys.executable, "-uc", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def test_a_cut_connection_ends_on_both_sides_and_no_other_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = (f"import socket, sys; one, two = (socket.create_connection(('127.0.0.1', {server.getsockname()[1]})) for _ in 'ab')\n"
                  "print(); sys.stdin.read(); print(one.recv(9), two.recv(9))")
        with other(script) as process:
            ours = [server.accept()[0] for _ in "ab"]
            assert len(sockets.connected(process.pid)) == 2 and not sockets.listens(process.pid) and sockets.listens(os.getpid())
            mine = len(sockets.connected(os.getpid()))
            pidfd = os.pidfd_open(process.pid)
            assert sockets.may_take(pidfd) and sockets.cut(process.pid, pidfd) == 2
            os.close(pidfd)
            assert [end.recv(9) for end in ours] == [b"", b""]
            assert len(sockets.connected(os.getpid())) <= mine and process.communicate("", timeout=20)[0] == "b'' b''\n"
            for end in ours:
                end.close()


def test_where_there_is_no_room_only_those_who_write_notice_and_it_comes_back(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    script = (f"import os, sys\nprint()\nfor _ in sys.stdin:\n try:\n  os.write(os.open({path!r}, os.O_CREAT | os.O_WRONLY), b'x')\n"
              "  print('written')\n except OSError as error: print(error.strerror)")
    with other(script) as process:
        assert process.stdin and process.stdout

        def write() -> str:
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert write() == "written"
        with no_room(tmp_path, [process.pid]):
            assert write() == "File too large"
            (tmp_path / "ours").write_text("x")
        assert write() == "written" and resource.prlimit(process.pid, resource.RLIMIT_FSIZE) == resource.getrlimit(resource.RLIMIT_FSIZE)


def test_a_worker_leaves_at_its_next_beat_with_the_code_that_was_ordered() -> None:
    page = Page()
    script = "import sys; from mltrain.runs.pulse import Pulse; p = Pulse.from_environment(); p.beat('compute', 1); print(flush=True)\n" \
             "for line in sys.stdin: p.beat('compute', 2)"
    worker = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[page.fd],
                              env={**os.environ, PAGE_VARIABLE: str(page.fd)})
    assert worker.stdout and worker.stdin
    worker.stdout.readline()
    other = page_of(worker.pid)
    assert other and other.read().step == 1
    other.order_exit(74)
    other.close()
    worker.communicate(b"\n", timeout=20)
    assert worker.returncode == 74
    page.close()
