"""mltrain agent: a drop-in for torchrun on one machine. The options are read where they are used, in `mltrain/agent/options.py`."""
from __future__ import annotations

from mltrain.cli.arguments import Parser


def agent(argv: list[str]) -> int:
    from mltrain import api
    return api.agent(argv, Parser)
