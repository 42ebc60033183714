"""status, logs, cancel, resume: the verbs about runs in a folder. `runs=FOLDER` is understood by all of them (default: runs)."""
from __future__ import annotations

import json
import sys
import time
from typing import Any

from mltrain.cli.arguments import Parser, split_runs
from mltrain.errors import UsageError

_COLUMNS = ("id", "state", "step", "loss", "attempts", "time", "goodput")


def _one(verb: str, words: list[str]) -> str:
    if len(words) != 1:
        raise UsageError(f"mltrain {verb} needs one run" + (f", not {len(words)}: {' '.join(words)}" if words else ""),
                         "name it by any unique part of its id: mltrain status lists them")
    return words[0]


def status(argv: list[str]) -> int:
    p = Parser("mltrain status", "What runs, and how far it is: all runs of a folder, or one with its ranks.",
               "  mltrain status\n  mltrain status hello --json\n  mltrain status runs=/data/runs")
    p.add_argument("words", nargs="*", metavar="[RUN] [runs=FOLDER]", help="any unique part of a run's id; the folder (default: runs)")
    p.add_argument("--json", action="store_true", help="a list of runs as JSON")
    options = p.parse_intermixed_args(argv)
    folder, words = split_runs(options.words)
    from mltrain import api
    found = api.status(folder, _one("status", words) if words else None)
    if options.json:
        print(json.dumps(found))
    elif words:
        _show(found[0])
    elif found:
        _table(found)
    else:
        print(f"no runs in {folder}/")
    return 0


def _table(found: list[dict[str, Any]]) -> None:
    rows = [_COLUMNS, *(_row(run) for run in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _row(run: dict[str, Any]) -> tuple[str, ...]:
    steps = f"{run['step']}/{run['steps']}" if run["steps"] else str(run["step"])
    loss = f"{run['loss']:.4g}" if run["loss"] is not None else "-"
    goodput = f"{100 * run['goodput']:.0f}%" if run["goodput"] is not None else "-"
    return run["id"], run["state"], steps, loss, str(run["attempts"]), _lasted(run), goodput


def _lasted(run: dict[str, Any]) -> str:
    """From its first attempt to its end, or to now."""
    if not run["started"]:
        return "-"
    seconds = int(max(0, (run["ended"] or time.time()) - run["started"]))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds % 60:02d}s"


def _show(run: dict[str, Any]) -> None:
    for name, text in zip(_COLUMNS, _row(run), strict=True):
        print(f"{name:9} {text}")
    from mltrain import api
    print(f"directory {run['directory']}")
    if run.get("reason"):
        print(f"reason    {run['reason']}")
    for slow in run.get("stragglers", []) if run["state"] == "running" else []:
        print(f"slow      rank {slow['rank']} on {slow['host']}: {slow['ratio']} times as long as the others, {slow['phase']}")
    for words, lasted in api.time_spent(run):
        print(f"  {words:26} {lasted:>8}")
    for rank in run.get("ranks", []) if run["state"] == "running" else []:
        what = f"pid {rank['pid']}, {rank['phase']} at step {rank['step']}" if rank["step"] >= 0 else "starting"
        print(f"rank {rank['rank']:<4} {rank['host']} {what}")


def logs(argv: list[str]) -> int:
    p = Parser("mltrain logs", "What a run printed: rank 0 of its newest attempt, unless told otherwise.",
               "  mltrain logs hello\n  mltrain logs hello -f\n  mltrain logs hello --rank 3 --attempt 1\n  mltrain logs hello --errors")
    p.add_argument("words", nargs="+", metavar="RUN [runs=FOLDER]", help="any unique part of a run's id; the folder (default: runs)")
    p.add_argument("-f", "--follow", action="store_true", help="go on with what is printed until the run ends")
    p.add_argument("--rank", default="0", metavar="R", help="a rank, or all (default: 0)")
    p.add_argument("--attempt", type=int, metavar="N", help="an attempt (default: the newest)")
    p.add_argument("--errors", action="store_true", help="what failed in each attempt, and what the culprit printed last")
    options = p.parse_intermixed_args(argv)
    folder, words = split_runs(options.words)
    if options.rank != "all" and not options.rank.isdigit():
        raise UsageError(f"--rank {options.rank}: not a rank", "a number from 0, or all")
    rank = None if options.rank == "all" else int(options.rank)
    from mltrain import api
    lines = api.logs(_one("logs", words), folder, rank=rank, attempt=options.attempt, errors=options.errors, follow=options.follow)
    for line in lines:
        sys.stdout.write(line)
        if options.follow:
            sys.stdout.flush()
    return 0


def cancel(argv: list[str]) -> int:
    p = Parser("mltrain cancel", "Stop a run after its state is saved, and wait for that. It can be resumed.", "  mltrain cancel hello")
    p.add_argument("words", nargs="+", metavar="RUN [runs=FOLDER]", help="any unique part of a run's id; the folder (default: runs)")
    p.add_argument("--limit", type=float, default=150.0, metavar="SECONDS", help="how long to wait for it (default: 150)")
    options = p.parse_intermixed_args(argv)
    folder, words = split_runs(options.words)
    from mltrain import api
    print(api.cancel(_one("cancel", words), folder, options.limit))
    return 0


def resume(argv: list[str]) -> int:
    p = Parser("mltrain resume", "Go on where a run stopped; if it is live, attach to it. Exit code = the run's.",
               "  mltrain resume hello\n  mltrain resume hello steps=400 launcher.workers=4\n  mltrain resume hello --from 200")
    p.add_argument("words", nargs="+", metavar="RUN [key=value ...] [runs=FOLDER]", help="a run, and what is to change in its recipe")
    p.add_argument("--from", dest="step", type=int, metavar="STEP", help="give up what came after this checkpoint")
    p.add_argument("--detach", action="store_true", help="return as soon as the run is on its way")
    options = p.parse_intermixed_args(argv)
    folder, words = split_runs(options.words)
    overrides = [word for word in words if "=" in word or word.startswith("~")]
    run = _one("resume", [word for word in words if word not in overrides])
    from mltrain import api
    return api.resume(run, overrides, folder, step=options.step, detach=options.detach)
