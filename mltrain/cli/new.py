"""`mltrain new`: a project to start from."""
from __future__ import annotations

from mltrain.cli.arguments import Parser


def new(argv: list[str]) -> int:
    parser = Parser("mltrain new", "Make a project: a recipe, an option, a model with its task and data, and a test that trains three "
                    "steps. Only into a folder that is empty or not there yet.",
                    "  mltrain new spirals\n  cd spirals && mltrain launch recipe=mine")
    parser.add_argument("folder", metavar="DIR")
    folder = parser.parse_args(argv).folder
    from mltrain import api
    for path in api.new(folder):
        print(path)
    print(f"\nnext  cd {folder} && mltrain launch recipe=mine     or: pytest")
    return 0
