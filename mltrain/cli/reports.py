"""`mltrain report`: one page about one or several runs."""
from __future__ import annotations

import json

from mltrain.cli.arguments import Parser, split_runs
from mltrain.errors import UsageError


def report(argv: list[str]) -> int:
    p = Parser("mltrain report", "Write one HTML file about a run, or about several side by side: curves, where the time went, what "
               "happened, where it came from. It needs no network and nothing beside it.",
               "  mltrain report hello                     writes report.html into the run's folder\n"
               "  mltrain report small wide --out both.html     two runs, overlaid, and what differs in their configurations\n"
               "  mltrain report hello --json              the same numbers")
    p.add_argument("words", nargs="+", metavar="RUN", help="any unique part of a run's id; runs=FOLDER: where they are (default: runs)")
    p.add_argument("--json", action="store_true", help="print the numbers, write no file")
    p.add_argument("--out", metavar="FILE", help="default: RUN/report.html; of several runs: report.html in the folder of runs")
    options = p.parse_intermixed_args(argv)
    folder, names = split_runs(options.words)
    if not names:
        raise UsageError("mltrain report needs a run", "name it by any unique part of its id: mltrain status lists them")
    if options.json and options.out:
        raise UsageError("--json prints and --out writes a page: one of them", "mltrain report RUN --json > FILE")
    from mltrain import api
    if options.json:
        print(json.dumps(api.report(names, folder), allow_nan=False))
    else:
        print(api.write_report(names, folder, options.out))
    return 0
