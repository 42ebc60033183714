"""Wrong recipes and overrides: each is refused with the key, the place, and the nearest name or what to write."""
from __future__ import annotations

import pytest

from mltrain.api import check
from mltrain.config.problem import refuse
from mltrain.errors import MltrainError

LINE_12 = "recipes/mine.yaml:12"
DEFAULTS = "defaults: [{override /optimizer: adamw}]\n"

#   what is added to a right recipe · overrides · exit code · what the message must hold
OVERRIDES = [
    ("optimizer.lrr=1", 78, ["optimizer.lrr", "Adam takes no such argument", "'lr'", "command line"]),
    ("+optimizer.lrr=1", 78, ["optimizer.lrr", "'lr'", "command line"]),
    ("++optimizer.lrr=1", 78, ["optimizer.lrr", "'lr'"]),
    ("optimzer.lr=1", 78, ["optimzer", "no such key", "'optimizer'", "command line"]),
    ("+unknown.key=1", 78, ["unknown", "no such key", "x:", "command line"]),
    ("stpes=10", 78, ["stpes", "no such key", "'steps'"]),
    ("steps=ten", 78, ["steps", "'ten'", "3 epochs", "command line"]),
    ("steps=0", 78, ["steps", "0 makes no sense", "above 0"]),
    ("steps=1.5", 78, ["steps", "expected int or text", "1.5"]),
    ("seed=-1", 78, ["seed", "expected int >= 0", "-1"]),
    ("seed=abc", 78, ["seed", "'abc'"]),
    ("threads=0", 78, ["threads", "expected int >= 1"]),
    ("clip=-1.0", 78, ["clip", "-1.0"]),
    ("guard.nonfinite=skipp", 78, ["guard.nonfinite", "one of stop, skip, rollback", "'skip'"]),
    ("time_limit=soon", 78, ["time_limit", "1h30m"]),
    ("name=a/b", 78, ["name", "a folder"]),
    ("global_batch=8.0", 78, ["global_batch", "8.0"]),
    ("global_batch=", 78, ["global_batch", "''"]),
    ("schedule=cosin", 78, ["schedule", "'cosin' is no option", "'cosine'", "command line"]),
    ("strategy=zero9", 78, ["strategy", "'zero9' is no option", "auto, ddp, fsdp, hsdp, single"]),
    ("callback=[sample,bigramm]", 78, ["callback", "'bigramm' is no option", "'bigram'"]),
    ("optimiser/x=3", 78, ["optimiser/x", "no such group"]),
    ("strategy=hsdp", 78, ["strategy.replicate", "not set", "conf/strategy/hsdp.yaml:3"]),
    ("launcher.workers=two", 78, ["launcher.workers", "expected int or null", "'two'"]),
    ("task.model.width=8.5", 78, ["task.model.width", "expected int, got 8.5"]),
    ("task.kind=men", 78, ["task.kind", "one of mean, sum", "'mean'"]),
    ("task.model=gpt", 78, ["task.model", "a node with _target_", "'gpt'"]),
    ("task.model={_target_: parts.Data, path: x}", 78, ["task.model", "expected Model", "Data"]),
    ("task._target_=parts.Tsk", 78, ["task._target_", "'Tsk'", "'Task'"]),
    ("task._target_=os.system", 78, ["task._target_", "os.system is not allowed", "command line"]),
    ("task._target_=parts.os.system", 78, ["task._target_", "no class or function 'os'"]),
    ("task._target_=nothing.Here", 78, ["task._target_", "not allowed"]),
    ("optimizer=[adamw,sgd]", 78, ["optimizer", "one option"]),
    ("~optimizer.lr", 78, ["optimizer.lr", "required by Adam, not set", "optimizer.lr=..."]),
    ("~steps", 78, ["steps", "required by every run, not set", "steps=..."]),
    ("~seed", 78, ["seed", "required by every run, not set"]),
    ("~optimizer.lrr", 78, ["optimizer.lrr", "cannot be removed"]),
    ("optimizer.betas=[0.9]", 78, ["optimizer.betas", "expected 2 values, got 1"]),
    ("optimizer._partial_=true", 78, ["optimizer._partial_", "Adam takes no such argument"]),
    ("data.mixture={a: lots}", 78, ["data.mixture", "expected float", "'lots'"]),
    ("data.path=${data.pth}", 78, ["data.path", "data.pth", "not there", "command line"]),
    ("data.path=${oc.env:NOT_SET_ANYWHERE}", 78, ["data.path", "NOT_SET_ANYWHERE is not set"]),
    ("data.key=hf_abcdefghijklmnopqrstuvwxyz012345", 78, ["data.key", "secret in clear text", "${secret:KEY}", "command line"]),
    ("steps=1,2", 78, ["steps", "several values"]),
    ("steps=range(1,9)", 78, ["steps", "several values"]),
    ("hydra.run.dir=x", 78, ["hydra.run.dir", "no effect"]),
    ("steps", 64, ["'steps'", "key=value"]),
    ("=3", 64, ["'=3'", "key=value"]),
    ("steps==3", 64, ["steps==3", "key=value"]),
    ("x.a=[1", 64, ["x.a=[1"]),
    ("data.path=a b)", 64, ["data.path", "quotes"]),
    ("optimizer@x=sgd", 64, ["optimizer@x", "@"]),
    ("recipe=other", 64, ["several recipes", "mine", "other"]),
]

