from __future__ import annotations

import pytest

from mltrain.config.check import check
from mltrain.config.compose import compose


def x_of(project, text, *overrides):
    project.recipe(f"x: {text}\n")
    return compose(["recipe=mine", *overrides]).tree["x"]


@pytest.mark.parametrize(("text", "value"), [
    ("{a: '${steps}'}", {"a": 10}),
    ("{a: 'n-${steps}-${seed}'}", {"a": "n-10-0"}),
    ("{a: 1, b: '${.a}'}", {"a": 1, "b": 1}),
    ("{a: '${optimizer}'}", {"a": {"_target_": "parts.Adam", "lr": 0.1}}),
    ("{a: '${oc.env:HERE}'}", {"a": "12"}),
    ("{a: '${oc.decode:${oc.env:HERE}}'}", {"a": 12}),
    ("{a: '${oc.env:NOT_THERE,7}'}", {"a": "7"}),
    ("{a: '\\${steps}'}", {"a": "${steps}"}),
])
def test_interpolations_become_values(project, monkeypatch, text, value):
    monkeypatch.setenv("HERE", "12")
    assert x_of(project, text) == value


def test_a_secret_stays_text_wherever_it_is_copied(project, monkeypatch):
    monkeypatch.setenv("TOKEN", "do-not-write-me")
    x = x_of(project, "{a: '${secret:TOKEN}', b: '${.a}', c: 'Bearer ${secret:TOKEN}'}")
    assert x == {"a": "${secret:TOKEN}", "b": "${secret:TOKEN}", "c": "Bearer ${secret:TOKEN}"}


def test_a_secret_on_the_command_line_stays_text(project):
    assert x_of(project, "{}", "+x.a='${secret:TOKEN}'") == {"a": "${secret:TOKEN}"}


@pytest.mark.parametrize(("text", "message"), [
    ("{a: '${nothing.here}'}", "refers to nothing.here"),
    ("{a: '${oc.env:NOT_THERE}'}", "environment variable NOT_THERE is not set"),
    ("{a: '${oc.create:steps}'}", "unknown interpolation ${oc.create:...}"),
    ("{a: '${hydra:runtime.cwd}'}", "unknown interpolation ${hydra:...}"),
    ("{a: '${secret:no name}'}", "'no name' is no name of a secret"),
    ("{a: '${x.${seed}}'}", "must be plain text"),
    ("{a: '${steps'}", "cannot be resolved"),
])
def test_interpolations_without_a_value_are_told_with_their_line(project, monkeypatch, text, message):
    monkeypatch.delenv("NOT_THERE", raising=False)
    project.recipe(f"x: {text}\n")
    problem, = check(compose(["recipe=mine"]), {"optimizer": ["params"], "schedule": ["steps"]})
    assert problem.key == "x.a" and message in problem.message and str(problem.origin) == "recipes/mine.yaml:12"
