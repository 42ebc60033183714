"""Finds every mistake of a composed recipe at once, before anything runs.

Names, types, missing values, `_target_`s (imported only if allowed) and their arguments, and secrets in clear text. What the keys mean
together (does the batch divide, does the mesh fit) is asked by `api`.
"""
from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Collection, Mapping
from types import NoneType
from typing import Any

from mltrain.config import root
from mltrain.config.compose import Composed
from mltrain.config.interpolation import MISSING, texts
from mltrain.config.origin import TARGET
from mltrain.config.problem import Path_, Problem, did_you_mean, dotted, shown
from mltrain.config.signature import Argument, signature
from mltrain.config.suggest import nearest
from mltrain.config.targets import resolve
from mltrain.config.values import Mismatch, choices, convert, describe, is_node
from mltrain.errors import ConfigError
from mltrain.trust.redact import MASK, holds_secret, redact

_HEX_KEY = re.compile(r"[0-9a-f]{40}")           # of W&B; a git commit looks the same, so the key's name decides
_SECRET_KEY = re.compile(r"wandb|secret|token$|password|passwd|api_?key|credential", re.IGNORECASE)


def check(composed: Composed, provided: Mapping[str, Collection[str]]) -> list[Problem]:
    """Every mistake; [] when there is none. provided: group -> arguments that mltrain itself gives to its node."""
    checker = _Checker(composed)
    checker.root()
    for group in root.GROUPS:
        checker.group(group, provided.get(group, ()))
    checker.nodes(root.NODES, provided.get(root.NODES, ()))
    checker.plain(composed.tree, ())
    checker.secrets()
    return [_without_secret(problem) for problem in checker.problems]


