"""mltrain checkpoint: what a run has saved, whether it is whole, one number that tells two states apart; pruning. For export and diff see
`weights`."""
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone

from mltrain import api
from mltrain.cli import weights
from mltrain.cli.arguments import Parser
from mltrain.errors import StorageError, UsageError

EXAMPLES = """  mltrain checkpoint list hello                      the saved steps of the newest run named hello
  mltrain checkpoint verify hello step=20            read every byte of one step
  mltrain checkpoint digest runs/hello-…/checkpoints one line: equal states have equal digests, however they were sharded

  mltrain checkpoint export|diff|prune --help        weights in one file; how far two are apart; delete old ones
"""


def checkpoint(argv: list[str]) -> int:
    others: dict[str, Callable[[list[str]], int]] = {"export": weights.export, "diff": weights.diff, "prune": prune}
    if argv and argv[0] in others:
        return others[argv[0]](argv[1:])
    actions: dict[str, Callable[[str, str, int | None, bool], int]] = {"list": _list, "verify": _verify, "digest": _digest}
    parser = Parser("mltrain checkpoint", "List, verify or digest the checkpoints of a run. Exit code 74 when something is damaged, "
                    "66 when there is none.", EXAMPLES)
    parser.add_argument("action", choices=[*actions, *others])
    parser.add_argument("run", help="(any unique part of) a run's name, a folder, or a URL such as s3://bucket/checkpoints")
    parser.add_argument("settings", nargs="*", metavar="step=N runs=FOLDER", help="one step only; where runs lie (default: runs)")
    parser.add_argument("--step", type=int, metavar="N", help="the same as step=N")
    parser.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_intermixed_args(argv)        # `digest RUN --json step=10`
    if args.action in others:
        raise UsageError(f"mltrain checkpoint {args.action} ...: the action comes first")
    settings = {"runs": "runs", "step": args.step}
    for word in args.settings:
        key, equals, value = word.partition("=")
        if key not in settings or not equals or not value:
            raise UsageError(f"{word} is not step=N or runs=FOLDER", "mltrain checkpoint --help explains it")
        settings[key] = _number(word, value) if key == "step" else value
    return actions[args.action](args.run, settings["runs"], settings["step"], args.json)


def _number(word: str, value: str) -> int:
    if not value.isdecimal():
        raise UsageError(f"{word}: not a step number")
    return int(value)


def _list(run: str, runs: str, step: int | None, as_json: bool) -> int:
    found = api.list_checkpoints(run, runs, step)
    if as_json:
        print(json.dumps([saved.to_dict() for saved in found]))
        return 0
    print(f"{'step':>10}  {'attempt':>7}  {'MB':>10}  {'files':>5}  {'saved':19}  state")
    for saved in found:
        when = datetime.fromtimestamp(saved.saved, timezone.utc).strftime("%Y-%m-%d %H:%M:%S") if saved.saved else "?"
        state = f"damaged: {saved.problem}" if not saved.valid else "whole" if saved.current else "whole, off the branch (rolled back)"
        print(f"{saved.step:>10}  {saved.attempt:>7}  {saved.bytes / 1e6:>10.1f}  {len(saved.files):>5}  {when:19}  {state}")
    return 0


def _verify(run: str, runs: str, step: int | None, as_json: bool) -> int:
    rows, damage = [], []
    for saved in api.list_checkpoints(run, runs, step):
        found = api.verify_checkpoint(run, saved, runs)
        damage += found
        rows.append({"step": saved.step, "attempt": saved.attempt, "whole": not found, "damage": [asdict(one) for one in found]})
        if not as_json:
            print(f"step {saved.step} attempt {saved.attempt}: " + ("damaged" if found else f"whole, {saved.bytes / 1e6:.1f} MB read"))
            for one in found:
                print(f"  {one.problem}")
    if as_json:
        print(json.dumps(rows))
    return StorageError.code if damage else 0


def _digest(run: str, runs: str, step: int | None, as_json: bool) -> int:
    found = api.digest_checkpoint(run, runs, step)
    print(json.dumps(found) if as_json else f"{found['digest']}  step {found['step']}")
    return 0


def prune(argv: list[str]) -> int:
    parser = Parser("mltrain checkpoint prune", "Delete all but the N newest whole checkpoints of a run that is not live. What is\n"
                    "newer than these stays even if it is damaged. Repeating it changes nothing.",
                    "  mltrain checkpoint prune hello --keep 1 --dry-run      what would go\n  mltrain checkpoint prune hello --keep 1")
    parser.add_argument("run", help="(any unique part of) a run's name, a folder, or a URL")
    parser.add_argument("settings", nargs="*", metavar="runs=FOLDER", help="where runs lie (default: runs)")
    parser.add_argument("--keep", type=int, required=True, metavar="N", help="how many stay, at least 1")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    parser.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_intermixed_args(argv)
    rows = api.prune(args.run, args.keep, weights.runs_folder(args.settings), args.dry_run)
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        print(f"{'would delete' if args.dry_run else 'deleted'} step {row['step']} attempt {row['attempt']} ({row['bytes'] / 1e6:.1f} MB)")
    if not rows:
        print("nothing to delete")
    return 0
