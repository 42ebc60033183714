"""The conf groups and recipes that come with mltrain."""
from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from mltrain.api import check, compose
from mltrain.assets import asset_dir
from mltrain.config.build import build
from mltrain.config.document import read
from mltrain.config.root import GROUPS, Root, seconds, steps

ROOT_FILE = read(asset_dir("conf") / "run.yaml")
OPTIONS = sorted(path.relative_to(asset_dir("conf")).with_suffix("").as_posix() for path in asset_dir("conf").glob("*/*.yaml"))
RECIPES = sorted(asset_dir("recipes").rglob("*.yaml"))
NEEDED = {"strategy/hsdp": ["strategy.replicate=1"], "data/text": ["data.path=somewhere"], "strategy/single": ["launcher.workers=1"]}
IMAGES = ("data/digits", "task/vit")                   # options of another recipe than hello
GIVEN = {"gpt/pretrain": ["data.path=somewhere"], "finetune/gpt": ["weights=somewhere"]}


def test_the_order_of_the_groups():
    names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in ROOT_FILE.defaults]
    assert names == ["_self_", "task", "data", "optimizer", "schedule", "strategy", "precision", "guard", "checkpoint", "launcher",
                     "metrics", "callback", "recipe", "experiment", "local"]


def test_every_root_key_has_a_value_to_start_with_and_a_type():
    assert list(ROOT_FILE.tree) == [each.name for each in fields(Root)]


def test_the_options():
    assert OPTIONS == [
        "callback/bigram", "callback/none", "callback/sample", "checkpoint/local", "data/digits", "data/stdlib", "data/text",
        "experiment/debug", "experiment/smoke", "guard/observe", "guard/rollback", "guard/skip", "guard/stop", "launcher/local",
        "metrics/all", "metrics/default", "metrics/prometheus", "metrics/tensorboard", "metrics/wandb",
        "optimizer/adamw", "optimizer/sgd", "precision/bf16", "precision/fp32",
        "schedule/constant", "schedule/cosine", "schedule/linear", "schedule/wsd", "strategy/auto", "strategy/ddp", "strategy/fsdp",
        "strategy/hsdp", "strategy/single", "task/gpt", "task/vit"]
    assert {option.partition("/")[0] for option in OPTIONS} == {*GROUPS, "callback", "experiment"}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_right(option, project):
    group, _, name = option.partition("/")
    recipe = "vit/digits" if option in IMAGES else "hello"
    assert check([f"recipe={recipe}", f"{group}={name}", *NEEDED.get(option, [])]) == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_right_short_and_says_what_it_is(path, project):
    name = path.relative_to(asset_dir("recipes")).with_suffix("").as_posix()
    assert check([f"recipe={name}", *GIVEN.get(name, [])]) == []
    assert len(path.read_text().splitlines()) <= 30
    assert list(compose([f"recipe={name}"]).tree["meta"]) == ["title", "needs", "expect"]


@pytest.mark.parametrize("name", GIVEN)
def test_a_recipe_that_must_be_told_something_says_what(name, project):
    (problem,) = check([f"recipe={name}"])
    assert [problem.key] == [text.partition("=")[0] for text in GIVEN[name]]


def test_the_model_for_a_cluster_has_a_billion_parameters(project):
    composed = compose(["recipe=gpt/pretrain", "data.path=somewhere"])
    with torch.device("meta"):
        task = build(composed.tree["task"], allowed=composed.allowed)
    assert sum(parameter.numel() for parameter in task.parameters()) == 1_161_660_416
    assert composed.tree["launcher"]["workers"] == 8 and composed.tree["strategy"]["layout"] == "fsdp"


@pytest.mark.parametrize(("value", "result"), [
    (100, (100, "steps")), ("100 steps", (100, "steps")), ("3 epochs", (3, "epochs")), ("1 epoch", (1, "epochs")),
    ("0.5 epochs", (0.5, "epochs")),
    ("10M tokens", (10_000_000, "tokens")), ("1.5B tokens", (1_500_000_000, "tokens")), ("50k samples", (50_000, "samples")),
])
def test_how_long_to_train(value, result):
    assert steps(value) == result


@pytest.mark.parametrize("value", [0, -1, "", "ten", "3 apples", "-3 epochs", "0 steps", "M tokens", "1e3 steps"])
def test_lengths_that_make_no_sense(value):
    with pytest.raises(ValueError, match="above 0|write a number"):
        steps(value)


@pytest.mark.parametrize(("value", "result"), [(90, 90), ("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2d", 172_800), ("1d1s", 86_401)])
def test_time_limits(value, result):
    assert seconds(value) == result


@pytest.mark.parametrize("value", [0, -5, "", "soon", "30", "m", "1m1h"])
def test_time_limits_that_make_no_sense(value):
    with pytest.raises(ValueError, match="above 0|write seconds"):
        seconds(value)
