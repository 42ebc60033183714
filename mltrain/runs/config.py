"""config.json of a run: its composed recipe, as launch or resume wrote it. The one reader: what is damaged is told here."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mltrain.errors import DataError, MissingInput, StorageError
from mltrain.runs.layout import checkpoints_folder, config_file

_PARTS = {"tree": dict, "recipe": str, "overrides": list, "directory": str, "allowed": dict}
_KEYS = {"name", "runs", "seed", "steps", "task", "data", "launcher"}      # of the tree, some: a file that has these is one of ours


def read_config(run: Path) -> dict[str, Any]:
    """tree, recipe, overrides, directory (where it was composed), allowed. Raises MissingInput (66) where there is none, DataError (65)
    if it is damaged, StorageError (74) if it cannot be read."""
    path = config_file(run)
    try:
        config = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise MissingInput(f"{run} is no run of a recipe: it has no {path.name}", "mltrain status lists the runs there are") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}", "is it yours, is the disk there?") from None
    except (ValueError, RecursionError):
        config = None
    if isinstance(config, dict) and all(isinstance(config.get(name), kind) for name, kind in _PARTS.items()) and _KEYS <= {*config["tree"]}:
        return config
    raise DataError(f"{path} is damaged: it is not what mltrain launch wrote",
                    f"launch the recipe again; checkpoint.path={checkpoints_folder(run)} goes on from what this run saved")
