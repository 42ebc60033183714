"""A user's project in an empty folder: recipes/, conf/ and parts of its own, so that these tests need no torch."""
from __future__ import annotations

from pathlib import Path

import pytest

PARTS = '''
from __future__ import annotations

import os
from dataclasses import dataclass
from os import system
from typing import Literal


class Model:
    def __init__(self, width: int = 8, dropout: float = 0.0) -> None:
        self.width, self.dropout = width, dropout


class Task:
    def __init__(self, model: Model, kind: Literal["mean", "sum"] = "sum") -> None:
        self.model, self.kind = model, kind


class Data:
    def __init__(self, path: str, seed: int = 0, mixture: dict[str, float] | None = None, key: str = "") -> None:
        self.path, self.seed, self.mixture, self.key = path, seed, mixture, key


class Adam:
    def __init__(self, params: list[int], lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.params, self.lr, self.betas = params, lr, betas


class Sgd:
    def __init__(self, params: list[int], lr: float, momentum: float = 0.0) -> None:
        self.params, self.lr, self.momentum = params, lr, momentum


@dataclass
class Part:
    every: int = 1
    workers: int | None = None


class Nesterov(Sgd):
    def __init__(self, *args, nesterov: bool = True, **kwargs) -> None:
        super().__init__(*args, **kwargs)


class Refuses:
    def __init__(self, lr: float) -> None:
        raise ValueError(f"lr={lr} is too large")


def function(steps: int, warmup: int = 0) -> int:
    return steps - warmup
'''

RECIPE = """\
task: {_target_: parts.Task, model: {_target_: parts.Model, width: 8}}
data: {_target_: parts.Data, path: somewhere}
optimizer: {_target_: parts.Adam, lr: 0.1}
schedule: {_target_: parts.function, warmup: 2}
strategy: {_target_: parts.Part}
precision: {_target_: parts.Part}
checkpoint: {_target_: parts.Part}
launcher: {_target_: parts.Part, workers: 2}
metrics: {_target_: parts.Part}
steps: 10
global_batch: 8
"""


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def recipe(self, more: str = "", name: str = "mine") -> Path:
        """A recipe that is right, and what `more` adds; the first line added is line 12."""
        return self.write(f"recipes/{name}.yaml", RECIPE + more)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLTRAIN_SITE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-site"))
    made = Project(tmp_path)
    made.write("parts.py", PARTS)
    made.recipe()
    return made
