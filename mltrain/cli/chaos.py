"""mltrain chaos: faults on purpose, in any live run."""
from __future__ import annotations

import signal
import sys

from mltrain.cli.arguments import Parser, split_runs
from mltrain.errors import UsageError

EXAMPLES = """  mltrain chaos hello
  mltrain chaos hello --seed 7 --faults kill,stop --every 30 --count 20
exit code: 0; that of the run is the run's own affair (mltrain status)"""
WHAT = """Break a live run on purpose: what it is worth shows in how it goes on.
Which faults, on which ranks and after how many steps follows from the seed.
  kill     SIGKILL to a rank
  stop     SIGSTOP to a rank: a hang
  exit     a rank that beats leaves with exit code 1, 3 or 99
  slow     a rank has half of the time for four seconds
  disk     no room until a save has failed, 12 seconds at most: a small file system of its own (up to 1 GiB) is
           filled to the last byte; elsewhere the processes that write may not make a file grow (prlimit)
  network  all TCP connections of a rank are shut; needs the right to trace the process (root, or ptrace_scope=0)
  store    SIGKILL to the process that serves the attempt's store, where there is one
  corrupt  a bit of the newest checkpoint is turned, and a rank killed, so that it is read; and the processes that
           write checkpoints, so that it stays the newest"""


def chaos(argv: list[str]) -> int:
    p = Parser("mltrain chaos", WHAT, EXAMPLES)
    p.add_argument("words", nargs="+", metavar="RUN [runs=FOLDER]", help="any unique part of a run's id; the folder (default: runs)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="which faults, in what order, on which ranks, when (default: 0)")
    p.add_argument("--faults", default="kill,stop,exit,slow", metavar="KIND,...", help="kinds (default: kill,stop,exit,slow)")
    p.add_argument("--every", type=int, default=20, metavar="STEPS",
                   help="between two faults, half of it more or less (default: 20); seconds, if the script does not say its steps")
    p.add_argument("--count", type=int, metavar="N", help="end after so many faults (default: with the run)")
    p.add_argument("--start", type=int, metavar="STEP", help="count moments from this step (default: from where the run is)")
    options = p.parse_intermixed_args(argv)
    folder, words = split_runs(options.words)
    if len(words) != 1:
        raise UsageError("mltrain chaos needs one run", "name it by any unique part of its id: mltrain status lists them")
    if options.every < 1 or (options.count is not None and options.count < 1):
        raise UsageError("--every and --count must be 1 or more", "mltrain chaos --help explains them")
    from mltrain import api
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))    # a rank that is stopped, a writer without room: that is undone first
    for line in api.chaos(words[0], folder, options.seed, options.faults.split(","), options.every, options.count, options.start):
        print(line, flush=True)
    return 0
