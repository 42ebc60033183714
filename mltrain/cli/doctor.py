"""`mltrain doctor`: this machine and this installation, as a table."""
from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mltrain import api
from mltrain.cli.arguments import Parser
from mltrain.errors import UsageError

EXAMPLES = """\
  mltrain doctor                         before the first run on a machine
  mltrain doctor --json                  the same for a script: a list of {name, state, value, hint, code}
  mltrain doctor --node                  is this machine fit to train: memory, room, devices; a product of matrices, a sum of two processes
  srun mltrain doctor --node --against /shared/health
                                         the same on each node, compared with the median of the others: 69 where one is half as fast

exit code: 0 nothing is in a run's way (warnings included) · 69 this machine lacks something · 78 the installation is mixed up
"""


def doctor(argv: list[str]) -> int:
    parser = Parser("mltrain doctor", "Look at versions, devices, memory, disk, tools and extras; say what is missing.", EXAMPLES)
    parser.add_argument("--json", action="store_true", help="print a list of findings as JSON")
    parser.add_argument("--node", action="store_true", help="look at the machine alone, and measure it (seconds)")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="with --node: compare with what other machines left in this folder")
    options = parser.parse_args(argv)
    if options.against and not options.node:
        raise UsageError("--against needs --node", "mltrain doctor --help explains it")
    findings = api.doctor(options.node, options.against)
    if options.json:
        print(json.dumps([asdict(row) for row in findings], indent=1))
    else:
        width = max(len(row.name) for row in findings)
        for row in findings:
            print(f"{row.state:4}  {row.name:{width}}  {row.value}")
            if row.hint:
                print(f"{'':4}  {'':{width}}  → {row.hint}")
    return max(row.code for row in findings)
