from __future__ import annotations

import pytest

from mltrain.config.build import build, partial
from mltrain.config.targets import Allowed
from mltrain.errors import ConfigError
from mltrain.trust.redact import redact


@pytest.fixture
def allowed(project):
    return Allowed(str(project.folder))


def test_nodes_inside_are_built_first(allowed):
    task = build({"_target_": "parts.Task", "model": {"_target_": "parts.Model", "width": 3}}, allowed=allowed)
    assert (task.kind, task.model.width) == ("sum", 3)


def test_a_provided_argument_is_passed_if_the_signature_has_it(allowed):
    data = build({"_target_": "parts.Data", "path": "p"}, allowed=allowed, seed=5, directory="nobody asks")
    assert data.seed == 5


def test_what_the_recipe_sets_wins_over_what_is_provided_and_null_does_not(allowed):
    node = {"_target_": "parts.Data", "path": "p", "seed": 7}
    assert build(node, allowed=allowed, seed=5).seed == 7
    assert build({**node, "seed": None}, allowed=allowed, seed=5).seed == 5


def test_provided_arguments_do_not_reach_nodes_inside(allowed):
    task = build({"_target_": "parts.Task", "model": {"_target_": "parts.Model"}}, allowed=allowed, width=99)
    assert task.model.width == 8


def test_lists_and_dicts_of_nodes_become_lists_and_dicts_of_objects(allowed):
    node = {"_target_": "parts.Model", "width": 1}
    assert [type(each).__name__ for each in build([node, node], allowed=allowed)] == ["Model", "Model"]
    assert list(build({"a": node, "gone": None}, allowed=allowed)) == ["a"]


def test_values_become_what_the_signature_asks_for(allowed):
    make = partial({"_target_": "parts.Adam", "lr": 1, "betas": [0.5, 0.6]}, allowed=allowed)
    assert make([1]).betas == (0.5, 0.6)
    assert type(make([1]).lr) is float


def test_partial_waits_for_the_rest(allowed):
    make = partial({"_target_": "parts.function", "warmup": 3}, allowed=allowed)
    assert make(steps=10) == 7


def test_arguments_that_are_passed_on_reach_the_base_class(allowed):
    made = build({"_target_": "parts.Nesterov", "lr": 0.1, "nesterov": False}, allowed=allowed, params=[1])
    assert (made.lr, made.params) == (0.1, [1])


def test_a_secret_is_resolved_for_the_worker_alone_and_never_shown(allowed, monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cret-value")
    node = {"_target_": "parts.Data", "path": "p", "key": "Bearer ${secret:TOKEN}"}
    assert build(node, allowed=allowed).key == "Bearer ${secret:TOKEN}"
    key = build(node, allowed=allowed, secrets=True).key
    assert key == "Bearer s3cret-value" and redact(key) == "Bearer ***"


def test_a_secret_that_is_not_there_is_named(allowed, monkeypatch):
    monkeypatch.delenv("TOKEN", raising=False)
    with pytest.raises(ConfigError, match="the secret TOKEN is not set"):
        build({"_target_": "parts.Data", "path": "${secret:TOKEN}"}, allowed=allowed, secrets=True)


@pytest.mark.parametrize(("node", "told"), [
    ({"_target_": "os.system", "command": "true"}, "not allowed"),
    ({"_target_": "parts.Model", "widht": 1}, "widht: Model takes no such argument"),
    ({"_target_": "parts.Model", "width": "1"}, "width: expected int, got '1'"),
    ({"_target_": "parts.Model", "width": "???"}, "width is not set"),
    ({"_target_": "parts.Data"}, "path is required by parts.Data"),
    ({"_target_": "parts.Task", "model": {"_target_": "parts.Refuses", "lr": 9.0}}, "model: lr=9.0 is too large"),
])
def test_nodes_that_cannot_be_built(allowed, node, told):
    with pytest.raises(ConfigError, match=told):
        build(node, allowed=allowed)


def test_torchs_optimizer_is_made_of_its_option(project):
    import torch

    from mltrain.config.compose import compose
    composed = compose(["recipe=hello", "optimizer=sgd"])
    optimizer = partial(composed.tree["optimizer"], allowed=composed.allowed)([torch.nn.Parameter(torch.zeros(2))])
    assert optimizer.param_groups[0]["momentum"] == 0.9
