"""Finds conf/, recipes/ and launchers/ in a checkout and in an installed wheel."""
from __future__ import annotations

from pathlib import Path

from mltrain.errors import NodeUnfit

_PACKAGE = Path(__file__).resolve().parent


def asset_dir(kind: str) -> Path:
    """kind: conf, recipes or launchers. Returns a real folder."""
    for candidate in (_PACKAGE / kind, _PACKAGE.parent / kind):
        if (candidate / ".mltrain-assets").is_file():
            return candidate
    raise NodeUnfit(f"mltrain is installed without its {kind}/ folder", "install it again: pip install --force-reinstall mltrain-core")
