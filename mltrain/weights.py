"""What is done with saved weights beside training: exported, compared, pruned. `checkpoint` knows bytes, `config` the recipe, `models`
another program's names for them; here they meet."""
from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltrain.checkpoint import catalog, retention
from mltrain.checkpoint import export as exports
from mltrain.checkpoint.manifest import Manifest
from mltrain.checkpoint.storage import LocalStorage, Storage, open_storage
from mltrain.checkpoint.weights import WEIGHTS, as_manifest, hash_file
from mltrain.errors import StorageError, UsageError
from mltrain.runs import layout
from mltrain.runs.config import read_config
from mltrain.runs.lease import Lease

if TYPE_CHECKING:
    from mltrain.models.language import LanguageModeling

FORMATS = ("safetensors", "huggingface")
LANGUAGE_MODEL, REFERENCE = "mltrain.models.language.LanguageModeling", "mltrain.models.gpt.GPT"
Retired = Collection[Sequence[int]]


def export(path: str, retired: Retired, to: str, *, step: int | None, format: str) -> dict[str, Any]:
    """See `api.export`. path: a folder of checkpoints or a URL."""
    if "://" in to:
        raise UsageError(f"--to {to} is no folder of this machine", "export into a local folder and copy it")
    storage = open_storage(path)
    manifest = catalog.latest(storage, step, retired)
    config = run_config(path)
    origin = {"format": "mltrain", "run": Path(path).parent.name if config else "", "recipe": config.get("recipe"), "step": manifest.step,
              "task": config["tree"]["task"] if config else None}
    if format == "huggingface":
        parts, described = _as_llama(config)
        origin = {**described, "mltrain": {key: origin[key] for key in ("run", "recipe", "step")}}
    else:
        parts = exports.all_weights(manifest)
    digest = exports.write(storage, manifest, parts, origin, to)
    written = (Path(to) / WEIGHTS).stat().st_size
    return {"path": to, "format": format, "step": manifest.step, "tensors": len(parts), "bytes": written, "digest": digest}


def run_config(path: str) -> dict[str, Any]:
    """The config of the run whose checkpoints lie at `path`; {} if no run's do."""
    run = Path(path).parent
    if "://" in path or not layout.config_file(run).is_file():
        return {}
    return read_config(run)


def _as_llama(config: dict[str, Any]) -> tuple[dict[str, exports.Part], dict[str, Any]]:
    """The parts and the config.json of a run of the reference GPT. Its task is built without memory for its weights."""
    task = config["tree"]["task"] if config else {}
    model = task.get("model", {})
    if (task.get("_target_"), model.get("_target_")) != (LANGUAGE_MODEL, REFERENCE):
        what = "it has no recipe" if not task else f"its model is {model.get('_target_')}" if task.get("_target_") == LANGUAGE_MODEL else (
            f"its task is {task.get('_target_')}")
        raise UsageError(f"--format huggingface: {what}; only {REFERENCE} in {LANGUAGE_MODEL} has a layout there",
                         "--format safetensors exports any model")
    import torch

    from mltrain.config.build import build
    from mltrain.config.targets import Allowed
    from mltrain.models import llama
    with torch.device("meta"):
        built: LanguageModeling = build(task, allowed=Allowed.from_dict(config["allowed"]))
    gpt: Any = built.model
    positions = config["tree"]["data"].get("sequence") or 2048
    parts = {name: exports.Part(f"parameters/model.{source}", first, rows) for name, (source, first, rows) in llama.tensors(gpt).items()}
    return parts, llama.config(gpt, built.separator, positions)


def saved_state(path: str, retired: Retired, step: int | None) -> tuple[Storage, Manifest]:
    """A checkpoint, or an exported folder, for reading. Raises MissingInput, DataError."""
    storage = open_storage(path)
    if isinstance(storage, LocalStorage) and Path(path, WEIGHTS).is_file():
        if step is not None:
            raise UsageError(f"{path} is an export, which has no steps")
        return storage, as_manifest(storage, hash_file(storage, WEIGHTS))
    return storage, catalog.latest(storage, step, retired)


def prune(path: str, retired: Retired, keep: int, dry_run: bool) -> list[dict[str, int]]:
    """See `api.prune`. The run's lease is held meanwhile, so that nobody resumes from what is being deleted."""
    if keep < 1:
        raise UsageError(f"--keep {keep}: at least one checkpoint stays")
    run = Path(path).parent
    lease = Lease(run) if "://" not in path and layout.is_run(run) and not dry_run else None
    if lease:
        lease.acquire()
    try:
        storage = open_storage(path)
        newest = catalog.latest(storage, None, retired)
        found = retention.to_prune(storage, keep, (newest.step, newest.attempt), (), retired)
        for key, names in found.items() if not dry_run else ():
            retention.delete(storage, key, names)
    except OSError as error:
        raise StorageError(f"{path}: cannot be pruned: {error.strerror or error}", "the same command goes on where it stopped") from None
    finally:
        if lease:
            lease.release()
    return [{"step": step, "attempt": attempt, "bytes": sum(names.values())} for (step, attempt), names in found.items()]
