"""The parser every verb uses: argparse, except that a wrong command line is a UsageError (64) like any other mistake."""
from __future__ import annotations

import argparse
from typing import Any, ClassVar, NoReturn

from mltrain.errors import UsageError


class Asked(Exception):
    """Carries a verb's parser to whoever asked for it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__(parser.prog)
        self.parser = parser


class Parser(argparse.ArgumentParser):
    """prog is the verb as typed, `mltrain status`; examples are shown below the options as written.
    asked: nothing is parsed, the parser itself is wanted (what flags are there?): it is raised as Asked."""

    asked: ClassVar[bool] = False

    def __init__(self, prog: str, description: str, examples: str = "") -> None:
        super().__init__(prog, description=description, epilog=examples and f"examples:\n{examples}", allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:       # under both parse_args and parse_intermixed_args
        if Parser.asked:
            raise Asked(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"{self.prog} --help explains it")


def split_runs(words: list[str]) -> tuple[str, list[str]]:
    """(folder of runs, the other words): `runs=FOLDER` may stand anywhere; the last one counts."""
    folder = [word.partition("=")[2] for word in words if word.startswith("runs=")]
    if folder and not folder[-1]:
        raise UsageError("runs= names no folder", "write runs=FOLDER, or leave it away (then it is runs/)")
    return (folder[-1] if folder else "runs"), [word for word in words if not word.startswith("runs=")]
