"""A project of one's own: model, data, recipe and conf option in a folder far from this checkout; checked, shown and trained for real."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)
MLTRAIN = Path(sys.executable).with_name("mltrain")

FILES = {
    "model.py": '''
"""Which of two clouds of points is it? A task and data that know nothing of language."""
import torch
from torch import nn

from mltrain import Loss, Task


class Clouds(Task):
    def __init__(self, width: int = 8, token: str = "") -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2))
        if token:
            print("token has", len(token), "letters")

    def loss(self, batch):
        logits = self.layers(batch["point"])
        return Loss(nn.functional.cross_entropy(logits, batch["cloud"], reduction="sum"), len(logits))


class Points:
    schema = {"point": "float32", "cloud": "int64"}
    tokens_per_sample = 1

    def __init__(self, samples: int) -> None:
        draw = torch.Generator().manual_seed(1)
        self.cloud = torch.randint(2, (samples,), generator=draw)
        self.point = torch.randn(samples, 2, generator=draw) + 4 * self.cloud[:, None]
        self.fingerprint = f"clouds-{samples}"

    def __len__(self):
        return len(self.cloud)

    def fetch(self, ids):
        index = torch.as_tensor(ids)
        return {"point": self.point[index], "cloud": self.cloud[index]}


class Source:
    def __init__(self, samples: int = 64) -> None:
        self.train, self.validation = Points(samples), Points(16)

    def describe(self):
        return {"fingerprint": self.train.fingerprint}
''',
    "conf/optimizer/mine.yaml": "_target_: torch.optim.SGD\nlr: 0.05\nnesterov: true\nmomentum: 0.9\n",
    "recipes/mine.yaml": """\
defaults:
  - override /optimizer: mine
  - override /schedule: constant
meta: {title: Two clouds}
task: {_target_: model.Clouds, width: 16}
data: {_target_: model.Source, samples: 128}
steps: 6
global_batch: 16
micro_batch: 4
eval_every: 3
launcher: {workers: 2}
""",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def mltrain(folder: Path, *arguments: str, code: int = 0, **environment: str) -> str:
    done = subprocess.run([MLTRAIN, *arguments], cwd=folder, env=os.environ | environment, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=200)
    assert done.returncode == code, f"{arguments} gave {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write(tmp_path / "project", FILES)


def test_the_recipe_is_listed_shown_and_right(project):
    row, = [row for row in json.loads(mltrain(project, "recipes", "list", "--json")) if row["name"] == "mine"]
    assert (row["home"], row["file"], row["title"]) == ("project", "recipes/mine.yaml", "Two clouds")
    shown = [" ".join(line.split()) for line in mltrain(project, "recipes", "show", "mine", "optimizer.lr=0.5", "--origin").splitlines()]
    assert "nesterov: true # conf/optimizer/mine.yaml:3" in shown
    assert "lr: 0.5 # command line" in shown
    assert "mine: no mistakes" in mltrain(project, "check", "recipe=mine")


def test_a_mistake_in_it_is_told_with_its_line_and_nothing_is_started(project):
    recipe = project / "recipes/mine.yaml"
    recipe.write_text(recipe.read_text().replace("width: 16", "widht: 16"))
    told = mltrain(project, "launch", "recipe=mine", code=78)
    assert "task.widht" in told and "did you mean 'width'?" in told and "recipes/mine.yaml:5" in told
    assert not (project / "runs").exists()


def test_it_trains(project):
    mltrain(project, "launch", "recipe=mine")
    row, = json.loads(mltrain(project, "status", "--json"))
    assert (row["name"], row["state"], row["step"]) == ("mine", "done", 6)


def test_it_trains_from_another_working_directory(project, tmp_path):
    elsewhere = write(tmp_path / "elsewhere", {})
    elsewhere.mkdir()
    mltrain(elsewhere, "launch", f"recipe={project}/recipes/mine.yaml", "steps=2", "launcher.workers=1")
    row, = json.loads(mltrain(elsewhere, "status", "--json"))
    assert (row["name"], row["state"], row["step"]) == ("mine", "done", 2)


def test_a_secret_reaches_the_worker_and_no_file(project):
    own = ("steps=1", "launcher.workers=1", "task.token=${secret:CLOUD_TOKEN}")
    mltrain(project, "launch", "recipe=mine", *own, CLOUD_TOKEN="canary-7f3a")
    logs = "".join(path.read_text() for path in project.glob("runs/*/attempts/*/*.log"))
    assert "token has 11 letters" in logs
    assert [path for path in (project / "runs").rglob("*") if path.is_file() and b"canary-7f3a" in path.read_bytes()] == []


def test_a_package_of_recipes_is_found_by_its_entry_point(tmp_path):
    site = write(tmp_path / "site", {
        "acme_lab/__init__.py": "", "acme_lab/clouds.py": FILES["model.py"],
        "acme_lab/recipes/acme/clouds.yaml": FILES["recipes/mine.yaml"].replace("model.", "acme_lab.clouds.").replace("mine", "acme"),
        "acme_lab/conf/optimizer/acme.yaml": FILES["conf/optimizer/mine.yaml"],
        "acme_lab-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme-lab\nVersion: 1\n",
        "acme_lab-1.dist-info/entry_points.txt": "[mltrain.recipes]\nacme = acme_lab.recipes\n"})
    empty = write(tmp_path / "empty", {})
    empty.mkdir()
    homes = {row["name"]: row["home"] for row in json.loads(mltrain(empty, "recipes", "list", "--json", PYTHONPATH=str(site)))}
    assert homes["acme/clouds"] == "acme_lab"
    mltrain(empty, "launch", "recipe=acme/clouds", "steps=2", "launcher.workers=1", PYTHONPATH=str(site))
    mltrain(empty, "check", "recipe=acme/clouds", code=66)


def test_a_copy_of_a_built_in_recipe_is_a_start(tmp_path):
    mltrain(tmp_path, "recipes", "copy", "hello", "recipes/own.yaml")
    mltrain(tmp_path, "check", "recipe=own", "steps=20")
    assert "there already" in mltrain(tmp_path, "recipes", "copy", "hello", "recipes/own.yaml", code=64)
