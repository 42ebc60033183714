"""What lies over what. Expected values are written out; one test asks Hydra itself."""
from __future__ import annotations

import os

import pytest

from mltrain.assets import asset_dir
from mltrain.config.compose import compose
from mltrain.config.problem import COMMAND_LINE, Origin


def test_the_command_line_wins_over_the_recipe(project):
    composed = compose(["recipe=mine", "optimizer.lr=0.5"])
    assert composed.tree["optimizer"]["lr"] == 0.5
    assert composed.origins["optimizer.lr"] == COMMAND_LINE


def test_a_value_of_the_recipe_knows_its_line(project):
    origins = compose(["recipe=mine"]).origins
    assert origins["steps"] == Origin("recipes/mine.yaml", 10)
    assert origins["task.model.width"] == Origin("recipes/mine.yaml", 1)


def test_the_order_is_group_parent_recipe_experiment_site_command_line(project, monkeypatch):
    project.write("conf/experiment/try.yaml", "steps: 3\nx: {c: 3, d: 3, e: 3}\n")
    project.recipe("x: {a: 1, b: 1, c: 1, d: 1, e: 1}\n", "parent")
    project.write("recipes/child.yaml", "defaults: [parent, _self_]\nx: {b: 2, c: 2, d: 2, e: 2}\n")
    monkeypatch.setenv("MLTRAIN_SITE", str(project.write("site.yaml", "x: {d: 4, e: 4}\n")))
    tree = compose(["recipe=child", "experiment=try", "x.e=5"]).tree
    assert tree["x"] == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    assert tree["steps"] == 3


def test_a_recipe_that_lists_no_self_lies_over_its_parents(project):
    project.write("recipes/child.yaml", "defaults: [/recipe/mine]\nsteps: 77\n")
    assert compose(["recipe=child"]).tree["steps"] == 77


def test_another_target_replaces_the_node(project):
    project.recipe("defaults: [override /optimizer: adamw]\n".replace("[", "[{").replace("]", "}]"))
    assert compose(["recipe=mine"]).tree["optimizer"] == {"_target_": "parts.Adam", "lr": 0.1}


def test_another_target_on_the_command_line_replaces_the_node_in_any_order(project):
    project.recipe()
    for order in (["optimizer.momentum=0.5", "optimizer._target_=parts.Sgd"], ["optimizer._target_=parts.Sgd", "optimizer.momentum=0.5"]):
        composed = compose(["recipe=mine", *order])
        assert composed.tree["optimizer"] == {"_target_": "parts.Sgd", "momentum": 0.5}
        assert "optimizer.lr" not in composed.origins


def test_the_same_target_keeps_what_lower_layers_set(project):
    project.write("recipes/child.yaml", "defaults: [mine]\noptimizer: {_target_: parts.Adam, betas: [0.8, 0.9]}\n")
    assert compose(["recipe=child"]).tree["optimizer"] == {"_target_": "parts.Adam", "lr": 0.1, "betas": [0.8, 0.9]}


def test_a_nested_target_replaces_only_its_own_node(project):
    project.write("recipes/child.yaml", "defaults: [mine]\ntask: {model: {_target_: parts.Other, depth: 2}}\n")
    assert compose(["recipe=child"]).tree["task"] == {"_target_": "parts.Task", "model": {"_target_": "parts.Other", "depth": 2}}


def test_a_child_chooses_over_its_parent_and_the_command_line_over_both(project):
    project.write("recipes/parent.yaml", "defaults:\n" + "".join(
        f"  - override /{choice}\n" for choice in ("schedule: linear", "strategy: ddp", "precision: bf16")))
    project.write("recipes/child.yaml", "defaults:\n  - parent\n  - override /schedule: wsd\n  - override /strategy: fsdp\n")
    tree = compose(["recipe=child", "strategy=single"]).tree
    assert tree["schedule"]["_target_"].endswith(".wsd")
    assert tree["strategy"]["layout"] == "single"
    assert tree["precision"]["compute"] == "bfloat16"


