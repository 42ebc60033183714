"""What happens before a run's first attempt, and when its recipe is changed: checked, its data prepared, its directory made."""
from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mltrain.config.build import build
from mltrain.config.check import check
from mltrain.config.compose import Composed, compose
from mltrain.config.interpolation import SECRET
from mltrain.config.origin import TARGET
from mltrain.config.problem import Problem, refuse
from mltrain.config.root import steps
from mltrain.errors import ConfigError, StorageError, UsageError
from mltrain.launch.launcher import Launcher
from mltrain.runs import layout, ledger, outcome, provenance
from mltrain.runs.atomic import write_json
from mltrain.runs.config import read_config
from mltrain.runs.difference import differences
from mltrain.trust.redact import redact
from mltrain.trust.secret import register_all

# Arguments that mltrain itself gives to the node of a group, if its signature has them and the recipe does not set them.
PROVIDED: dict[str, tuple[str, ...]] = {
    "data": ("seed",), "optimizer": ("params",), "schedule": ("steps",), "strategy": ("precision", "clip", "seed"),
    "checkpoint": ("directory", "attempt", "retired", "weights"), "metrics": ("directory", "attempt", "steps"),
    "callback": ("task", "data", "directory", "seed"),
}

VOCABULARY = ("task", "model", "vocabulary")     # where a model of tokens says how many ids it knows


def checked(overrides: Sequence[str], directory: Path | str | None = None) -> tuple[Composed, list[Problem]]:
    """A composed recipe and everything wrong with it: what `check` finds; if nothing, what shows when keys are taken together (does the
    batch divide, does the mesh fit). Raises MissingInput (66), UsageError (64), ConfigError (78) if it cannot be composed at all."""
    composed = compose(overrides, directory)
    problems = check(composed, PROVIDED)
    if not problems:
        problems = [Problem(key, message, hint, None, composed.origin(tuple(key.split("."))))
                    for key, message, hint in _arithmetic(composed)]
    return composed, problems


def _arithmetic(composed: Composed) -> list[tuple[str, str, str]]:
    """(key, message, hint) of the first sum that does not come out. The number of workers is known here only if the recipe says it."""
    from mltrain.parallel.mesh import choose_reduction, count_micro_batches, share, solve
    tree = composed.tree
    strategy, launcher = tree["strategy"], tree["launcher"]
    world = (launcher.get("workers") or 0) * launcher.get("nodes", 1)
    key = "launcher"
    try:
        launcher_of(composed)
        key = "micro_batch"
        micro_batches = count_micro_batches(tree["global_batch"], tree["micro_batch"])
        if world and "layout" in strategy:
            key = "strategy.replicate" if strategy["layout"] == "hsdp" else "launcher.workers"
            mesh = solve("ddp" if strategy["layout"] == "auto" else strategy["layout"], world, strategy.get("replicate"))
            key = "micro_batch"
            share(mesh, 0, micro_batches)
            key = "strategy.reduction"
            choose_reduction(strategy.get("reduction", "auto"), mesh, micro_batches)
        key = "schedule"
        length, unit = steps(tree["steps"])
        if unit == "steps":
            build(tree["schedule"], allowed=composed.allowed, steps=int(length))
        key = "checkpoint"
        if tree["checkpoint"][TARGET].startswith("mltrain."):          # ours touches nothing when it is made; anybody's may
            build(tree["checkpoint"], allowed=composed.allowed, directory=composed.directory, attempt=1, retired=(), weights=None)
        key = "guard"
        _guard(composed)
        key = "compare_every"
        _comparison(tree)
    except ConfigError as error:
        return [(key, error.message, error.hint)]
    return []


def _guard(composed: Composed) -> None:
    """Raises ConfigError if it could not go back: it needs a checkpoint that is old enough."""
    guard, saves = composed.tree["guard"], composed.tree["checkpoint"]
    if guard[TARGET].startswith("mltrain."):
        build(guard, allowed=composed.allowed)
    every, keep, back = saves.get("every", 100), saves.get("keep", 2), guard.get("back", 1)
    if "rollback" not in (guard.get("nonfinite"), guard.get("spike")) or not isinstance(every, int):
        return
    if every == 0:
        raise ConfigError("a roll-back needs checkpoints, and checkpoint.every=0 saves none", "set checkpoint.every, or guard=skip")
    if keep and back - 1 > (keep - 1) * every:
        raise ConfigError(f"guard.back={back}: the {keep} checkpoints that are kept may all be newer (checkpoint.every={every})",
                          f"set checkpoint.keep={1 - (1 - back) // every} or more, or 0: all")


def _comparison(tree: dict[str, Any]) -> None:
    """Raises ConfigError where there is nothing to compare."""
    every, layout = tree["compare_every"], tree["strategy"].get("layout")
    if every and layout in ("single", "fsdp"):
        raise ConfigError(f"compare_every={every}: under strategy={layout} there are no replicas to compare",
                          "strategy=ddp and strategy=hsdp have replicas; compare_every=0 compares nothing")
    if every and layout is None:
        raise ConfigError(f"compare_every={every}: {tree['strategy'][TARGET]} does not tell which ranks are replicas",
                          "strategies of mltrain do (ddp, hsdp, auto); compare_every=0 compares nothing")


