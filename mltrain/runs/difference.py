"""In which keys configurations differ."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def flat(tree: object, path: tuple[str, ...] = ()) -> dict[str, object]:
    """{"optimizer.lr": 0.1, ...}"""
    if not isinstance(tree, dict) or not tree:
        return {".".join(path): tree}
    return {key: value for name, item in tree.items() for key, value in flat(item, (*path, str(name))).items()}


def differences(trees: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """[{"key": "optimizer.lr", "values": [0.1, 0.2]}], a value a tree: None where a tree lacks the key. Sorted by key."""
    rows = [flat(tree) if tree else {} for tree in trees]
    keys = sorted({key for row in rows for key in row})
    return [{"key": key, "values": [row.get(key) for row in rows]} for key in keys
            if any(row.get(key) != rows[0].get(key) for row in rows)]
