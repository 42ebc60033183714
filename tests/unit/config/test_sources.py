from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mltrain.config.catalog import catalog, copy
from mltrain.config.compose import compose
from mltrain.config.sources import sources
from mltrain.errors import ConfigError, MissingInput, UsageError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed wheel `acme_lab` with recipes/, conf/ and an entry point; importing it would leave a mark."""
    site = tmp_path / "site-packages"
    for name, text in {
        "acme_lab/__init__.py": "raise SystemExit('imported')",
        "acme_lab/recipes/mine2.yaml": "defaults: [/recipe/hello, {override /optimizer: acme}]\n",
        "acme_lab/recipes/hello2.yaml": "defaults: [/recipe/hello]\n",
        "acme_lab/conf/optimizer/acme.yaml": "_target_: acme_lab.optim.Fast\nlr: 1\n",
        "acme_lab-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme-lab\nVersion: 1\n",
        "acme_lab-1.dist-info/entry_points.txt": "[mltrain.recipes]\nacme = acme_lab.recipes\n",
    }.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    return site


def test_the_projects_recipe_wins_over_a_built_in_one_and_that_is_noted(project):
    project.recipe(name="hello")
    composed = compose(["recipe=hello"])
    assert composed.tree["task"]["_target_"] == "parts.Task"
    assert composed.notes == ["recipe=hello is your recipes/hello.yaml, not the built-in one"]


def test_the_projects_option_wins_over_a_built_in_one_and_that_is_noted(project):
    project.write("conf/optimizer/sgd.yaml", "_target_: parts.Sgd\nlr: 0.7\n")
    composed = compose(["recipe=hello", "optimizer=sgd"])
    assert composed.tree["optimizer"]["_target_"] == "parts.Sgd"
    assert composed.notes == ["optimizer=sgd is your conf/optimizer/sgd.yaml, not the built-in one"]


def test_an_installed_package_brings_recipes_and_options_without_being_imported(project, package):
    composed = compose(["recipe=mine2"])
    assert composed.tree["optimizer"] == {"_target_": "acme_lab.optim.Fast", "lr": 3.0e-3}
    assert composed.allowed.prefixes == ("acme_lab.",)


def test_a_package_that_is_not_used_may_not_be_named(project, package):
    assert compose(["recipe=hello"]).allowed.prefixes == ()


def test_one_name_in_a_package_and_the_project_is_refused_with_both_files(project, package):
    project.recipe(name="mine2")
    with pytest.raises(ConfigError, match=r"found twice: recipes/mine2.yaml and .*acme_lab/recipes/mine2.yaml"):
        compose(["recipe=mine2"])


def test_by_its_path_either_of_them_can_be_used(project, package):
    project.recipe(name="mine2")
    assert compose(["recipe=./recipes/mine2.yaml"]).tree["steps"] == 10


def test_a_recipe_may_be_a_folder(project):
    project.write("recipes/vision/digits/recipe.yaml", "defaults: [/recipe/mine]\n")
    assert "vision/digits" in sources(project.folder).recipes
    assert compose(["recipe=vision/digits"]).tree["steps"] == 10


def test_the_list_says_what_each_recipe_says_of_itself(project):
    project.recipe("meta: {title: Mine, needs: nothing}\n")
    project.write("recipes/broken.yaml", "a: [")
    rows = {row["name"]: row for row in catalog(project.folder)}
    assert rows["mine"] | {"expect": ""} == {"name": "mine", "home": "project", "file": "recipes/mine.yaml", "title": "Mine",
                                              "needs": "nothing", "expect": ""}
    assert rows["hello"]["home"] == "built-in"
    assert rows["broken"]["error"].startswith("recipes/broken.yaml:")


def test_a_copy_is_the_file_and_never_overwrites(project):
    target = copy("hello", Path("recipes/new.yaml"), project.folder)
    original = sources(project.folder).recipe("hello").path.read_bytes()
    assert target.read_bytes() == original
    target.write_text("mine now")
    with pytest.raises(UsageError, match="there already"):
        copy("hello", Path("recipes/new.yaml"), project.folder)
    assert target.read_text() == "mine now"
    assert [path.name for path in (project.folder / "recipes").iterdir() if path.name.startswith(".")] == []


def test_a_site_file_that_is_named_must_be_there(project, monkeypatch):
    monkeypatch.setenv("MLTRAIN_SITE", "/nowhere/site.yaml")
    with pytest.raises(MissingInput, match="MLTRAIN_SITE=/nowhere/site.yaml"):
        compose(["recipe=mine"])


def test_the_usual_site_file_is_read(project, tmp_path):
    project.write("no-site/mltrain/site.yaml", "launcher: {workers: 7}\nallow_targets: [acme]\n")
    composed = compose(["recipe=mine"])
    assert composed.tree["launcher"]["workers"] == 7
    assert composed.allowed.prefixes == ("acme.",)
    assert "allow_targets" not in composed.tree
    assert composed.origins["launcher.workers"].line == 1
