"""Lays files over one another and remembers, for every key, the file and line (or command line) that set it last.

Dicts are merged key by key; anything else is replaced. One rule more: a layer that names another `_target_` replaces the whole node,
since the arguments of one class mean nothing to another.
"""
from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mltrain.config.document import Document
from mltrain.config.problem import COMMAND_LINE, Origin, Path_, dotted

TARGET = "_target_"


class Layered:
    """tree: the values so far. origins: path -> who set it, for values and for the dicts and lists around them."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.origins: dict[Path_, Origin] = {}

    def lay(self, document: Document, package: str, leave_out: Iterable[str] = ()) -> None:
        """Put a file's values over what is there. package: dotted place of the file's values; "" is the whole tree."""
        under = tuple(part for part in package.split(".") if part)
        values = {key: value for key, value in document.tree.items() if key not in leave_out}
        self._merge(_nested(under, values), lambda path: Origin(document.file, document.line(path[len(under):])))

    def command_line(self, values: Mapping[Path_, Any]) -> None:
        """Put all key=value over what is there, as one layer."""
        tree: dict[str, Any] = {}
        for path, value in values.items():
            at = tree
            for part in path[:-1]:
                below = at.get(part)
                at[part] = at = below if isinstance(below, dict) else {}
            _put(at, path[-1], value)
        self._merge(tree, lambda path: COMMAND_LINE)

    def delete(self, path: Path_) -> bool:
        """Take a key away. False when it is not there."""
        parent = find(self.tree, path[:-1])
        if not isinstance(parent, dict) or path[-1] not in parent:
            return False
        del parent[path[-1]]
        self._forget(path)
        return True

    def of(self, path: Path_) -> Origin | None:
        """Who set this value, or the nearest thing around it."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path)

    def dotted(self) -> dict[str, Origin]:
        return {dotted(path): origin for path, origin in self.origins.items()}

    def _merge(self, values: dict[str, Any], origin: Callable[[Path_], Origin]) -> None:
        _merge(self, self.tree, values, (), origin)

    def _forget(self, path: Path_) -> None:
        for known in [known for known in self.origins if known[:len(path)] == path]:
            del self.origins[known]


def find(tree: Any, path: Path_) -> Any:
    """The value at a path; None when there is none."""
    for part in path:
        if isinstance(tree, dict):
            tree = tree.get(part)
        elif isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return None
    return tree


def _nested(under: Path_, values: dict[str, Any]) -> dict[str, Any]:
    for part in reversed(under):
        values = {part: values}
    return values


def _put(at: dict[str, Any], key: str, value: Any) -> None:
    """`a.b=1 a={c: 2}` on one command line keeps both."""
    before = at.get(key)
    at[key] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value


def _merge(layered: Layered, into: dict[str, Any], values: dict[str, Any], path: Path_, origin: Callable[[Path_], Origin]) -> None:
    if values.get(TARGET, into.get(TARGET)) != into.get(TARGET, values.get(TARGET)):
        for key in list(into):
            layered.delete((*path, key))
    for key, value in values.items():
        at, before = (*path, key), into.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            layered.origins[at] = origin(at)
            _merge(layered, before, value, at, origin)
        elif isinstance(before, list) and isinstance(value, dict) and value and all(_is_index(part, before) for part in value):
            for part, item in value.items():          # optimizer.betas.0=0.8
                before[int(part)] = copy.deepcopy(item)
                _record(layered, item, (*at, part), origin)
        else:
            layered._forget(at)
            into[key] = copy.deepcopy(value)
            _record(layered, value, at, origin)


def _is_index(part: str, of: list[Any]) -> bool:
    return part.isdigit() and int(part) < len(of)


def _record(layered: Layered, value: Any, path: Path_, origin: Callable[[Path_], Origin]) -> None:
    layered.origins[path] = origin(path)
    children: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = ((str(number), item) for number, item in enumerate(value))
    for part, item in children:
        _record(layered, item, (*path, part), origin)
