"""A run as an object, for a notebook: what it was, what it did, and what it learnt. Nothing is read before it is asked for.

    run = mltrain.load("hello")
    run.metrics.to_pandas().plot(x="step", y="loss")
    model = run.module()
"""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltrain.errors import ConfigError, MissingInput
from mltrain.runs import ledger, outcome
from mltrain.runs.curve import Row, read
from mltrain.runs.layout import checkpoints_folder, config_file, find_run, ledger_file

if TYPE_CHECKING:
    import pyarrow
    import torch

    from mltrain.task import Task

_WEIGHTS = ("parameters/", "buffers/")


def load(run: str | os.PathLike[str], runs: str | os.PathLike[str] = "runs") -> Run:
    """run: its folder, or any unique part of its id in the folder `runs`. Raises UsageError (64), MissingInput (66)."""
    return Run(find_run(Path(runs), os.fspath(run)))


class Run:
    """A run directory. Each attribute is read anew: of a live run it is what is there now."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.id = directory, directory.name

    def __repr__(self) -> str:
        status = self.status
        return f"<run {self.id}: {status['state']} at step {status['step']}>"

    @property
    def config(self) -> dict[str, Any]:
        """The composed recipe; {} of a run without one (of `mltrain agent`). Secrets stand there by name."""
        return dict(self._config["tree"])

    @property
    def status(self) -> dict[str, Any]:
        """As in status.json: state, step, steps, samples, tokens, loss, attempts, goodput, ..."""
        return dict(outcome.read_status(self.directory))

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """What happened, row by row, oldest first."""
        return [dict(row) for row in ledger.read(ledger_file(self.directory))]

    @property
    def metrics(self) -> pyarrow.Table:
        """The train and evaluate records as one table: a row a record, by step, the last attempt of each; column kind tells them apart.
        What a record lacks is null."""
        curve = read(self.directory)
        return _table(sorted([*curve.train, *curve.evaluate], key=lambda row: (row["step"], row["kind"] != "train")))

    @property
    def notes(self) -> list[str]:
        """The sentences for people, in the order in which they were written."""
        return [str(row["text"]) for row in read(self.directory).notes]

    def checkpoint(self, step: int | None = None) -> dict[str, torch.Tensor]:
        """A saved state, whole, in this process's memory: parameters/NAME, buffers/NAME, optimizer/NAME/KEY. step: default the one that a
        resume would take. Raises MissingInput (66: there is none), DataError (65: it is damaged)."""
        return self._read(step, "")

    def module(self, step: int | None = None) -> Task:
        """The task, built from the recipe, with the weights of a checkpoint; ready to be used (eval mode). Raises as `checkpoint` does, and
        ConfigError (78) if the code has changed since, so that the weights no longer fit."""
        from mltrain.config.build import build
        from mltrain.config.targets import Allowed
        if "task" not in self.config:
            raise MissingInput(f"{self.id} has no recipe, so there is no task to build", "run.checkpoint() has its tensors")
        here = os.getcwd()
        if os.path.isdir(self._config["directory"]):
            os.chdir(self._config["directory"])                    # relative paths mean what they meant at launch
        try:
            task: Task = build(self.config["task"], allowed=Allowed.from_dict(self._config["allowed"]), secrets=True)
        finally:
            os.chdir(here)
        weights = {name.partition("/")[2]: value for prefix in _WEIGHTS for name, value in self._read(step, prefix).items()}
        _fill(task, weights, self.id)
        return task.eval()

    @property
    def _config(self) -> dict[str, Any]:
        if not config_file(self.directory).is_file():
            return {"tree": {}}
        config: dict[str, Any] = json.loads(config_file(self.directory).read_text())
        return config

    def _read(self, step: int | None, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors whose names begin so."""
        import torch

        from mltrain.checkpoint import catalog
        from mltrain.checkpoint.reader import load as load_tensors
        from mltrain.checkpoint.reader import torch_dtype
        from mltrain.checkpoint.storage import open_storage
        path = (self.config.get("checkpoint") or {}).get("path") or str(checkpoints_folder(self.directory))
        retired = ledger.retired(ledger_file(self.directory)) if ledger_file(self.directory).is_file() else []
        storage = open_storage(path)
        manifest = catalog.latest(storage, step, retired)
        state = {name: torch.empty(tensor.shape, dtype=torch_dtype(tensor)) for name, tensor in manifest.tensors.items()
                 if name.startswith(prefix)}
        if state:
            load_tensors(storage, manifest, state)
        return state


def _table(rows: list[Row]) -> pyarrow.Table:
    """All columns that any row has, in the order in which they first appear."""
    import pyarrow
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pyarrow.table({name: pyarrow.array([row.get(name) for row in rows]) for name in names})


def _fill(task: Task, weights: dict[str, torch.Tensor], run: str) -> None:
    """Tied parameters are saved once, under their first name: the second is the same tensor."""
    import torch
    parameters = dict(task.named_parameters())
    tensors: dict[str, torch.Tensor] = {**parameters, **dict(task.named_buffers())}
    missing, extra = sorted(parameters.keys() - weights.keys()), sorted(weights.keys() - tensors.keys())
    wrong = sorted(name for name, value in weights.items() if name in tensors and value.shape != tensors[name].shape)
    for what, names in (("lacks", missing), ("has too much:", extra), ("has another shape of", wrong)):
        if names:
            raise ConfigError(f"the checkpoint of {run} {what} {', '.join(names[:4])}", "has the task's code changed since the run?")
    with torch.no_grad():
        for name, value in weights.items():
            tensors[name].copy_(value)
