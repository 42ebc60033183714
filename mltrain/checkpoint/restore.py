"""A resume: rank 0 names a step, all ranks read their parts of it, and all step back together if one of them finds damage.

Rank 0 alone lists the storage. What it says is broadcast, so all ranks read the same manifest, or raise the same kind of error.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mltrain.checkpoint import catalog, planner
from mltrain.checkpoint.manifest import Manifest, manifest_name, parse
from mltrain.checkpoint.ranks import Ranks
from mltrain.checkpoint.retention import Key, survey
from mltrain.checkpoint.shard import Table
from mltrain.checkpoint.storage import Storage
from mltrain.errors import ConfigError, DataError, MissingInput, MltrainError, StorageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Found:
    """manifest: what was read; None when there was nothing. attempt: the number for what this job saves. damaged: what was passed over."""

    manifest: Manifest | None
    attempt: int
    damaged: list[dict[str, Any]]


def restore(storage: Storage, state: Mapping[str, torch.Tensor], attempt: int, retired: list[list[int]], step: int | None) -> Found:
    """Fills `state` from the newest step that is whole for all ranks (or from `step`). A collective when torch.distributed is
    initialised. Raises MissingInput (no such step), ConfigError (another model), DataError (nothing is whole), on all ranks alike."""
    ranks = Ranks.current()
    offer = ranks.broadcast(_offer(storage, attempt, retired, step) if ranks.rank == 0 else None)
    raise_packed(offer["error"])
    damaged: list[dict[str, Any]] = offer["damaged"]
    for key in map(tuple, offer["steps"]):
        manifest, error = _try(storage, state, key)
        error = ranks.first(error)
        if error is None:
            return Found(manifest, offer["attempt"], damaged)
        if error["kind"] != "DataError":
            raise_packed(error)
        damaged.append({"step": key[0], "attempt": key[1], "problem": error["message"]})
    if damaged:                                                 # to begin anew would overwrite hours of work without a word
        raise DataError(f"no checkpoint under {storage.root} is whole: {damaged[0]['problem']}",
                        "mltrain checkpoint verify names all that is damaged; to start anew, move the folder away")
    return Found(None, offer["attempt"], [])


def _offer(storage: Storage, attempt: int, retired: list[list[int]], step: int | None) -> dict[str, Any]:
    """What rank 0 found, or its error: the other ranks wait for a word in any case."""
    try:
        found = catalog.candidates(storage, step, retired)
        attempt = unused_attempt(storage, attempt)
        if step is not None and not found:
            catalog.latest(storage, step, retired)              # raises, naming the steps that are there
        damaged = [{"step": s.step, "attempt": s.attempt, "problem": s.problem} for s in found if not s.valid]
        return {"error": None, "attempt": attempt, "steps": [[s.step, s.attempt] for s in found if s.valid], "damaged": damaged}
    except MltrainError as error:
        return {"error": packed(error)}
    except Exception as error:  # noqa: BLE001  remote clients raise classes of their own, and the other ranks must hear of it
        return {"error": packed(StorageError(f"cannot list {storage.root}: {type(error).__name__}: {error}"))}


def unused_attempt(storage: Storage, attempt: int) -> int:
    """The first number from `attempt` that this folder does not know: a late writer of a used one may still be there."""
    used = {key[1] for key in survey(storage)}
    while attempt in used:
        attempt += 1
    return attempt


def _try(storage: Storage, state: Mapping[str, torch.Tensor], key: Key) -> tuple[Manifest | None, dict[str, Any] | None]:
    """One step into the state: (manifest, None), or (None, the error)."""
    name = manifest_name(*key)
    try:
        manifest = parse(storage.read(name), *key, name)
        check_fit(manifest, state)
        from mltrain.checkpoint.reader import load
        load(storage, manifest, dict(state))
        return manifest, None
    except MltrainError as error:
        return None, packed(error)
    except OSError as error:
        return None, packed(DataError(f"{name}: cannot be read: {error}"))
    except Exception as error:  # noqa: BLE001  other ranks wait for this one's word; remote clients raise classes of their own
        return None, packed(StorageError(f"{name}: {type(error).__name__}: {error}"))


def check_fit(manifest: Manifest, state: Mapping[str, torch.Tensor]) -> None:
    """ConfigError unless checkpoint and state have the same names, shapes and types; the message names what differs."""
    check_tables(manifest.tensors, planner.describe(state), f"the checkpoint of step {manifest.step}",
                 "model and optimizer must be those of the recipe that saved it")


def check_tables(have: Table, table: Table, where: str, hint: str) -> None:
    """ConfigError unless what is there (`have`) and what is asked for (`table`) are the same."""
    missing, extra = sorted(table.keys() - have.keys()), sorted(have.keys() - table.keys())
    if missing or extra:
        parts = [f"lacks {_names(missing)}"] * bool(missing) + [f"has {_names(extra)}, which the model has not"] * bool(extra)
        raise ConfigError(f"{where} {' and '.join(parts)}", hint)
    wrong = [f"{name} is {have[name].dtype} {list(have[name].shape)} there and {t.dtype} {list(t.shape)} here"
             for name, t in sorted(table.items()) if t != have[name]]
    if wrong:
        more = f" ({len(wrong) - 1} more differ)" if len(wrong) > 1 else ""
        raise ConfigError(f"{where}: {wrong[0]}{more}", hint)


def _names(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def packed(error: MltrainError) -> dict[str, str]:
    return {"kind": type(error).__name__, "message": error.message, "hint": error.hint}


def raise_packed(packed: dict[str, str] | None) -> None:
    if packed is not None:
        kinds = {kind.__name__: kind for kind in (ConfigError, DataError, MissingInput, StorageError)}
        raise kinds.get(packed["kind"], StorageError)(packed["message"], packed["hint"])
