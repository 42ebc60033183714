"""`mltrain metrics replay`: a run's numbers, written again into a tracker that missed them."""
from __future__ import annotations

import json

from mltrain.cli.arguments import Parser, split_runs
from mltrain.errors import UsageError

_EXAMPLES = """  mltrain metrics replay hello --to tensorboard
  mltrain metrics replay hello --to wandb wandb.project=mine wandb.mode=offline
  mltrain metrics replay hello --to trackio --to prometheus"""


def metrics(argv: list[str]) -> int:
    p = Parser("mltrain metrics", "Write a run's numbers again, from the JSON lines that are its record of truth, into a place that missed "
               "them: a tracker that was down or not asked for. The whole curve is written, the last attempt of each step, and replaces "
               "what is there: doing it twice changes nothing.", _EXAMPLES)
    p.add_argument("action", choices=["replay"])
    p.add_argument("words", nargs="+", metavar="RUN [SINK.key=value ...] [runs=FOLDER]",
                   help="a run; arguments of a sink; the folder of runs (default: runs)")
    p.add_argument("--to", action="append", required=True, metavar="SINK",
                   help="wandb, tensorboard, prometheus, trackio, or a sink that the run's recipe names; may be given several times")
    p.add_argument("--json", action="store_true", help="for programs")
    options = p.parse_intermixed_args(argv)
    folder, words = split_runs(options.words)
    names = [word for word in words if "=" not in word]
    if len(names) != 1:
        raise UsageError(f"mltrain metrics replay needs one run, not {len(names)}", "name it by any unique part of its id")
    from mltrain import api
    written = api.replay(names[0], options.to, folder, settings=[word for word in words if "=" in word])
    if options.json:
        print(json.dumps(written))
    else:
        for name, count in written.items():
            print(f"{name}: {count} records")
    return 0