def test_a_recipe_given_by_path_brings_its_own_project(project, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    project.write("conf/optimizer/ours.yaml", "_target_: parts.Sgd\nlr: 0.3\n")
    composed = compose([f"recipe={project.folder}/recipes/mine.yaml", "optimizer=ours"])
    assert composed.tree["name"] == "mine"
    assert composed.allowed.project == str(project.folder)


def test_a_recipe_beside_nothing_else_is_found_by_path(project, tmp_path_factory, monkeypatch):
    alone = tmp_path_factory.mktemp("alone")
    (alone / "one.yaml").write_text("defaults: [/recipe/hello]\nsteps: 5\n")
    monkeypatch.chdir(alone)
    composed = compose(["recipe=./one.yaml"])
    assert (composed.tree["steps"], composed.tree["task"]["model"]["width"]) == (5, 64)


def test_the_working_directory_may_be_named(project, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert compose(["recipe=mine"], project.folder).tree["steps"] == 10


def test_a_second_composition_in_one_process_sees_nothing_of_the_first(project):
    first = compose(["recipe=mine", "optimizer.lr=9"]).tree
    project.recipe("seed: 4\n")
    second = compose(["recipe=mine"]).tree
    assert (first["optimizer"]["lr"], second["optimizer"]["lr"], second["seed"]) == (9, 0.1, 4)


def test_other_users_of_hydra_in_this_process_keep_their_configs(project):
    from hydra import compose as hydra_compose
    from hydra import initialize
    from hydra.core.config_store import ConfigStore
    ConfigStore.instance().store("app", {"defaults": [{"optimizer": "theirs"}]})
    ConfigStore.instance().store("theirs", {"rate": 1}, group="optimizer")
    compose(["recipe=mine", "optimizer=sgd"])
    with initialize(config_path=None, version_base="1.3"):
        assert hydra_compose("app") == {"optimizer": {"rate": 1}}


def test_the_name_is_the_recipes(project):
    project.recipe(name="deep/er")
    assert compose(["recipe=deep/er"]).tree["name"] == "deep-er"
    assert compose(["recipe=deep/er", "name=other"]).tree["name"] == "other"


def test_callbacks_are_added_by_name_in_their_order(project):
    project.write("conf/callback/mine.yaml", "b: {_target_: parts.Part}\na: {_target_: parts.Part}\n")
    project.recipe("defaults: [{override /callback: [sample, mine]}]\n")
    assert list(compose(["recipe=mine"]).tree["callback"]) == ["sample", "b", "a"]
    assert list(compose(["recipe=mine", "callback=[mine]"]).tree["callback"]) == ["b", "a"]
    for without in ("callback=none", "callback=null", "~callback"):
        assert compose(["recipe=mine", without]).tree["callback"] == {}


def test_an_element_of_a_list_can_be_set(project):
    assert compose(["recipe=hello", "optimizer.betas.1=0.99"]).tree["optimizer"]["betas"] == [0.9, 0.99]


def test_a_key_can_be_removed(project):
    assert "lr" not in compose(["recipe=mine", "~optimizer.lr"]).tree["optimizer"]


@pytest.mark.parametrize("recipe", ["hello", "gpt/tiny"])
def test_layers_lie_as_hydra_would_lay_them(recipe, project, monkeypatch):
    """Where no `_target_` changes, the tree is the one that Hydra's own compose makes of the same files."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf
    group, _, name = f"recipe/{recipe}".rpartition("/")
    ConfigStore.instance().store(name, OmegaConf.load(asset_dir("recipes") / f"{recipe}.yaml"), group=group, package="_global_")
    overrides = [f"recipe={recipe}", "strategy=fsdp", "optimizer.lr=0.25", "steps=7", "+x={a: [1, b]}", "+x.c=${steps}"]
    try:
        with initialize_config_dir(os.fspath(asset_dir("conf")), version_base="1.3"):
            expected = OmegaConf.to_container(hydra_compose("run", overrides), resolve=True)
    finally:
        ConfigStore.instance().repo.pop("recipe")
    tree = compose(overrides).tree
    assert {**tree, "name": None} == expected
