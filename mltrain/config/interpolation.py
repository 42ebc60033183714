"""`${key}`, `${.sibling}`, `${oc.env:NAME}` and `${oc.env:NAME,default}` become values; `${secret:NAME}` stays text.

OmegaConf resolves them, but only after the size of the result was counted here: `${a}${a}` on 24 lines stands for 16 million values.
A secret must never be in the tree, so its text is hidden from OmegaConf and put back; the worker resolves it when it builds.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from mltrain.config.guard import MAX_FAN_OUT, MAX_NODES
from mltrain.config.origin import Layered, find
from mltrain.config.problem import Path_, Problem, dotted
from mltrain.errors import ConfigError

MISSING = "???"
RESOLVERS = ("oc.env", "oc.decode")
SECRET = re.compile(r"\$\{secret:([^${}]*)\}")
_SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INNERMOST = re.compile(r"\$\{([^${}]*)\}")
_HIDDEN = re.compile("\x00secret:([^\x00]*)\x00")
_DEPTH = 50                                 # a chain of references longer than this is a mistake or an attack
_HINT = "known are ${key}, ${.sibling}, ${oc.env:NAME}, ${oc.env:NAME,default} and ${secret:NAME}"


def resolve(layered: Layered) -> list[Problem]:
    """Replace interpolations in layered.tree by their values. Those that have none stay text and are returned as Problems.
    Raises ConfigError (78) for a bomb or a loop."""
    problems = list(_unknown(layered))
    _Counter(layered).check()
    tree = _map(layered.tree, lambda text: SECRET.sub(lambda found: f"\x00secret:{found[1]}\x00", text))
    problems += _resolve(tree, layered, {problem.key for problem in problems})
    layered.tree = _map(tree, lambda text: _HIDDEN.sub(lambda found: f"${{secret:{found[1]}}}", text).replace("\x02", "$"))
    return problems


def texts(tree: Any, path: Path_ = ()) -> Iterator[tuple[Path_, str]]:
    """Every string of the tree with its place."""
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from texts(value, (*path, key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from texts(value, (*path, str(number)))


def references(text: str) -> list[str]:
    """What stands inside each ${...}, the innermost first; a nested one is shown as \\x01 in what surrounds it."""
    found = []
    while match := _INNERMOST.search(text):
        found.append(match[1].strip())
        text = text[:match.start()] + "\x01" + text[match.end():]
    return found


def _unknown(layered: Layered) -> Iterator[Problem]:
    """References of a kind that is not offered."""
    for path, text in texts(layered.tree):
        for reference in references(text) if "${" in text else ():
            resolver, colon, argument = reference.partition(":")
            if not colon:
                wrong = "a key inside ${} must be plain text" if "\x01" in reference else ""
            elif resolver == "secret":
                wrong = "" if _SECRET_NAME.fullmatch(argument) else f"{argument!r} is no name of a secret"
            else:
                wrong = "" if resolver in RESOLVERS else f"unknown interpolation ${{{resolver}:...}}"
            if wrong:
                yield Problem(dotted(path), wrong, _HINT, text, layered.of(path))


def _resolve(tree: Any, layered: Layered, broken: set[str]) -> list[Problem]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    problems, open_texts = [], []
    for path, text in list(texts(tree)):
        try:
            OmegaConf.create([text] if "${" in text else [])         # the grammar alone
        except OmegaConfBaseException as error:
            problems.append(_problem(path, text, error, layered))
            broken.add(dotted(path))
        if dotted(path) in broken:
            _set(tree, path, text.replace("$", "\x02"))              # it stays text, and out of OmegaConf's way
        elif "${" in text:
            open_texts.append((path, text))
    config = OmegaConf.create(tree)
    for path, text in open_texts:
        try:
            value = config
            for part in path:
                value = value[int(part)] if OmegaConf.is_list(value) else value[part]
            value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
            problems.append(_problem(path, text, error, layered))
            continue
        _set(tree, path, value)
    return problems


def _set(tree: Any, path: Path_, value: Any) -> None:
    parent = find(tree, path[:-1])
    parent[int(path[-1]) if isinstance(parent, list) else path[-1]] = value


def _problem(path: Path_, text: str, error: Exception, layered: Layered) -> Problem:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if variable := re.search(r"Environment variable '([^']*)' not found", reason):
        message, hint = f"the environment variable {variable[1]} is not set", f"set it, or give a default: ${{oc.env:{variable[1]},value}}"
    elif key := re.search(r"Interpolation key '([^']*)' not found", reason):
        message, hint = f"{text} refers to {key[1]}, which is not there", "write the full name of a key"
    elif "Missing" in type(error).__name__:
        message, hint = f"{text} refers to a value that is not set", "set that value"
    else:
        message, hint = f"{text} cannot be resolved: {reason[:120]}", _HINT
    return Problem(dotted(path), message, hint, text, layered.of(path))


def _map(tree: Any, change: Callable[[str], str]) -> Any:
    if isinstance(tree, str):
        return change(tree)
    if isinstance(tree, dict):
        return {key: _map(value, change) for key, value in tree.items()}
    return [_map(value, change) for value in tree] if isinstance(tree, list) else tree


class _Counter:
    """Of how many values each value is made, through all its references; each is counted once."""

    def __init__(self, layered: Layered) -> None:
        self.layered, self.counts, self.open = layered, dict[Path_, int](), list[Path_]()

    def check(self) -> None:
        total = 0
        for path, text in texts(self.layered.tree):
            if "${" in text:
                total += self.count(path)
                if total > MAX_NODES:
                    self.refuse(path, f"interpolations stand for more than {MAX_NODES:,} values")

    def count(self, path: Path_) -> int:
        if path in self.counts:
            return self.counts[path]
        if path in self.open:
            self.refuse(path, "an interpolation refers to itself")
        if len(self.open) >= _DEPTH:
            self.refuse(path, f"a chain of more than {_DEPTH} interpolations")
        self.open.append(path)
        value, total = find(self.layered.tree, path), 0
        for below, text in texts(value, path):
            total += 1 + len(text) // MAX_FAN_OUT + sum(self.count(target) for target in self.targets(below, text))
            if total > MAX_FAN_OUT:
                self.refuse(below, f"an interpolation stands for more than {MAX_FAN_OUT:,} values")
        self.open.pop()
        self.counts[path] = total
        return total

    def targets(self, path: Path_, text: str) -> Iterator[Path_]:
        for reference in references(text) if "${" in text else ():
            if ":" in reference:
                continue
            dots = len(reference) - len(reference.lstrip("."))
            parts = tuple(part for part in re.split(r"[.\[\]]", reference) if part)
            target = (*path[:len(path) - dots], *parts) if dots else parts
            if target and find(self.layered.tree, target) is not None:
                yield target

    def refuse(self, path: Path_, what: str) -> None:
        raise ConfigError(f"{self.layered.of(path)}: {dotted(path)}: {what}", "write the value out")
