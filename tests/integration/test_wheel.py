"""The wheel, as a stranger gets it: built, installed in a new environment, used in an empty folder far from this checkout."""
from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(600)


def shell(*command: object, cwd: Path, code: int = 0) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, f"{command} gave {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    shell(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=ROOT)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with the wheel. It sees the dependencies of this one by a line in a .pth file; Python does not read the
    .pth files of a folder that was added so, hence the editable install of this checkout does not leak in."""
    folder = tmp_path_factory.mktemp("environment")
    shell(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    shell(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(shell(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return folder


@pytest.fixture
def mltrain(environment: Path, tmp_path: Path):
    """Runs the installed command in an empty folder."""
    return lambda *arguments, code=0: shell(environment / "bin" / "mltrain", *arguments, cwd=tmp_path, code=code)


def test_the_wheel_holds_the_package_and_its_assets_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("mltrain/py.typed", "mltrain/conf/run.yaml", "mltrain/recipes/hello.yaml", "mltrain/recipes/gpt/tiny.yaml",
                   "mltrain/launchers/.mltrain-assets"):
        assert wanted in names
    assert {name.partition("/")[0] for name in names} == {"mltrain", "mltrain_core-0.1.0.dist-info"}
    assert [name for name in names if "test_" in name or "__pycache__" in name or "/tests/" in name] == []


def test_it_is_the_wheel_that_is_imported(environment, tmp_path):
    code = "import mltrain, mltrain.conf, mltrain.recipes; print(mltrain.__file__, mltrain.conf.__file__, mltrain.recipes.__file__)"
    paths = shell(environment / "bin" / "python", "-c", code, cwd=tmp_path).split()
    assert [path for path in paths if not path.startswith(str(environment))] == []


def test_version(mltrain):
    assert mltrain("--version") == "mltrain 0.1.0\n"


def test_recipes_are_found(mltrain):
    assert {"hello", "gpt/tiny"} <= {row["name"] for row in json.loads(mltrain("recipes", "list", "--json"))}


def test_a_recipe_is_checked(mltrain):
    mltrain("check", "recipe=hello")
    mltrain("check", "recipe=hello", "step=3", code=78)
    mltrain("check", "recipe=helo", code=66)


def test_doctor_finds_the_installation_in_order(mltrain):
    rows = json.loads(mltrain("doctor", "--json"))
    assert [row for row in rows if row["state"] == "bad"] == []


def test_a_run_trains(mltrain, tmp_path):
    mltrain("launch", "recipe=hello", "steps=3", "schedule.warmup=1")
    (row,) = json.loads(mltrain("status", "--json"))
    assert (row["state"], row["step"]) == ("done", 3)
    assert list((tmp_path / "runs").glob("hello-*/config.json"))


OWN_MODEL = '''
"""A model of one's own: what comes next depends on the last byte alone."""
from torch import nn


class LastByte(nn.Module):
    def __init__(self, width: int = 16, vocabulary: int = 257) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary)

    def forward(self, tokens, documents=None):
        return self.out(self.table(tokens))
'''
OWN_RECIPE = """
defaults:
  - override /task: last_byte
  - override /data: stdlib
meta: {title: A project of one's own}
data: {sequence: 64, validation_samples: 8}
steps: 3
global_batch: 8
micro_batch: 4
"""
OWN_TASK = """
_target_: mltrain.models.language.LanguageModeling
model: {_target_: last_byte.LastByte, width: 8}
"""


def test_a_project_of_ones_own_with_model_recipe_and_conf(mltrain, tmp_path):
    for name, text in {"last_byte.py": OWN_MODEL, "recipes/mine.yaml": OWN_RECIPE, "conf/task/last_byte.yaml": OWN_TASK}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    mltrain("check", "recipe=mine")
    mltrain("check", "recipe=mine", "task.model.widht=4", code=78)
    mltrain("launch", "recipe=mine")
    (row,) = json.loads(mltrain("status", "--json"))
    assert (row["name"], row["state"], row["step"]) == ("mine", "done", 3)
