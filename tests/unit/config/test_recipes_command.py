from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from mltrain.cli.main import main


def test_list_names_every_recipe_with_its_title(project, capsys):
    project.recipe("meta: {title: Mine, needs: a laptop}\n")
    assert main(["recipes"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^mine +Mine$", out, re.MULTILINE) and "needs a laptop" in out and "gpt/tiny" in out


def test_show_prints_yaml_that_means_the_tree(project, capsys):
    import yaml
    assert main(["recipes", "show", "mine", "optimizer.lr=1e-3", "--origin"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert main(["recipes", "show", "mine", "optimizer.lr=1e-3", "--json"]) == 0
    assert shown == json.loads(capsys.readouterr().out)["tree"]


def test_show_as_json_with_origins(project, capsys):
    assert main(["recipes", "show", "mine", "--json", "--origin"]) == 0
    assert json.loads(capsys.readouterr().out)["origins"]["steps"] == "recipes/mine.yaml:10"


def test_show_of_a_secret_shows_its_name(project, capsys):
    assert main(["recipes", "show", "mine", "+x.token='${secret:TOKEN}'"]) == 0
    assert "${secret:TOKEN}" in capsys.readouterr().out


def test_show_says_what_is_shadowed(project, capsys):
    project.recipe(name="hello")
    assert main(["recipes", "show", "hello"]) == 0
    assert "# note: recipe=hello is your recipes/hello.yaml" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "code", "told"), [
    (["show"], 64, "which recipe?"), (["show", "mien"], 66, "did you mean 'mine'?"), (["list", "mine"], 64, "takes no name"),
    (["copy", "mine"], 64, "a destination"), (["copy", "mien", "x.yaml"], 66, "did you mean"),
    (["copy", "mine", "x.txt"], 64, "no .yaml file"),
    (["dance"], 64, "dance"), (["--nothing"], 64, "--nothing"), (["show", "mine", "schedule=cosin"], 78, "'cosine'"),
    (["copy", "mine", "recipes/mine.yaml"], 64, "there already"),
])
def test_wrong_command_lines(project, capsys, arguments, code, told):
    assert main(["recipes", *arguments]) == code
    assert told in capsys.readouterr().err


def test_a_copy_that_cannot_be_written_is_told(project, capsys):
    project.write("file", "")
    assert main(["recipes", "copy", "mine", "file/x.yaml"]) == 74
    assert "cannot write" in capsys.readouterr().err


def test_composing_needs_no_torch(project):
    code = "import sys; from mltrain.api import show, recipes; show(['recipe=hello']); recipes(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_listing_needs_no_hydra(project):
    code = "import sys; from mltrain.api import recipes; recipes(); assert not {'torch', 'hydra', 'omegaconf'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
