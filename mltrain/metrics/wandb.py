"""Weights & Biases, and packages with its interface (trackio): one tracker run with one curve over all attempts of a run.

The tracker's run has the run's own id and is resumed by each attempt. Its x axis is our `step`, not the tracker's count of calls: a step
that is done again after a restart lies on the same place of the axis, and the later row counts. What a tracker missed while it was away
is filled by `mltrain metrics replay RUN --to wandb`.

What leaves the process is the records and the recipe, and of both no secret. The client's own collecting (command line, paths, packages,
git, code, console, host) is switched off.
"""
from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from mltrain.extras import require
from mltrain.metrics.sink import Record, numbers
from mltrain.runs.layout import config_file
from mltrain.trust.redact import redact_data, register

_LONGEST_ID = 128        # what W&B takes
_KEYS = ("WANDB_API_KEY", "HF_TOKEN", "TRACKIO_WRITE_TOKEN")


class Wandb:
    """mode: online, offline or disabled (default: WANDB_MODE, else what the client does by itself). name: shown (default: the run's id).
    package: wandb or trackio. system: let the client measure processor, memory and devices, too.
    Files lie in RUN/wandb (of trackio: where TRACKIO_DIR says). Raises NodeUnfit (69) if the package is missing."""

    def __init__(self, project: str = "mltrain", entity: str | None = None, name: str | None = None, mode: str | None = None,
                 tags: list[str] | None = None, package: Literal["wandb", "trackio"] = "wandb", system: bool = False) -> None:
        self.project, self.entity, self.name, self.mode, self.tags, self.system = project, entity, name, mode, tags, system
        self.package = package
        self._client: ModuleType = require(package, "the metrics sink wandb")
        self._directory: Path | None = None
        self._anew, self._suffix = False, ""
        self._run: Any = None
        for key in _KEYS:
            register(os.environ.get(key, ""))

    def begin(self, directory: str, attempt: int, anew: bool = False) -> None:
        # Two attempts of one second would share a folder, and the later one overwrite the earlier.
        self._directory, self._anew, self._suffix = Path(directory), anew, f"a{attempt:04d}"

    def write(self, record: Record) -> None:
        row = dict(numbers(record))
        if not row:
            return
        if self._run is None:                   # not before there is something to show: a run that dies early leaves no empty curve
            self._run = self._start_trackio() if self.package == "trackio" else self._start_wandb()
        if self.package == "trackio":
            self._run.log(row, step=record["step"])
        else:
            self._run.log(row | {"step": record["step"]})

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()

    @property
    def _id(self) -> str | None:
        return self._directory.name[-_LONGEST_ID:].lstrip("-") if self._directory else None

    def _start_wandb(self) -> Any:
        if self._anew and self._directory:
            set_aside(self._directory / "wandb", self._id or "")
        settings = self._client.Settings(
            x_disable_meta=True, x_disable_machine_info=True, x_disable_stats=not self.system, x_save_requirements=False, save_code=False,
            disable_code=True, disable_git=True, disable_job_creation=True, console="off", silent=True, host="", init_timeout=30.0,
            x_sync_dir_suffix=self._suffix)
        # create_new: a run that the user's own code has begun in this process stays the user's.
        run = self._client.init(
            project=self.project, entity=self.entity, id=self._id, name=self.name or self._id, mode=self.mode, tags=self.tags,
            resume=None if self._anew else "allow", dir=self._directory and str(self._directory), config=self._config(), settings=settings,
            reinit="create_new")
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        return run

    def _start_trackio(self) -> Any:
        name = self.name or self._id
        if self._anew:
            for old in import_module("trackio").Api().runs(self.project):
                if old.name == name:
                    old.delete()
        return self._client.init(project=self.project, name=name, config=self._config(), resume="never" if self._anew else "allow",
                                 embed=False, auto_log_gpu=self.system, auto_log_cpu=self.system)

    def _config(self) -> dict[str, Any]:
        """The recipe, secrets by name only."""
        if self._directory is None or not config_file(self._directory).is_file():
            return {}
        tree = redact_data(json.loads(config_file(self._directory).read_text())["tree"])
        return tree if isinstance(tree, dict) else {}


def set_aside(folder: Path, run_id: str) -> None:
    """Move what was written for this run before into folder/replaced, where `wandb sync` does not find it. Nothing is deleted: a user's
    own code may have added to it."""
    for old in sorted(folder.glob(f"*run-*-{run_id}*")):
        target = folder / "replaced" / old.name
        target.parent.mkdir(exist_ok=True)
        number = 0
        while target.exists():
            number += 1
            target = target.with_name(f"{old.name}.{number}")
        old.rename(target)
