"""What the shell offers when Tab is pressed: `mltrain __complete`, called by the scripts of `mltrain completion`.

    mltrain __complete line TEXT BREAKS      bash: the line up to the cursor, and the characters at which it splits words
    mltrain __complete words WORD...         zsh, fish: the words after `mltrain`, the last one unfinished

One candidate a line, in the second form with what it is after a tab. Nothing: the shell completes file names. Never an error: at a Tab
there is nobody to read one. Under 0.1 s, so torch and Hydra stay out.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module

from mltrain.cli.arguments import Asked, Parser, split_runs
from mltrain.errors import MltrainError

Candidates = dict[str, str]                  # text -> what it is
Verbs = Mapping[str, tuple[str, str]]        # as in main.py: verb -> (module, one line)
ACTIONS = {
    "recipes": ("list", "show", "copy"), "data": ("prepare", "inspect", "verify"), "completion": ("bash", "zsh", "fish"),
    "checkpoint": ("list", "verify", "digest", "export", "diff", "prune"), "metrics": ("replay",),
}
_RUNS = ("status", "logs", "cancel", "resume", "report", "checkpoint", "metrics")       # verbs that take a run


def complete(argv: list[str], verbs: Verbs) -> int:
    form, rest = (argv[0], argv[1:]) if argv else ("", [])
    with contextlib.suppress(MltrainError, OSError, ValueError):
        if form == "line" and rest:
            words = _split(rest[0])[1:] or [""]
            cut = _cut(words[-1], rest[1] if len(rest) > 1 else "=:")
            print("".join(f"{text[cut:]}\n" for text in candidates(words, verbs)), end="")
        elif form == "words":
            print("".join(f"{text}\t{what}\n" for text, what in candidates(rest or [""], verbs).items()), end="")
    return 0


def candidates(words: list[str], verbs: Verbs) -> Candidates:
    """words: after `mltrain`; the last one is what the cursor is on."""
    *before, current = words
    if not before:
        return _fitting(current, {verb: what for verb, (_, what) in verbs.items() if what} | {"--help": "", "--version": ""})
    verb, *before = before
    if verb not in verbs or "--" in before:
        return {}
    actions = ACTIONS.get(verb, ())
    if actions and not before and not current.startswith("-"):
        return _fitting(current, dict.fromkeys(actions, ""))
    parser = _parser(verb, verbs[verb][0], before)
    if parser and _wants_value(parser, before):
        return {}
    if current.startswith("-"):
        return _fitting(current, _flags(parser)) if parser else {}
    return _fitting(current, _words(verb, before, current))


def _fitting(current: str, found: Candidates) -> Candidates:
    return {text: what for text, what in found.items() if text.startswith(current)}


# ── flags: those of the verb's own parser ───────────────────────────────────────────────────────────────────────────────────────
def _parser(verb: str, module: str, before: list[str]) -> argparse.ArgumentParser | None:
    """A verb makes its parser first: it is stopped where it would parse."""
    action = [word for word in before[:1] if word in ACTIONS.get(verb, ())]
    Parser.asked = True
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            getattr(import_module(f"mltrain.cli.{module}"), verb)(action)
    except Asked as asked:
        return asked.parser
    except MltrainError:                       # it wants an argument before it knows which parser
        return None
    finally:
        Parser.asked = False
    return None


def _flags(parser: argparse.ArgumentParser) -> Candidates:
    """The first long spelling of each; the short ones are known by heart."""
    shown = [action for action in parser._actions if action.option_strings and action.help != argparse.SUPPRESS]
    names = (next((each for each in action.option_strings if each.startswith("--")), action.option_strings[0]) for action in shown)
    return {name: (action.help or "").partition("\n")[0] for name, action in zip(names, shown, strict=True)}


def _wants_value(parser: argparse.ArgumentParser, before: list[str]) -> bool:
    """Is the word at the cursor the value of the flag before it?"""
    takes = {name for action in parser._actions if action.option_strings and action.nargs != 0 for name in action.option_strings}
    return bool(before) and before[-1] in takes


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _words(verb: str, before: list[str], current: str) -> Candidates:
    from mltrain import api
    folder, given = split_runs([word for word in before if not word.startswith("-")])
    if verb in ("launch", "check"):
        return _overrides(given, current, lambda parent: api.key_names(given, parent))
    if verb == "recipes" and given and given[0] in ("show", "copy"):
        names = dict.fromkeys(api.recipe_names(), "")
        if len(given) == 1:
            return names
        return _overrides([f"recipe={given[1]}"], current, lambda parent: api.key_names([f"recipe={given[1]}", *given[2:]], parent))
    if verb == "resume" and given:
        return _overrides(["recipe="], current, lambda parent: api.run_keys(given[0], folder, parent))
    if verb in _RUNS and not (verb in ACTIONS and len(given) > 1):
        named = {name: state for name, state in api.run_names(folder).items() if name not in given}
        return named | ({"runs=": "the folder of runs"} if current.startswith("r") else {})
    return {}


def _overrides(given: list[str], current: str, keys: Callable[[tuple[str, ...]], dict[str, bool]]) -> Candidates:
    """recipe=NAME, group=option, and keys; what stands before a key (+ ++ ~) stays."""
    from mltrain import api
    bare = current.lstrip("+~")
    mark = current[:len(current) - len(bare)]
    if bare.startswith("recipe=") or bare.partition("=")[1] and "." not in bare.partition("=")[0]:
        group = bare.partition("=")[0]
        names: Iterable[str] = api.recipe_names() if group == "recipe" else api.option_names().get(group, [])
        return {f"{mark}{group}={name}": "" for name in names}
    if "=" in bare:
        return {}
    parent = tuple(bare.split(".")[:-1])
    start = mark + "".join(f"{name}." for name in parent)
    found = {f"{start}{name}{'.' if nested else '='}": "" for name, nested in sorted(keys(parent).items())}
    if parent:
        return found
    first = {} if any(word.startswith("recipe=") for word in given) else {"recipe=": "which recipe"}
    return first | {f"{mark}{group}=": "choose an option" for group in sorted(api.option_names())} | found


# ── bash ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _split(line: str) -> list[str]:
    """The words of an unfinished line; the last one is "" after a space."""
    for closing in ("", "'", '"'):
        with contextlib.suppress(ValueError):
            words = shlex.split(line + closing)
            return words if line[-1:].strip() or closing else [*words, ""]
    return line.split(" ")


def _cut(word: str, breaks: str) -> int:
    """bash replaces only what comes after the last = or : of a word."""
    return max((word.rfind(char) + 1 for char in breaks if char in "=:"), default=0)
