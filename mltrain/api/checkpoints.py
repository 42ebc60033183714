"""Checkpoints of a run or a folder: list, verify, digest, export, diff, prune."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from mltrain.checkpoint.catalog import Damage, Saved


def _checkpoints(where: str, runs: str) -> tuple[str, list[tuple[int, int]]]:
    """Where checkpoints lie, and what of them is rolled back. `where` is a URL, a folder of checkpoints, an exported folder, a run's
    folder, or any unique part of the name of a run under `runs`."""

    from mltrain.runs import ledger
    from mltrain.runs.layout import find_run
    folder = Path(where)
    if "://" in where or any(folder.glob("step-*")) or (folder / "model.safetensors").is_file():
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


def export(where: str, to: str, runs: str = "runs", *, step: int | None = None, format: str = "safetensors") -> dict[str, Any]:
    """Write the weights of a step as one safetensors file and a config.json: {path, format, step, tensors, bytes, digest}. format:
    `safetensors` (canonical names) or `huggingface` (of a run of the reference GPT, for transformers). Raises UsageError (64),
    DataError (65), MissingInput (66), StorageError (74)."""
    from mltrain.weights import export as export_
    return export_(*_checkpoints(where, runs), to, step=step, format=format)


def diff(a: str, b: str, runs: str = "runs", steps: tuple[int | None, int | None] = (None, None)) -> dict[str, Any]:
    """How far the parameters of two checkpoints (or exports) are apart, as plain data: same, changes [{name, shape, norm, relative}]
    (largest first), only_a, only_b, reshaped. Default steps: those that a resume would take."""
    from mltrain.checkpoint.difference import difference
    from mltrain.trust.digest import plain
    from mltrain.weights import saved_state
    found = difference(saved_state(*_checkpoints(a, runs), steps[0]), saved_state(*_checkpoints(b, runs), steps[1])).to_dict()
    return {key: plain(value) for key, value in found.items()}


def prune(where: str, keep: int, runs: str = "runs", dry_run: bool = False) -> list[dict[str, int]]:
    """Delete all but the `keep` newest whole checkpoints of a run that is not live: [{step, attempt, bytes}] of what is (or would be)
    deleted. Raises UsageError (64) on a live run, MissingInput (66), DataError (65) if none is whole, StorageError (74)."""
    from mltrain.weights import prune as prune_
    return prune_(*_checkpoints(where, runs), keep, dry_run)
