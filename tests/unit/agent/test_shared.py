from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from mltrain.agent.hosts.shape import fits
from mltrain.agent.hosts.shared import Claim, Shared
from mltrain.errors import ConfigError


def claim(attempt: int, session: str = "s") -> Claim:
    return Claim(session, attempt, "h1:7", ["h1:7", "h2:7"], {"h1:7": "one", "h2:7": "two"})


def test_an_attempt_is_claimed_once(tmp_path: Path) -> None:
    won: list[bool] = []
    threads = [threading.Thread(target=lambda: won.append(Shared(tmp_path, None).claim(claim(3)))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(won) == [False] * 15 + [True]
    assert Shared(tmp_path, None).newest() == claim(3)
    assert sorted(os.listdir(tmp_path / "nodes")) == ["attempt-0003.json"]


def test_the_newest_is_the_highest(tmp_path: Path) -> None:
    shared = Shared(tmp_path, None)
    assert shared.newest() is None and not shared.taken(9)
    for number in (9, 10000, 80):
        shared.claim(claim(number))
    assert shared.taken(9)
    newest = shared.newest()
    assert newest is not None and newest.attempt == 10000


def test_the_secret_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    shared = Shared(tmp_path, None)
    assert shared.secret(make=False) is None
    first = shared.secret(make=True)
    assert first == Shared(tmp_path, None).secret(make=True) == shared.secret(make=False)
    assert stat.S_IMODE((tmp_path / "nodes" / "secret").stat().st_mode) == 0o600


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_bytes(b"x" * 40)
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="may be read by others"):
        Shared(tmp_path, file).secret(make=True)


def test_a_directory_that_is_not_shared_shows(tmp_path: Path) -> None:
    here, there = Shared(tmp_path / "a", None), Shared(tmp_path / "b", None)
    token = there.announce("h2:7")
    assert there.sees("h2:7", token) and not here.sees("h2:7", token)
    here.announce("h2:7")
    assert not here.sees("h2:7", token), "another run of that node"
    assert not here.sees("../nodes/here-h2:7", token)


def test_an_end_is_of_one_session(tmp_path: Path) -> None:
    shared = Shared(tmp_path, None)
    shared.end("s", 75)
    assert (shared.ended("s"), shared.ended("t")) == (75, None)


@pytest.mark.parametrize(("tree", "allowed"), [
    ({"global_batch": 16, "micro_batch": 2, "strategy": {"layout": "auto", "reduction": "auto"}}, [1, 2, 4, 8]),
    ({"global_batch": 12, "micro_batch": 2, "strategy": {"layout": "ddp", "reduction": "auto"}}, [1, 2, 3, 6]),
    ({"global_batch": 16, "micro_batch": 2, "strategy": {"layout": "hsdp", "replicate": 2}}, [2, 4, 8]),
    ({"global_batch": 4, "micro_batch": None, "strategy": {"layout": "fsdp"}}, [1, 2, 4]),
    ({"global_batch": 16, "micro_batch": 2, "strategy": {"layout": "single"}}, [1]),
])
def test_what_a_recipe_may_run_on(tmp_path: Path, tree: dict[str, object], allowed: list[int]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"tree": tree}))
    assert [ranks for ranks in range(1, 17) if fits(tmp_path)(ranks)] == allowed


def test_a_script_of_others_may_run_on_any_number(tmp_path: Path) -> None:
    assert all(fits(where)(ranks) for where in (None, tmp_path) for ranks in (1, 3, 7))
