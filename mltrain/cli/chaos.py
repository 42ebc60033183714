"""mltrain chaos: faults on purpose, in any live run."""
from __future__ import annotations

from mltrain.cli.arguments import Parser, split_runs
from mltrain.errors import UsageError

EXAMPLES = """  mltrain chaos hello
  mltrain chaos hello --seed 7 --faults kill,stop --every 30 --count 20
exit code: 0; that of the run is the run's own affair (mltrain status)"""


def chaos(argv: list[str]) -> int:
    p = Parser("mltrain chaos", "Break a live run on purpose: what it is worth shows in how it goes on.\n"
               "kill: SIGKILL to a rank. stop: SIGSTOP, a hang. exit: a rank leaves with code 1, 3 or 74.\n"
               "slow: half speed for four seconds.",
               EXAMPLES)
    p.add_argument("words", nargs="+", metavar="RUN [runs=FOLDER]", help="any unique part of a run's id; the folder (default: runs)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="which faults, in what order, on which ranks (default: 0)")
    p.add_argument("--faults", default="kill,stop,exit,slow", metavar="KIND,...", help="kinds (default: kill,stop,exit,slow)")
    p.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="of training between two faults (default: 10)")
    p.add_argument("--count", type=int, metavar="N", help="end after so many faults (default: with the run)")
    options = p.parse_intermixed_args(argv)
    folder, words = split_runs(options.words)
    if len(words) != 1:
        raise UsageError("mltrain chaos needs one run", "name it by any unique part of its id: mltrain status lists them")
    if not 0 <= options.every < float("inf") or (options.count is not None and options.count < 1):
        raise UsageError("--every must not be negative, --count must be 1 or more", "mltrain chaos --help explains them")
    from mltrain import api
    for line in api.chaos(words[0], folder, options.seed, options.faults.split(","), options.every, options.count):
        print(line, flush=True)
    return 0
