"""`mltrain check` on the guard and on the comparison of replicas: what could not work is told before anything runs."""
from __future__ import annotations

import pytest

from mltrain.api import check
from mltrain.errors import ConfigError


@pytest.mark.parametrize("overrides, key, words", [
    (["guard=rolback"], "guard", "'rollback'"),
    (["guard.spike=observ"], "guard.spike", "one of observe, skip, rollback"),
    (["guard.threshold=high"], "guard.threshold", "expected float"),
    (["guard=skip", "guard.window=2"], "guard", "window=2"),
    (["guard=rollback", "checkpoint.every=0"], "guard", "checkpoint.every=0 saves none"),
    (["guard=rollback", "guard.back=12", "checkpoint.every=5"], "guard", "checkpoint.keep=4"),
    (["compare_every=-1"], "compare_every", "int >= 0"),
    (["compare_every=10", "strategy=fsdp"], "compare_every", "no replicas"),
    (["compare_every=10", "strategy=single", "launcher.workers=1"], "compare_every", "no replicas"),
])
def test_what_cannot_work_is_told(overrides: list[str], key: str, words: str) -> None:
    try:
        problems = check(["recipe=hello", *overrides])
    except ConfigError as error:                               # an option that is not there is told alone
        assert key in error.message and words in str(error)
        return
    assert [problem.key for problem in problems] == [key]
    assert words in f"{problems[0].message} {problems[0].hint}"


@pytest.mark.parametrize("overrides", [
    ["guard=rollback", "guard.back=6", "checkpoint.every=5"], ["guard=rollback", "guard.back=60", "checkpoint.keep=0"],
    ["compare_every=10", "strategy=ddp"], ["compare_every=10", "strategy=hsdp", "strategy.replicate=2", "launcher.workers=4"]])
def test_what_can_is_not(overrides: list[str]) -> None:
    assert check(["recipe=hello", *overrides]) == []
