"""mltrain: train PyTorch models the same way, bit for bit, wherever and however often the job runs.

    from mltrain import Task, Loss, Trainer, Checkpointer, Loader, load

Names are imported when first used, so `import mltrain` costs nothing and a part alone brings only what it needs.
"""
from __future__ import annotations

from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mltrain.checkpoint.checkpointer import Checkpointer as Checkpointer
    from mltrain.data.loader import Loader as Loader
    from mltrain.notebook import load as load
    from mltrain.progress import Progress as Progress
    from mltrain.task import Batch as Batch
    from mltrain.task import Loss as Loss
    from mltrain.task import StepResult as StepResult
    from mltrain.task import Task as Task
    from mltrain.trainer.callback import Callback as Callback
    from mltrain.trainer.trainer import Trainer as Trainer

__version__ = "0.1.0"

_HOME = {
    "Batch": "mltrain.task", "Callback": "mltrain.trainer.callback", "Checkpointer": "mltrain.checkpoint.checkpointer",
    "Loader": "mltrain.data.loader", "Loss": "mltrain.task", "Progress": "mltrain.progress", "StepResult": "mltrain.task",
    "Task": "mltrain.task", "Trainer": "mltrain.trainer.trainer", "load": "mltrain.notebook",
}
__all__ = sorted([*_HOME, "__version__"])

# In a checkout conf/, recipes/ and launchers/ lie beside the package, in a wheel inside it: the same import names in both.
_HERE = _Path(__file__).resolve().parent
if not (_HERE / "conf").is_dir() and (_HERE.parent / "conf" / ".mltrain-assets").is_file():
    __path__.append(str(_HERE.parent))


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mltrain' has no attribute {name!r}")
    return getattr(_import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
