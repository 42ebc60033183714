from __future__ import annotations

import time

import pytest

from mltrain.agent.hosts.crew import FENCE, MINORITY, SILENT_SECONDS, Crew
from mltrain.agent.hosts.members import Member


def member(number: int, ready: bool = True) -> Member:
    return Member(f"10.0.0.{number}:7", f"h{number}", 1, ready=ready)


def powers(ranks: int) -> bool:
    return ranks & (ranks - 1) == 0


def crew(*others: int, most: int = 3, least: int = 1) -> Crew:
    """Of host 1, and these."""
    made = Crew(member(1), most, least, lambda ranks: True, 600.0)
    for number in others:
        made.join(member(number))
    return made


def begun(made: Crew) -> Crew:
    made.begin(made.nodes())
    return made


def names(nodes: list[Member]) -> str:
    return " ".join(node.name for node in nodes)


def test_the_first_attempt_waits_for_all_for_a_while() -> None:
    made, now = crew(2), time.monotonic()
    assert made.ready(now) == []
    assert names(made.ready(now + 60)) == "h1 h2"
    made.join(member(3))
    assert names(made.ready(now)) == "h1 h2 h3"


def test_too_few_are_hopeless_in_the_end() -> None:
    made = crew(2, least=3)
    assert not made.hopeless(time.monotonic()) and made.hopeless(time.monotonic() + 601) and made.nodes() == []


def test_a_spare_takes_a_lost_nodes_place_at_once() -> None:
    made = begun(crew(2, 3, 4))
    made.lose("10.0.0.2:7", dead=True, silent=False)
    assert names(made.ready(time.monotonic())) == "h1 h3 h4"


def test_a_spare_that_still_imports_is_not_waited_for() -> None:
    made = begun(crew(2, 3))
    made.join(member(4, ready=False))
    made.lose("10.0.0.2:7", dead=True, silent=False)
    assert made.ready(time.monotonic()) == []
    assert names(made.ready(time.monotonic() + 10)) == "h1 h3"


def test_nodes_that_may_live_are_waited_for_until_they_have_fenced_themselves() -> None:
    made, now = begun(crew(2, 3, 4)), time.monotonic()
    heard = made.members["10.0.0.2:7"].heard
    made.lose("10.0.0.2:7", dead=False, silent=True)
    assert made.ready(now + SILENT_SECONDS) == [] and made.safe == pytest.approx(heard + FENCE)
    assert names(made.ready(heard + FENCE + 0.01)) == "h1 h3 h4"
    made.join(member(2))                                       # it has no workers, or it would not come
    assert made.safe == 0.0


def test_the_smaller_part_lets_the_greater_go_first() -> None:
    made = begun(crew(2, 3))
    heard = [made.lose(f"10.0.0.{number}:7", dead=False, silent=True).heard for number in (2, 3)]
    assert made.safe == pytest.approx(max(heard) + FENCE + MINORITY)


def test_a_controller_that_hears_nobody_lets_an_heir_go_first() -> None:
    alone = begun(crew(2))
    heard = alone.lose("10.0.0.2:7", dead=False, silent=True).heard
    assert alone.safe == pytest.approx(heard + FENCE + MINORITY)
    heir = crew()
    heir.succeed(["10.0.0.2:7", "10.0.0.1:7"], set(), {"10.0.0.2:7": 5.0})
    assert heir.safe == 5.0


def test_dead_nodes_make_no_minority() -> None:
    made = begun(crew(2, 3))
    for number in (2, 3):
        made.lose(f"10.0.0.{number}:7", dead=True, silent=False)
    assert made.safe == 0.0


def test_only_a_number_of_ranks_that_fits() -> None:
    made = Crew(member(1), 4, 1, powers, 600.0)
    for number in (2, 3):
        made.join(member(number))
    assert names(made.nodes()) == "h1 h2"
    begun(made)
    assert made.larger(2) == []
    made.join(member(4))
    assert names(made.larger(2)) == "h1 h2 h3 h4"


def test_an_unfit_host_is_out_whoever_comes_from_it() -> None:
    made = begun(crew(2, 3))
    made.exclude("10.0.0.2:7")
    made.members.pop("10.0.0.2:7")
    made.join(Member("10.0.0.2:9", "h2", 1))
    assert names(made.ready(time.monotonic())) == "h1 h3"


def test_those_of_the_last_attempt_come_before_newcomers() -> None:
    made = begun(crew(3, 2, most=2))
    made.join(member(9))
    assert names(made.nodes()) == "h1 h3"
