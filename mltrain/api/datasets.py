"""Datasets: prepare, inspect, verify."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any



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
