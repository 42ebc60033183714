"""mltrain data prepare | inspect | verify."""
from __future__ import annotations

import json
import sys
from typing import Any

from mltrain.cli.arguments import Parser
from mltrain.errors import INTERRUPTED, DataError, MissingInput, UsageError

_USAGE = """usage: mltrain data prepare SOURCE... --out FOLDER     make a dataset out of text
       mltrain data inspect FOLDER                    what is in it
       mltrain data verify FOLDER                     read it all again: is it what was written?
       (mltrain data prepare --help explains the first)
"""


_EXAMPLES = """  mltrain data prepare python:stdlib --out data/stdlib
  mltrain data prepare corpus/ more.jsonl --field content --holdout 0.01 --out data/corpus
  mltrain data prepare corpus/ --tokenizer tokenizer.json --out data/corpus-bpe"""


def data(argv: list[str]) -> int:
    verbs = {"prepare": prepare, "inspect": inspect, "verify": verify}
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE, end="", file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 64
    if argv[0] not in verbs:
        raise UsageError(f"no such verb: data {argv[0]}", "one of: " + " ".join(verbs))
    return verbs[argv[0]](argv[1:])


def prepare(argv: list[str]) -> int:
    parser = Parser("mltrain data prepare", """Make a dataset: a folder of Arrow shards and a manifest.

A SOURCE is a text file, a folder (its text, .jsonl and .parquet files, recursively), a .jsonl or .parquet file,
or python:stdlib (the source of this Python's standard library, without site-packages and tests).
A text file is one document; one above 1 MiB is cut at line ends into documents of about 64 KiB.
Interrupted, the same command goes on where it stopped. Nothing appears at FOLDER before all of it is there.""", _EXAMPLES)
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the dataset comes to lie (a local folder)")
    parser.add_argument("--tokenizer", default="bytes", help="bytes (default: ids 0-255 are the bytes, 256 begins a document), "
                        "or the path of a tokenizer.json of Hugging Face tokenizers")
    parser.add_argument("--holdout", type=float, default=0.05, metavar="SHARE", help="share of the documents for validation, "
                        "chosen by a hash of their text (default 0.05)")
    parser.add_argument("--shard-tokens", type=int, default=None, metavar="N", help="about how many tokens a shard has (default 2**26)")
    parser.add_argument("--field", default="text", help="field of .jsonl records, column of .parquet files (default text)")
    parser.add_argument("--strict", action="store_true", help="stop at text that is no valid UTF-8 instead of leaving it out")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    args = parser.parse_args(argv)
    from mltrain import api
    try:
        done = api.prepare(args.sources, args.out, tokenizer=args.tokenizer, holdout=args.holdout, shard_tokens=args.shard_tokens,
                           field=args.field, strict=args.strict)
    except KeyboardInterrupt:
        print("mltrain: interrupted; the same command goes on after the last finished shard", file=sys.stderr)
        return INTERRUPTED
    print(json.dumps(done)) if args.json else _print_prepared(done)
    return 0


def _print_prepared(done: dict[str, Any]) -> None:
    if done["already"]:
        print(f"{done['path']} is there already, made from the same sources in the same way")
    for name, split in done["splits"].items():
        print(f"{name:10}  {split['documents']:>12,} documents  {split['tokens']:>16,} tokens  {split['shards']:>4} shards")
    skipped = done["skipped"]
    left_out = [f"{skipped[reason]} {reason}" for reason in ("binary", "undecodable", "empty") if skipped[reason]]
    if left_out:
        print(f"left out    {', '.join(left_out)}" + (f" (such as {', '.join(skipped['examples'])})" if skipped["examples"] else ""))
    if "validation" in done["splits"] and not done["splits"]["validation"]["documents"]:
        print("note        nothing was held out for validation")
    print(f"fingerprint {done['fingerprint']}")


def inspect(argv: list[str]) -> int:
    parser = Parser("mltrain data inspect", "What is in a dataset: counts, lengths of its documents, and how some of them begin.",
                    "  mltrain data inspect data/stdlib\n  mltrain data inspect data/stdlib --json")
    parser.add_argument("folder", metavar="FOLDER", help="a folder, or a URL that fsspec knows")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    args = parser.parse_args(argv)
    from mltrain import api
    found = api.inspect_data(args.folder)
    print(json.dumps(found)) if args.json else _print_inspected(found)
    return 0


def _print_inspected(found: dict[str, Any]) -> None:
    tokenizer = found["tokenizer"]
    print(f"{found['path']}\nfingerprint {found['fingerprint']}\ntokens      {found['schema']['tokens']}, tokenizer {tokenizer['kind']}, "
          f"vocabulary {tokenizer['vocabulary']}, separator {tokenizer['separator']}")
    for name, split in found["splits"].items():
        print(f"\n{name}: {split['documents']:,} documents, {split['tokens']:,} tokens, {split['text_bytes']:,} bytes of text, "
              f"{split['shards']} shards, {split['bytes']:,} bytes on disk")
        most = max((row["documents"] for row in split["lengths"]), default=1)
        for row in split["lengths"]:
            print(f"  {row['from']:>11,} tokens and more {row['documents']:>11,} {'#' * -(-40 * row['documents'] // most)}")
        for example in split["examples"]:
            text = repr(example["text"])
            print(f"  document {example['document']} ({example['tokens']} tokens): {text[:100]}{'...' if len(text) > 100 else ''}")


def verify(argv: list[str]) -> int:
    parser = Parser("mltrain data verify", """Read every byte of a dataset again and compare it with the manifest:
digests, structure, offsets, token ids. Exit code 65 if anything is damaged, 66 if something is missing.""",
                    "  mltrain data verify data/stdlib")
    parser.add_argument("folder", metavar="FOLDER", help="a folder, or a URL that fsspec knows")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    args = parser.parse_args(argv)
    from mltrain import api
    found = api.verify_data(args.folder)
    problems = found["problems"]
    if args.json:
        print(json.dumps(found))
    elif not problems:
        print(f"{found['path']} is whole: {found['shards']} shards, {found['bytes']:,} bytes, fingerprint {found['fingerprint']}")
    else:
        for problem in problems:
            print(f"mltrain: {problem['problem']}", file=sys.stderr)
    damaged = any(problem["code"] == DataError.code for problem in problems)
    return DataError.code if damaged else MissingInput.code if problems else 0
