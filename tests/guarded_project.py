"""A user's project whose samples can be poisoned and whose memory can be bad: what the tests of roll-backs and of replicas share.

Sample `poison` multiplies the loss of its micro-batch by `times`. FLIP="what rank step [attempt]" flips a bit of a weight or of a reduced
gradient there (attempt 0: in every one); FAULT as in small_project.
"""
from __future__ import annotations

from pathlib import Path

import small_project

from mltrain.checkpoint.catalog import digest
from mltrain.data.order import SampleOrder
from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file

SAMPLES, GLOBAL_BATCH = 640, 16
RECIPE = f"""
defaults:
  - override /schedule: linear
task: {{_target_: parts.Fit}}
data: {{_target_: parts.Points, samples: {SAMPLES}}}
optimizer: {{_target_: parts.Flipping, lr: 5.0e-3}}
steps: 32
global_batch: {GLOBAL_BATCH}
micro_batch: 2
checkpoint: {{every: 4, keep: 3}}
metrics: {{every: 4}}
guard: {{window: 8}}
launcher: {{workers: 2}}
callback: {{fault: {{_target_: hooks.Fault}}, counting: {{_target_: hooks.Counting}}, flip: {{_target_: parts.Flip}}}}
"""
PARTS = '''
"""A small regression, its data, and hardware that is not what it was."""
import os

import torch
from torch import nn
from torch.nn import functional

from mltrain import Callback, Loss, Task
from mltrain.data.arrays import Arrays
from mltrain.testing.faults import corrupt_at


class Points:
    def __init__(self, samples):
        draw = torch.Generator().manual_seed(7)
        x = torch.randn(samples, 4, generator=draw)
        self.train = Arrays({"x": x, "y": x.sin().sum(1), "id": torch.arange(samples)})
        self.validation = None

    def describe(self):
        return {"fingerprint": self.train.fingerprint}


class Fit(Task):
    def __init__(self, poison: list[int] = (), times: float = 1e4):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))
        self.register_buffer("poison", torch.tensor(list(poison), dtype=torch.int64), persistent=False)
        self.times = times

    def loss(self, batch):
        total = functional.mse_loss(self.model(batch["x"]).squeeze(1), batch["y"], reduction="sum")
        bad = bool(torch.isin(batch["id"], self.poison).any())
        return Loss(total * self.times if bad else total, len(batch["y"]))


def flip(what):
    """corrupt_at for this kind of memory, as FLIP says."""
    kind, rank, step, attempt = (os.environ.get("FLIP", "none 0 0").split() + ["1"])[:4]
    here = int(os.environ.get("MLTRAIN_ATTEMPT", 1))
    return corrupt_at(int(rank), int(step) if kind == what else -1, int(attempt) or here)


class Flip(Callback):
    def __init__(self, task):
        self.weight, self.flip = next(task.parameters()), flip("weight")

    def step(self, progress, result):
        self.flip(progress.step, self.weight)


class Flipping(torch.optim.AdamW):
    def step(self, closure=None):
        weight = self.param_groups[0]["params"][0]
        done = int(self.state[weight]["step"]) if weight in self.state else 0
        FLIP_GRADIENT(done + 1, weight.grad)
        return super().step(closure)


FLIP_GRADIENT = flip("gradient")
'''


def make(folder: Path) -> Path:
    """The project, in `folder`."""
    (folder / "recipes").mkdir(parents=True)
    (folder / "recipes" / "guarded.yaml").write_text(RECIPE)
    (folder / "hooks.py").write_text(small_project.HOOKS)
    (folder / "parts.py").write_text(PARTS)
    return folder


def poisoned(*steps: int) -> str:
    """The override that poisons one sample of each of these steps."""
    ids = [int(SampleOrder(SAMPLES).ids(at := (step - 1) * GLOBAL_BATCH + 3, at + 1)[0]) for step in steps]
    return f"task.poison={ids}".replace(" ", "")


def run_of(project: Path, name: str) -> Path:
    """The newest run of this name."""
    return max((project / "runs").glob(f"{name}-2*"))


def rows(project: Path, name: str, event: str) -> list[ledger.Row]:
    return [row for row in ledger.read(ledger_file(run_of(project, name))) if row["event"] == event]


def state(project: Path, name: str) -> str:
    """Step and digest of the newest checkpoint."""
    run = run_of(project, name)
    found = digest(str(run / "checkpoints"), retired=ledger.retired(ledger_file(run)))
    return f"{found['step']} {found['digest']}"