class _Checker:
    def __init__(self, composed: Composed) -> None:
        self.composed, self.tree = composed, composed.tree
        self.problems = list(composed.problems)
        self.known = {problem.key for problem in self.problems}

    def add(self, path: Path_, message: str, hint: str = "", value: object = None, at: Path_ | None = None) -> None:
        """A problem of the key at `path`, once. at: whose origin to tell, if not the key's own."""
        key = dotted(path)
        if key not in self.known:
            self.known.add(key)
            self.problems.append(Problem(key, message, hint, value, self.composed.origin(path if at is None else at)))

    # ── the root ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def root(self) -> None:
        valid = [*root.HINTS, *root.GROUPS, root.NODES]
        for key, value in self.tree.items():
            if key not in valid:
                near = nearest(key, [name for name in valid if name not in ("x", "meta")])
                self.add((key,), "no such key", did_you_mean(near) or "values of your own go under x:", value)
        for key, hint in root.HINTS.items():
            self.value(self.tree.get(key, MISSING), (key,), hint, "every run")
        for key, wrong in root.faults(self.tree):
            self.add((key,), f"{shown(self.tree[key])} makes no sense", wrong, self.tree[key])

    def group(self, group: str, given: Collection[str]) -> None:
        value = self.tree.get(group)
        if value is None:
            self.add((group,), "required, not set", f"choose an option: {group}=NAME on the command line, - override /{group}: NAME in the "
                     f"recipe's defaults; or write {group}: {{_target_: package.Class, ...}}")
        elif isinstance(value, str):
            self.add((group,), f"{value!r} is text, not a part", f"choose it in the recipe's defaults: - override /{group}: {value}", value)
        elif value != MISSING:
            self.node(value, (group,), given)

    def nodes(self, group: str, given: Collection[str]) -> None:
        """callback: each entry is a node of its own; null leaves one out."""
        value = self.tree.get(group) or {}
        if not isinstance(value, dict):
            self.add((group,), f"{shown(value)} is no set of named parts", f"write {group}: {{NAME: {{_target_: package.Class}}}}", value)
            return
        if is_node(value):
            self.add((group,), "is one part; each needs a name", f"write {group}: {{NAME: {{_target_: {value[TARGET]}}}}}", value)
            return
        for name, node in value.items():
            if node is not None:
                self.node(node, (group, name), given)

    # ── nodes ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def node(self, node: object, path: Path_, given: Collection[str] = ()) -> Any:
        """Check a dict with `_target_`. Returns the class or function, None if there is none."""
        if not is_node(node) or not isinstance(node, dict):
            self.add(path, f"has no {TARGET}" if isinstance(node, dict) else f"{shown(node)} is no part",
                     f"write {dotted(path)}: {{_target_: package.Class, ...}}", node)
            return None
        try:
            target = resolve(node[TARGET], self.composed.allowed)
        except ConfigError as error:
            self.add((*path, TARGET), error.message, error.hint, node[TARGET])
            return None
        self.arguments(node, path, target, given)
        return target

    def arguments(self, node: dict[str, Any], path: Path_, target: Any, given: Collection[str]) -> None:
        takes, name = signature(target), getattr(target, "__name__", str(target))
        valid = list(takes.arguments)
        for key, value in node.items():
            at = (*path, key)
            if key == TARGET:
                continue
            if key in given and value is None:
                continue                         # null: mltrain gives it
            if key in takes.arguments:
                self.value(value, at, takes.arguments[key].hint, name)
            elif takes.open and not key.startswith("_"):
                self.value(value, at, Any, name)
            else:
                self.add(at, f"{name} takes no such argument", did_you_mean(nearest(key, valid), valid), value)
        for argument in takes.arguments.values():
            if argument.required and argument.name not in node and argument.name not in given:
                self.missing((*path, argument.name), argument, name, path)

    def missing(self, path: Path_, argument: Argument, name: str, at: Path_) -> None:
        self.add(path, f"required by {name}, not set", f"write {dotted(path)}=... ({describe(argument.hint)})", at=(*at, TARGET))

    def value(self, value: Any, path: Path_, hint: Any, name: str) -> None:
        """Check one argument, and every node and ??? inside it."""
        before = len(self.problems)
        self.inside(value, path, hint, name)
        if len(self.problems) > before or dotted(path) in self.known:
            return
        try:
            convert(value, hint)
        except Mismatch as error:
            near = nearest(str(value), choices(hint))
            self.add(path, str(error), did_you_mean(near) if near else "", value)

    def inside(self, value: Any, path: Path_, hint: Any, name: str) -> None:
        if isinstance(value, str) and value == MISSING:
            self.add(path, f"required by {name}, not set", f"write {dotted(path)}=... ({describe(hint)})", value)
        elif is_node(value):
            target = self.node(value, path)
            if _contradicts(target, hint):
                self.add(path, f"expected {describe(hint)}, and {target.__name__} is none", "", value[TARGET])
        elif isinstance(value, dict):
            for key, item in value.items():
                self.inside(item, (*path, key), Any, name)
        elif isinstance(value, list):
            for number, item in enumerate(value):
                self.inside(item, (*path, str(number)), Any, name)

    def plain(self, value: object, path: Path_) -> None:
        """A run keeps its configuration as JSON, which has neither bytes nor nan nor infinity."""
        for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
            self.plain(item, (*path, str(key)))
        if isinstance(value, float) and not math.isfinite(value):
            self.add(path, f"{value} is not a finite number", "write a number, or quotes around a word", str(value))
        elif not isinstance(value, (dict, list, str, int, float, NoneType)):
            self.add(path, f"{shown(value)} is neither text nor a number", "only plain YAML values are kept", shown(value))

    # ── secrets ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def secrets(self) -> None:
        for path, text in texts(self.tree):
            if holds_secret(text) or (_HEX_KEY.fullmatch(text) and any(_SECRET_KEY.search(part) for part in path)):
                self.add(path, "a secret in clear text", f"take it out, revoke it, and write ${{secret:{path[-1].upper()}}}", MASK)


def _contradicts(target: Any, hint: Any) -> bool:
    """Is the node's class surely not what the hint asks for? Only told where both are classes and the hint is no Protocol."""
    comparable = inspect.isclass(target) and inspect.isclass(hint) and hint is not Any and typing.get_origin(hint) is None
    return comparable and not getattr(hint, "_is_protocol", False) and not issubclass(target, hint)


def _without_secret(problem: Problem) -> Problem:
    text = problem.value if isinstance(problem.value, str) else None
    return Problem(problem.key, redact(problem.message), redact(problem.hint), redact(text) if text else problem.value, problem.origin)
