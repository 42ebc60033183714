from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from mltrain.agent.hosts.search import Move, Search, answers
from mltrain.agent.hosts.shared import Claim, Shared
from mltrain.agent.options import Options, parse
from mltrain.cli.arguments import Parser
from mltrain.errors import NodeUnfit
from mltrain.runs.lease import Lease

NODES = ["10.0.0.1:7", "10.0.0.2:7", "10.0.0.3:7"]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    words = ["--nodes", "3", "--rendezvous", "10.0.0.1:29400", "--run-dir", str(tmp_path), "--join-timeout", "60", "--", "true"]
    return parse(words, Parser)


def search(options: Options, claimed: bool = True) -> Search:
    assert options.run is not None
    shared = Shared(options.run, None)
    if claimed:
        shared.claim(Claim("s", 4, NODES[0], NODES, {}))
    return Search(options, shared, ("10.0.0.1", 29400))


def moves(made: Search, own: str, session: str = "s", attempt: int = 4, count: int = 4) -> list[Move]:
    return [made.next(own, session, attempt) for _ in range(count)]


def test_a_newcomer_asks_at_the_rendezvous_then_whoever_the_run_directory_names(options: Options) -> None:
    assert [move.dial for move in moves(search(options), "10.0.0.9:7", session="x")] == ["10.0.0.1:29400", *NODES]


def test_an_heir_asks_those_before_it_and_then_leads(options: Options) -> None:
    made = search(options)
    made.begin(NODES[0], silent=True)
    assert [(move.dial, move.lead) for move in moves(made, NODES[2], count=2)] == [(NODES[1], False), ("", True)]
    assert moves(made, NODES[1], count=1)[0].lead, "the first after the controller asks nobody"


def test_not_before_the_old_workers_are_dead(options: Options) -> None:
    made = search(options)
    made.begin(NODES[0], silent=True, not_before=time.monotonic() + 60)
    assert not moves(made, NODES[1], count=1)[0].lead


@pytest.mark.parametrize(("own", "session", "attempt"), [("10.0.0.9:7", "s", 4), (NODES[1], "other", 4), (NODES[1], "s", 3)])
def test_who_had_no_part_in_the_newest_attempt_does_not_take_over(options: Options, own: str, session: str, attempt: int) -> None:
    made = search(options)
    made.begin(NODES[0], silent=True)
    assert not any(move.lead for move in moves(made, own, session, attempt, 8))


def test_the_first_agent_leads_where_nobody_else_does(options: Options) -> None:
    made = search(options, claimed=False)
    made.first = True
    assert moves(made, "10.0.0.1:29400", count=1) == [Move(lead=True)]
    made.first = False
    assert not any(move.lead for move in moves(made, "10.0.0.2:7"))


def test_it_does_not_while_the_run_has_a_holder(options: Options) -> None:
    assert options.run is not None
    lease = Lease(options.run)
    lease.acquire()
    made = search(options, claimed=False)
    made.first = True
    assert not any(move.lead for move in moves(made, "10.0.0.1:29400"))
    lease.release()
    assert any(move.lead for move in moves(made, "10.0.0.1:29400"))


def test_a_search_has_an_end(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    made, now = search(options), time.monotonic()
    made.give_up("no controller")
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    with pytest.raises(NodeUnfit, match="no controller within 60 s"):
        made.give_up("no controller")


def test_who_refuses_is_dead_who_is_silent_may_not_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        id = f"127.0.0.1:{listener.getsockname()[1]}"
        assert answers(id), "it takes connections, and says nothing"
    assert not answers(id)
