"""A project to start from: a recipe, an option of its own, a model with its task and data, and a test that trains three steps."""
from __future__ import annotations

from pathlib import Path

from mltrain.errors import StorageError, UsageError

_RECIPE = """\
defaults:
  - override /optimizer: mine            # conf/optimizer/mine.yaml
meta:
  title: Which of two spirals a point lies on
  needs: a laptop, 10 seconds
  expect: over 95 % of the held-out points right
task: {_target_: model.Spirals, width: 64}
data: {_target_: model.Points, samples: 2048}
steps: 300
global_batch: 64
micro_batch: 16
eval_every: 100
schedule: {warmup: 10}
launcher: {workers: 2}
"""

_OPTIMIZER = """\
# An option of your own: optimizer=mine. Its keys are the arguments of the class; mltrain check knows them.
_target_: torch.optim.AdamW
lr: 1.0e-2
weight_decay: 0.01
"""

_MODEL = '''\
"""Two spirals: a task (the model and what it minimises) and its data. Replace both by your own."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mltrain import Loss, Task


class Spirals(Task):
    """width: of the hidden layers. The arguments here are the keys below `task:` in the recipe."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """A sum, and what to divide it by: right for any split into micro-batches and ranks."""
        logits = self.layers(batch["point"])
        return Loss(functional.cross_entropy(logits, batch["spiral"], reduction="sum"), len(logits))

    def evaluate(self, batch: dict[str, Tensor]) -> dict[str, Loss]:
        right = self.layers(batch["point"]).argmax(1) == batch["spiral"]
        return {"loss": self.loss(batch), "accuracy": Loss(right.sum(), len(right))}


class Dataset:
    """A dataset: its length, columns, a fingerprint (part of the run's identity), and rows by number."""

    schema = {"point": "float32", "spiral": "int64"}
    tokens_per_sample = 1

    def __init__(self, samples: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.spiral = torch.randint(2, (samples,), generator=draw)
        turn = torch.rand(samples, generator=draw).sqrt() * 3 * math.pi
        angle = turn + math.pi * self.spiral
        noise = 0.1 * torch.randn(samples, 2, generator=draw)
        self.point = (torch.stack([turn * angle.cos(), turn * angle.sin()], 1) + noise) / 5
        self.fingerprint = f"spirals-{samples}-{seed}"

    def __len__(self) -> int:
        return len(self.spiral)

    def fetch(self, ids: Tensor) -> dict[str, Tensor]:
        index = torch.as_tensor(ids)
        return {"point": self.point[index], "spiral": self.spiral[index]}


class Points:
    """What `data:` names: training and validation data."""

    def __init__(self, samples: int = 2048) -> None:
        self.train, self.validation = Dataset(samples, seed=1), Dataset(512, seed=2)

    def describe(self) -> dict[str, object]:
        return {"fingerprint": self.train.fingerprint}
'''

_TEST = '''\
"""The recipe is right, and it trains: three steps in a process of its own. Run with: pytest"""
import json
import subprocess
import sys
from pathlib import Path

from mltrain import api

PROJECT = Path(__file__).resolve().parent


def test_the_recipe_has_no_mistakes():
    assert api.check(["recipe=mine"], PROJECT) == []


def test_three_steps_train(tmp_path):
    short = ["steps=3", "schedule.warmup=1", "launcher.workers=1", f"runs={tmp_path}"]
    subprocess.run([sys.executable, "-m", "mltrain", "launch", "recipe=mine", *short], cwd=PROJECT, check=True, timeout=300)
    (status,) = (json.loads(path.read_text()) for path in tmp_path.glob("mine-*/status.json"))
    assert (status["state"], status["step"]) == ("done", 3)
'''

_README = """\
# NAME
A project for mltrain.

    mltrain check recipe=mine            find mistakes before anything runs
    mltrain launch recipe=mine           train
    mltrain report mine                  one page about the run
    pytest                               the recipe is right, and three steps train

| file | what it is |
|---|---|
| `recipes/mine.yaml` | the recipe: what differs from the defaults |
| `conf/optimizer/mine.yaml` | an option of a group: `optimizer=mine` |
| `model.py` | the task (model and loss) and its data |
| `test_project.py` | trains three steps |

`mltrain recipes show mine --origin` prints every key with the file and line that set it. Runs are kept in `runs/`.
"""

_IGNORED = "runs/\ndata/\n__pycache__/\n.pytest_cache/\n.venv/\n"

FILES = {"recipes/mine.yaml": _RECIPE, "conf/optimizer/mine.yaml": _OPTIMIZER, "model.py": _MODEL, "test_project.py": _TEST,
         "README.md": _README, ".gitignore": _IGNORED}


def make(folder: Path) -> list[Path]:
    """Write the files of a new project; they are returned. Only into a folder that is empty or not there: UsageError (64)."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        wrong = "is not empty" if folder.is_dir() else "is a file"
        raise UsageError(f"{folder} {wrong}", "name a new folder: nothing is overwritten")
    made = []
    try:
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x") as file:
                file.write(text.replace("# NAME", f"# {folder.resolve().name}"))
            made.append(path)
    except OSError as error:
        raise StorageError(f"{error.filename}: cannot be written: {error.strerror}", "is the disk full, or the folder read-only?") from None
    return made