def launcher_of(composed: Composed) -> Launcher:
    launcher: Launcher = build(composed.tree["launcher"], allowed=composed.allowed)
    return launcher


def prepare_data(composed: Composed) -> None:
    """The data is there and long enough, or is made now, and fits the model: better than in a queue's first minute. Raises MissingInput
    (66), DataError (65), ConfigError (78)."""
    from mltrain.data.display import Display
    data = build(composed.tree["data"], allowed=composed.allowed, secrets=True)
    if hasattr(data, "prepare"):
        with Display("preparing") as display:
            data.prepare(display)
    len(data.train)
    model = composed.tree["task"].get("model")
    size = model.get("vocabulary") if isinstance(model, dict) else None
    needed = data.describe().get("vocabulary") if hasattr(data, "describe") else None
    if isinstance(size, int) and isinstance(needed, int) and size < needed:
        raise ConfigError(f"task.model.vocabulary={size}: the data has token ids up to {needed - 1} ({composed.origin(VOCABULARY)})",
                          f"set task.model.vocabulary={needed}, or more")


def make_checkpoint_folder(composed: Composed) -> None:
    """Where checkpoints go if not into the run's directory, should they go to a disk. Raises StorageError (74) if that cannot be: a run
    would find out at its first save."""
    path = composed.tree["checkpoint"].get("path")
    if not isinstance(path, str) or "://" in path:
        return
    try:
        folder = layout.make_folder(Path(composed.directory, path))
    except StorageError as error:
        raise StorageError(f"checkpoint.path={path}: {error.message}", "name a folder that can be written") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"checkpoint.path={path}: {folder} cannot be written", "name a folder that can be")


def find_weights(composed: Composed) -> None:
    """Raises MissingInput (66) if the recipe begins with weights that are not there."""
    if composed.tree["weights"] is not None:
        from mltrain.checkpoint.weights import find_weights as find
        find(os.path.join(composed.directory, path) if "://" not in (path := composed.tree["weights"]) else path)


def new_run(composed: Composed, command: Sequence[str]) -> Path:
    """The run directory with everything that is known before the first attempt: all of it, or none."""
    register_all(SECRET.findall(json.dumps(composed.tree)))     # before anything is written: a patch may hold what the recipe only names
    run = layout.new_run(Path(composed.directory, composed.tree["runs"]), composed.tree["name"])
    try:
        write_json(layout.config_file(run), config_of(composed))
        write_json(layout.overrides_file(run), composed.overrides)
        provenance.record(run, list(command), composed.directory)
        ledger.Ledger(layout.ledger_file(run)).append("created", command=[redact(word) for word in command], recipe=composed.recipe)
        outcome.write_status(run, outcome.new_status(run))
    except BaseException:
        shutil.rmtree(run, ignore_errors=True)
        raise
    return run


def config_of(composed: Composed) -> dict[str, Any]:
    """What a worker needs of a composed recipe: plain JSON data, secrets by name only."""
    return {"tree": composed.tree, "recipe": composed.recipe, "overrides": composed.overrides,
            "directory": str(composed.directory.resolve()), "allowed": composed.allowed.to_dict()}


def recompose(run: Path, overrides: Sequence[str], step: int) -> list[dict[str, object]]:
    """Change a run's recipe: its own overrides, then these. step: where it is. Writes config.json anew and returns what changed:
    [{key, from, to}]. Raises ConfigError (78) with every mistake, and then nothing is written."""
    if not layout.config_file(run).exists():
        raise UsageError(f"{run.name} has no recipe, so there is nothing to override", "mltrain resume RUN goes on with its command")
    config = read_config(run)
    given = {text.partition("=")[0].lstrip("+~") for text in overrides}
    # A new choice (strategy=fsdp) takes what was set within the old one (strategy.replicate=2) away with it.
    kept = [text for text in config["overrides"] if not given & {key := text.partition("=")[0].lstrip("+~"), key.partition(".")[0]}]
    composed, problems = checked([*kept, *overrides], config["directory"])
    refuse(problems)
    for key in given & {"steps", "stop_at"}:
        if isinstance(composed.tree[key], int) and composed.tree[key] < step:
            raise ConfigError(f"{key}={composed.tree[key]}: {run.name} is at step {step} already",
                              f"name a later step, or go back: mltrain resume {run.name} --from STEP")
    make_checkpoint_folder(composed)
    composed.tree["name"], composed.tree["runs"] = config["tree"]["name"], config["tree"]["runs"]       # a run keeps its name and place
    write_json(layout.config_file(run), config_of(composed))
    write_json(layout.overrides_file(run), composed.overrides)
    return [{"key": row["key"], "from": row["values"][0], "to": row["values"][1]} for row in differences([config["tree"], composed.tree])]