RECIPES = [
    ("optimzer: {lr: 1}\n", 78, ["optimzer", "'optimizer'", LINE_12]),
    ("stop_at: soon\n", 78, ["stop_at", "'soon'", LINE_12]),
    ("callback: {a: {_target_: parts.Part, evry: 2}}\n", 78, ["callback.a.evry", "'every'", LINE_12]),
    ("callback: {_target_: parts.Part}\n", 78, ["callback", "needs a name", LINE_12]),
    ("callback: [parts.Part]\n", 78, ["callback", "no set of named parts", LINE_12]),
    ("callback: {a: parts.Part}\n", 78, ["callback.a", "no part", LINE_12]),
    ("defaults: [{override /optimizer: adamv}]\n", 78, ["optimizer", "'adamv'", "'adamw'", LINE_12]),
    ("defaults: [{override optimizer: adamw}]\n", 78, ["defaults", "- override /optimizer: adamw", LINE_12]),
    ("defaults: [{/optimizer: adamw}]\n", 78, ["defaults", "- override /optimizer: adamw", LINE_12]),
    ("defaults: [{override /optimiser: adamw}]\n", 78, ["defaults", "'optimiser' is no group", "'optimizer'", LINE_12]),
    ("defaults: [7]\n", 78, ["defaults", "7 is no entry", LINE_12]),
    ("defaults: [/recipe/helo]\n", 78, [LINE_12, "'helo'", "'hello'"]),
    ("defaults: [mine]\n", 78, [LINE_12, "inherits from itself"]),
    ("defaults:\n  - override /schedule: [cosine]\n  - {override /precision: fp8}\n", 78, ["precision", "'fp8'", "recipes/mine.yaml:14"]),
    ("x: {token: AKIAIOSFODNN7EXAMPLE}\n", 78, ["x.token", "secret in clear text", "${secret:TOKEN}", LINE_12]),
    ("x: {wandb_key: 0123456789abcdef0123456789abcdef01234567}\n", 78, ["x.wandb_key", "secret in clear text", LINE_12]),
    ("x: {url: 's3://me:pass@host/b'}\n", 78, ["x.url", "secret in clear text", LINE_12]),
    ("x: {a: 1, a: 2}\n", 78, ["x.a is set twice", LINE_12]),
    ("\tx: 1\n", 78, [LINE_12]),
    ("x: [1\n", 78, ["recipes/mine.yaml:"]),
    ("task: null\n".replace("task", "x"), 78, ["x", "expected dict", LINE_12]),
    ("steps: 11\n", 78, ["steps is set twice (first in line 10)", LINE_12]),
    ("meta: {title: 3}\n", 78, ["meta", "expected text, got 3", LINE_12]),
    ("x: 3\n", 78, ["x", "expected dict", LINE_12]),
]


def refused(*overrides):
    with pytest.raises(MltrainError) as error:
        refuse(check(overrides))
    return error.value.code, str(error.value)


@pytest.mark.parametrize(("override", "code", "told"), OVERRIDES, ids=[row[0] for row in OVERRIDES])
def test_a_wrong_override(project, override, code, told):
    project.recipe(DEFAULTS if "hsdp" in override else "")
    if "hsdp" in override:
        text = (project.folder / "recipes/mine.yaml").read_text()
        project.write("recipes/mine.yaml", text.replace("strategy: {_target_: parts.Part}\n", ""))
    found, message = refused("recipe=mine", override)
    assert found == code
    assert [words for words in told if words not in message] == []
    assert "Traceback" not in message and "+" not in message.replace(override, "")


@pytest.mark.parametrize(("more", "code", "told"), RECIPES, ids=[row[0].strip() for row in RECIPES])
def test_a_wrong_recipe(project, more, code, told):
    project.recipe(more)
    found, message = refused("recipe=mine")
    assert found == code
    assert [words for words in told if words not in message] == []


@pytest.mark.parametrize(("recipe", "code", "told"), [
    ("recipe=mien", 66, "did you mean 'mine'?"), ("recipe=./recipes/mien.yaml", 66, "no such file"), ("recipe=/", 66, "no such file"),
    ("recipe=../../etc/passwd", 66, "no such file"), ("recipe=", 64, "no recipe is named"), ("seed=3", 64, "no recipe is named"),
])
def test_a_wrong_name(project, recipe, code, told):
    found, message = refused(recipe)
    assert found == code and told in message


def test_a_recipe_that_is_no_text(project):
    (project.folder / "recipes/mine.yaml").write_bytes(b"steps: 3\nname: \xff\xfe\n")
    assert refused("recipe=mine") == (78, "recipes/mine.yaml:2: not UTF-8 text\n  save the file as UTF-8")


def test_all_mistakes_are_told_at_once(project):
    project.recipe("optimzer: {lr: 1}\nstop_at: soon\n")
    _, message = refused("recipe=mine", "task.model.widht=3", "schedule=cosin", "seed=x")
    assert message.startswith("the recipe has 5 mistakes\n")
    assert message.endswith("5 errors. Nothing was started.")


def test_a_secret_is_not_repeated(project):
    code, message = refused("recipe=mine", "data.key=hf_abcdefghijklmnopqrstuvwxyz012345")
    assert code == 78 and "hf_abc" not in message


def test_a_right_recipe_has_no_mistake(project):
    assert check(["recipe=mine"]) == []


@pytest.mark.parametrize(("override", "told"), [("+x.a=nan", "nan is not a finite number"), ("clip=inf", "inf is not a finite number")])
def test_what_json_cannot_hold_is_refused(project, override, told):
    assert refused("recipe=mine", override)[0] == 78 and told in refused("recipe=mine", override)[1]


def test_one_mistake_takes_two_lines(project):
    assert refused("recipe=mine", "stpes=3") == (78, "stpes: no such key (command line)\n  did you mean 'steps'?")
