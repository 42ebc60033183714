"""Which `pip install` brings what: optional packages are imported here, and a missing one says how to get it."""
from __future__ import annotations

from importlib import import_module
from types import ModuleType

from mltrain.errors import NodeUnfit

EXTRAS = {
    "deepspeed": "deepspeed", "accelerate": "accelerate", "wandb": "wandb", "trackio": "trackio", "tensorboard": "tensorboard",
    "prometheus_client": "prometheus", "s3fs": "s3", "gcsfs": "gcs", "adlfs": "azure", "tokenizers": "text", "PIL": "vision",
    "sklearn": "vision", "kubernetes": "kubernetes", "sky": "cloud",
}


def require(module: str, purpose: str) -> ModuleType:
    """Import an optional package. purpose: what needs it, for the message. Raises NodeUnfit (69) with the install line."""
    try:
        return import_module(module)
    except ImportError as error:
        extra = EXTRAS[module.partition(".")[0]]
        raise NodeUnfit(f"{purpose} needs the package {module}: {error}", f'pip install "mltrain-core[{extra}]"') from None
