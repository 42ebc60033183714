"""Verbs that begin a run: check and launch."""
from __future__ import annotations

import json

from mltrain.cli.arguments import Parser

_KEYS = """
keys of every recipe:  name runs seed threads steps stop_at time_limit global_batch micro_batch eval_every clip compare_every
groups:                task data optimizer schedule strategy precision guard checkpoint launcher metrics callback
  mltrain recipes show NAME --origin     every key of a recipe, its value, and the file that set it"""


def check(argv: list[str]) -> int:
    parser = Parser("mltrain check", "Find every mistake in a recipe before anything runs: unknown keys, wrong types, missing values, "
                    "wrong arguments, sizes that do not divide. Prints each with the file and line that set it; exit code 78 then.",
                    "  mltrain check recipe=gpt/tiny\n"
                    "  mltrain check recipe=./mine.yaml launcher.workers=8 strategy=fsdp" + _KEYS)
    parser.add_argument("overrides", nargs="+", metavar="key=value", help="recipe=NAME (or a path), then keys to set")
    parser.add_argument("--json", action="store_true", help="the mistakes as JSON")
    options = parser.parse_intermixed_args(argv)
    from mltrain import api
    composed, problems = api.checked(options.overrides)
    if options.json:
        print(json.dumps([problem.to_dict() for problem in problems], indent=2))
        return 78 if problems else 0
    api.refuse(problems)
    for note in composed.notes:
        print(f"note: {note}")
    print(f"{composed.recipe}: no mistakes")
    return 0


def launch(argv: list[str]) -> int:
    parser = Parser("mltrain launch", "Check a recipe, then train it. In the foreground this ends when the run does, with its exit code; "
                    "Ctrl-C saves the state and stops (twice: at once).",
                    "  mltrain launch recipe=hello\n  mltrain launch recipe=gpt/tiny launcher.workers=4 strategy=fsdp optimizer.lr=1e-3\n"
                    "  mltrain launch recipe=gpt/tiny --detach      then: mltrain status, mltrain logs gpt-tiny -f" + _KEYS)
    parser.add_argument("overrides", nargs="+", metavar="key=value", help="recipe=NAME (or a path), then keys to set")
    parser.add_argument("--detach", action="store_true", help="return when the run has started")
    parser.add_argument("--dry-run", action="store_true", help="check, print what would be started, start nothing")
    options = parser.parse_intermixed_args(argv)
    from mltrain import api
    if options.dry_run:
        for path, text in api.render(options.overrides).items():
            print(f"# {path}\n{text}", end="")
        return 0
    return api.launch(options.overrides, detach=options.detach)
