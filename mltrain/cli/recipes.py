"""`mltrain recipes`: list, show and copy recipes."""
from __future__ import annotations

import json
from typing import Any

from mltrain.cli.arguments import Parser
from mltrain.errors import UsageError

_EXAMPLES = """  mltrain recipes list
  mltrain recipes show gpt/tiny
  mltrain recipes show gpt/tiny optimizer.lr=1e-3 --origin     which file and line set each value
  mltrain recipes copy gpt/tiny recipes/mine.yaml              a file of your own to start from"""


def recipes(argv: list[str]) -> int:
    parser = Parser("mltrain recipes", "List the recipes that can be named here (yours, those of installed packages, built-in ones), "
                    "show what one is made of, or copy one.", _EXAMPLES)
    parser.add_argument("verb", nargs="?", choices=("list", "show", "copy"), default="list")
    parser.add_argument("arguments", nargs="*", metavar="NAME", help="show: NAME [key=value ...]; copy: NAME DESTINATION")
    parser.add_argument("--origin", action="store_true", help="show: the file and line of each value")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_intermixed_args(argv)
    if options.verb == "list":
        return _list(options.arguments, options.json)
    if not options.arguments:
        raise UsageError(f"recipes {options.verb}: which recipe?", "mltrain recipes list shows their names")
    if options.verb == "show":
        return _show(options.arguments, options.origin, options.json)
    return _copy(options.arguments)


def _list(arguments: list[str], as_json: bool) -> int:
    from mltrain import api
    if arguments:
        raise UsageError(f"recipes list takes no name: {arguments[0]}", f"mltrain recipes show {arguments[0]}")
    rows = api.recipes()
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:{width}}  {row.get('error') or row['title'] or row['file']}")
        if row["needs"]:
            print(f"{'':{width}}  needs {row['needs']}")
    print("\nmltrain launch recipe=NAME    mltrain recipes show NAME    mltrain recipes copy NAME recipes/mine.yaml")
    return 0


def _show(arguments: list[str], with_origin: bool, as_json: bool) -> int:
    from mltrain import api
    name, *overrides = arguments
    composed = api.show([name if name.startswith("recipe=") else f"recipe={name}", *overrides])
    if as_json:
        origins = {key: str(origin) for key, origin in composed.origins.items()}
        print(json.dumps({"recipe": composed.recipe, "tree": composed.tree, **({"origins": origins} if with_origin else {})}, indent=2))
        return 0
    lines = list(_lines(composed.tree, ()))
    width = min(60, max(len(text) for text, _ in lines))
    for text, path in lines:
        origin = composed.origin(path)
        print(f"{text:{width}}  # {origin}" if with_origin and origin else text)
    for note in composed.notes:
        print(f"# note: {note}")
    return 0


def _copy(arguments: list[str]) -> int:
    from mltrain import api
    if len(arguments) != 2:
        raise UsageError("recipes copy needs a recipe and a destination", "mltrain recipes copy gpt/tiny recipes/mine.yaml")
    target = api.copy(arguments[0], arguments[1])
    print(f"{target}\n  try it: mltrain check recipe={target if target.is_absolute() else './' + str(target)}")
    return 0


def _lines(tree: dict[str, Any], path: tuple[str, ...]) -> Any:
    """The tree as YAML, a line a key, each with its path."""
    for key, value in tree.items():
        at, indent = (*path, key), "  " * len(path)
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:", at
            yield from _lines(value, at)
        else:
            yield f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}", at
