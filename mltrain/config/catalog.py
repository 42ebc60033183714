"""Which recipes there are, and copying one to start from."""
from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from mltrain.config.document import read
from mltrain.config.sources import Found, Sources, sources
from mltrain.errors import ConfigError, MissingInput, StorageError, UsageError

_SAID = ("title", "needs", "expect")


def catalog(directory: Path) -> list[dict[str, Any]]:
    """name, home (project, package, built-in), file and what the recipe's `meta` says; of a file that cannot be read its error."""
    places = sources(directory)
    return [_row(places, found[0]) for _, found in sorted(places.recipes.items())]


def _row(places: Sources, found: Found) -> dict[str, Any]:
    row: dict[str, Any] = {"name": found.name, "home": found.home.package or found.home.kind, "file": places.shown(found.path)}
    try:
        meta = read(found.path, row["file"]).tree.get("meta")
    except (ConfigError, MissingInput) as error:
        return {**row, **dict.fromkeys(_SAID, ""), "error": error.message}
    said = meta if isinstance(meta, dict) else {}
    return {**row, **{key: str(said.get(key, "")) for key in _SAID}}


def copy(name: str, destination: Path, directory: Path) -> Path:
    """Copy a recipe to a file, or into a folder under its own name. Nothing is overwritten: UsageError (64)."""
    found = sources(directory).recipe(name)
    target = directory / destination
    if target.is_dir() or str(destination).endswith(os.sep):
        target = target / f"{Path(found.name).name}.yaml"
    elif target.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{destination} is no folder and no .yaml file", "name a folder that exists, or a file like recipes/mine.yaml")
    if target.exists():
        raise UsageError(f"{target} is there already", "name another file, or remove that one")
    try:
        text = found.path.read_bytes()
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_new(target, text)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror}", "is the folder writable, is the disk full?") from None
    return target


def _write_new(target: Path, data: bytes) -> None:
    """All of it or nothing; a file that is there stays."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.link(name, target)                    # unlike rename, this refuses to replace
    finally:
        os.unlink(name)
