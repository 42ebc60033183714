"""mltrain checkpoint export | diff: weights in one file for any program, and how far two checkpoints are apart."""
from __future__ import annotations

import json
import os
from collections.abc import Sequence

from mltrain import api
from mltrain.cli.arguments import Parser
from mltrain.errors import UsageError

_EXPORT = """  mltrain checkpoint export hello --to exported                          model.safetensors and config.json
  mltrain checkpoint export hello@40 --to exported                       of step 40
  mltrain checkpoint export hello --to exported --format huggingface     for transformers: from_pretrained("exported")
  mltrain launch recipe=finetune/gpt weights=exported                    begin with these weights
"""
_DIFF = """  mltrain checkpoint diff hello@20 hello@60            two steps of one run
  mltrain checkpoint diff hello --step 20 --step 60    the same
  mltrain checkpoint diff hello gpt-tiny --json        two runs, all parameters
"""


def export(argv: list[str]) -> int:
    parser = Parser("mltrain checkpoint export", "Write the weights of a run, joined from the shards of all ranks, as one safetensors\n"
                    "file and a config.json that says what they are. The folder appears when all of it is written.\n"
                    "Nothing of mltrain is needed to read it.", _EXPORT)
    parser.add_argument("run", help="(any unique part of) a run's name, with @STEP if you like; a folder of checkpoints, or a URL")
    parser.add_argument("settings", nargs="*", metavar="runs=FOLDER", help="where runs lie (default: runs)")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="a folder that is not there yet")
    parser.add_argument("--format", choices=("safetensors", "huggingface"), default="safetensors",
                        help="safetensors: our own names; huggingface: the reference GPT as transformers' LlamaForCausalLM")
    parser.add_argument("--step", type=int, metavar="N", help="default: the newest whole checkpoint")
    parser.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_intermixed_args(argv)
    run, step = at_step(args.run)
    if None not in (step, args.step) and step != args.step:
        raise UsageError(f"{args.run} and --step {args.step}: which step?")
    done = api.export(run, args.to, runs_folder(args.settings), step=args.step if step is None else step, format=args.format)
    print(json.dumps(done) if args.json else
          f"{done['path']}: {done['tensors']} tensors of step {done['step']}, {done['bytes'] / 1e6:.1f} MB\ndigest {done['digest']}")
    return 0


def diff(argv: list[str]) -> int:
    parser = Parser("mltrain checkpoint diff", "How far the parameters of two checkpoints are apart: the Euclidean norm of the change of\n"
                    "each, largest first, and the same as a share of the first one's norm. Exit code 0 whatever the\ndifference.", _DIFF)
    parser.add_argument("a", help="a run (with @STEP if you like), a folder of checkpoints, an exported folder, or a URL")
    parser.add_argument("b", nargs="?", help="the other; left out with two --step")
    parser.add_argument("settings", nargs="*", metavar="runs=FOLDER", help="where runs lie (default: runs)")
    parser.add_argument("--step", type=int, action="append", default=[], metavar="N", help="twice: of A, of B")
    parser.add_argument("--top", type=int, metavar="N", help="only the N largest changes")
    parser.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_intermixed_args(argv)
    if args.b is not None and args.b.startswith("runs="):
        args.settings, args.b = [args.b, *args.settings], None
    (a, step_a), (b, step_b) = at_step(args.a), at_step(args.b or args.a)
    if args.step:
        if len(args.step) != 2 or step_a is not None or step_b is not None:
            raise UsageError("diff takes --step twice (of A, of B), or RUN@STEP", "mltrain checkpoint diff RUN --step 10 --step 20")
        step_a, step_b = args.step
    elif args.b is None:
        raise UsageError("diff needs two checkpoints", "mltrain checkpoint diff RUN@10 RUN@20, or diff RUN --step 10 --step 20")
    found = api.diff(a, b, runs_folder(args.settings), (step_a, step_b))
    if args.json:
        print(json.dumps(found))
        return 0
    width = max((len(row["name"]) for row in found["changes"]), default=4)
    print(f"{'name':{width}}  {'shape':>16}  {'norm of change':>14}  relative")
    for row in found["changes"][:args.top]:
        print(f"{row['name']:{width}}  {'×'.join(map(str, row['shape'])):>16}  {float(row['norm']):>14.6g}  {float(row['relative']):.4g}")
    for side in ("a", "b"):
        for name in found[f"only_{side}"]:
            print(f"{name}: only in {side.upper()}")
    for name, (one, other) in found["reshaped"].items():
        print(f"{name}: {one} in A, {other} in B")
    if found["same"]:
        print("the same")
    return 0


def at_step(text: str) -> tuple[str, int | None]:
    """RUN@20 -> (RUN, 20). A path that is there is taken as it is."""
    run, at, step = text.rpartition("@")
    return (run, int(step)) if at and step.isdecimal() and not os.path.exists(text) else (text, None)


def runs_folder(settings: Sequence[str]) -> str:
    """Of the bare arguments: runs=FOLDER."""
    runs = "runs"
    for word in settings:
        key, _, runs = word.partition("=")
        if key != "runs" or not runs:
            raise UsageError(f"{word} is not runs=FOLDER")
    return runs
