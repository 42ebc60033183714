"""`mltrain worker RUN`: one rank of a run; the agent starts it."""
from __future__ import annotations

from mltrain.cli.arguments import Parser


def worker(argv: list[str]) -> int:
    parser = Parser("mltrain worker", "One rank of a run. The agent starts it; by hand it trains alone (RANK and WORLD_SIZE unset).")
    parser.add_argument("run", metavar="RUN", help="a run directory")
    from mltrain import api
    return api.worker(parser.parse_args(argv).run)
