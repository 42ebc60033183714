"""One function a verb, and the only place where the rooms are wired together. Rooms are imported inside the functions: `mltrain status`
must not pay for torch."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from typing import Any

    from mltrain.checkpoint.catalog import Damage, Saved
    from mltrain.config.compose import Composed
    from mltrain.config.problem import Problem
    from mltrain.doctor import Finding

# ── recipes ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

# Arguments that mltrain itself gives to the node of a group, if its signature has them and the recipe does not set them.
PROVIDED: dict[str, tuple[str, ...]] = {
    "data": ("seed",), "optimizer": ("params",), "schedule": ("steps",), "strategy": ("precision", "clip", "seed", "nonfinite"),
    "checkpoint": ("path", "directory", "attempt", "retired"), "metrics": ("directory", "attempt", "steps"),
    "callback": ("task", "data", "directory", "seed"),
}


def compose(overrides: Sequence[str], directory: Path | str | None = None) -> Composed:
    """The tree of `recipe=NAME key=value ...` and the origin of each value. Raises MissingInput (66), UsageError (64), ConfigError (78)."""
    from mltrain.config.compose import compose as compose_
    return compose_(overrides, directory)


def check(overrides: Sequence[str] | Composed, directory: Path | str | None = None) -> list[Problem]:
    """Every mistake in a recipe; [] if there is none."""
    from mltrain.config.check import check as check_
    from mltrain.config.compose import Composed
    return check_(overrides if isinstance(overrides, Composed) else compose(overrides, directory), PROVIDED)


def recipes(directory: Path | str = ".") -> list[dict[str, Any]]:
    """Every recipe that can be named from here: name, title, needs, expect, file, home."""
    from mltrain.config.catalog import catalog
    return catalog(Path(directory))


def show(overrides: Sequence[str], directory: Path | str | None = None) -> Composed:
    """A composed recipe, for reading. Raises ConfigError with everything that keeps it from being composed."""
    from mltrain.config.problem import refuse
    composed = compose(overrides, directory)
    refuse(composed.problems)
    return composed


def copy(name: str, destination: Path | str, directory: Path | str = ".") -> Path:
    """Copy a recipe's file. Raises UsageError (64) if something is there already."""
    from mltrain.config.catalog import copy as copy_
    return copy_(name, Path(destination), Path(directory))


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def prepare(sources: Sequence[str], out: Path | str, *, tokenizer: str = "bytes", holdout: float = 0.05, shard_tokens: int | None = None,
            field: str = "text", strict: bool = False, show: bool = True) -> dict[str, Any]:
    """Make a dataset out of text. Plain data about it: path, fingerprint, splits, already, resumed, skipped, seconds. show: progress on
    stderr. Raises UsageError (64), DataError (65), MissingInput (66), StorageError (74)."""
    from mltrain.data import prepare as preparing
    from mltrain.data.display import Display
    with Display("preparing") as display:
        done = preparing.prepare(list(sources), out, tokenizer=tokenizer, holdout=holdout, field=field, strict=strict,
                                 shard_tokens=shard_tokens or preparing.SHARD_TOKENS, report=display if show else None)
    return {"path": str(out)} | done.to_dict()


def inspect_data(path: str) -> dict[str, Any]:
    """Counts, schema, histogram of lengths and some documents of a dataset. Raises MissingInput (66), DataError (65)."""
    from mltrain.data.inspection import inspect
    return inspect(path)


def verify_data(path: str, show: bool = True) -> dict[str, Any]:
    """Read every byte of a dataset again: {path, fingerprint, shards, bytes, problems}. Raises MissingInput (66), DataError (65)."""
    from mltrain.data.display import Display
    from mltrain.data.inspection import verify
    with Display("verifying") as display:
        return verify(path, display if show else None)


# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _checkpoints(where: str, runs: str) -> tuple[str, list[tuple[int, int]]]:
    """Where checkpoints lie, and what of them is rolled back. `where` is a URL, a folder of checkpoints, a run's folder, or any unique
    part of the name of a run under `runs`."""
    from pathlib import Path

    from mltrain.runs import ledger
    from mltrain.runs.layout import find_run
    folder = Path(where)
    if "://" in where or any(folder.glob("step-*")):
        return where, []
    if not (folder / "checkpoints").is_dir() and not ("/" in where and folder.is_dir()):
        folder = find_run(Path(runs), where)
    rolled_back = ledger.retired(folder / "ledger.jsonl") if (folder / "ledger.jsonl").is_file() else []
    return str(folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder), rolled_back


def list_checkpoints(where: str, runs: str = "runs", step: int | None = None) -> list[Saved]:
    """The committed steps (or one), damaged ones included, oldest first. Raises MissingInput when there is none."""
    from mltrain.checkpoint import catalog
    from mltrain.checkpoint.storage import open_storage
    path, retired = _checkpoints(where, runs)
    found = [saved for saved in catalog.saved_steps(open_storage(path), retired) if step in (None, saved.step)]
    if not found:
        catalog.latest(open_storage(path), step, retired)       # raises, naming the steps that are there
    return found


def verify_checkpoint(where: str, saved: Saved, runs: str = "runs") -> list[Damage]:
    """Reads every byte of one of `list_checkpoints`; what is damaged."""
    from mltrain.checkpoint import catalog
    from mltrain.checkpoint.storage import open_storage
    return [*catalog.verify(open_storage(_checkpoints(where, runs)[0]), saved)]


def digest_checkpoint(where: str, runs: str = "runs", step: int | None = None) -> dict[str, int | str]:
    """{"step", "digest"}: equal for equal states, however they were sharded. Default: the step that a resume would take."""
    from mltrain.checkpoint.catalog import digest
    path, retired = _checkpoints(where, runs)
    return digest(path, step, retired)

# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


# What a worker of ours imports anyway: the template has it ready, so that a restart does not wait for it. None of these starts a thread.
WORKER_MODULES = ["mltrain.trainer.trainer", "mltrain.checkpoint.checkpointer", "mltrain.data.loader"]


def agent(argv: list[str], parser: Callable[[str, str, str], argparse.ArgumentParser]) -> int:
    """Run a command on this machine's workers, with restarts. parser: makes the command line's parser. Returns the exit code of the run."""
    from mltrain.agent.agent import Agent
    from mltrain.agent.options import parse
    return Agent(parse(argv, parser), WORKER_MODULES).run()



# ── launch and worker ────────────────────────────────────────────────────────────────────────────────────────────────────────────

# ── this machine ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def doctor() -> list[Finding]:
    """What this machine and this installation have, and what is in a run's way."""
    from mltrain.doctor import examine
    return examine()
