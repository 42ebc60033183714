"""Makes objects of nodes: {"_target_": "torch.optim.SGD", "lr": 0.1} is called with its arguments, nodes inside first.

`provided` are arguments that mltrain adds (a seed, a directory): each is passed if the signature has it and the node does not set it
(or sets it to null).
`${secret:NAME}` is resolved only with secrets=True, which only the worker says.
"""
from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mltrain.config.interpolation import MISSING, SECRET
from mltrain.config.origin import TARGET
from mltrain.config.problem import Path_, did_you_mean, dotted
from mltrain.config.signature import Signature, signature
from mltrain.config.sources import project_of
from mltrain.config.suggest import nearest
from mltrain.config.targets import Allowed, resolve
from mltrain.config.values import Mismatch, convert, is_node
from mltrain.errors import ConfigError
from mltrain.trust.secret import resolve as resolve_secret

_SEE_CHECK = "mltrain check names everything that is missing"


def build(node: Any, *, allowed: Allowed | None = None, secrets: bool = False, **provided: Any) -> Any:
    """The object of a node; of a list or dict of nodes a list or dict of objects (null entries of a dict are left out).

    allowed: from Composed.allowed (None: as seen from the working directory). Raises ConfigError (78) if the node is wrong or its class
    refuses a value (ValueError); any other exception of the class passes through."""
    return _Builder(allowed or here(), secrets).value(node, (), provided)


def partial(node: dict[str, Any], *, allowed: Allowed | None = None, secrets: bool = False, **provided: Any) -> functools.partial[Any]:
    """The class or function of a node with its arguments bound, to be called later with what is not known yet (an optimizer's params)."""
    target, arguments = _Builder(allowed or here(), secrets).bind(node, (), provided)
    return functools.partial(target, **arguments)


def here() -> Allowed:
    """What may be built without further word: mltrain's parts and the working directory's, if that is a project."""
    return Allowed.of(project_of(Path.cwd()))


@dataclass(frozen=True)
class _Builder:
    allowed: Allowed
    secrets: bool

    def value(self, value: Any, path: Path_, provided: dict[str, Any]) -> Any:
        if is_node(value):
            target, arguments = self.bind(value, path, provided)
            return _call(target, arguments, path)
        if isinstance(value, dict):
            items = {key: self.value(item, (*path, key), provided) for key, item in value.items()}
            holds_nodes = any(is_node(item) for item in value.values())
            return {key: item for key, item in items.items() if item is not None} if holds_nodes else items
        if isinstance(value, list):
            return [self.value(item, (*path, str(number)), provided) for number, item in enumerate(value)]
        return self.text(value, path) if isinstance(value, str) else value

    def text(self, text: str, path: Path_) -> str:
        if text == MISSING:
            raise ConfigError(f"{dotted(path) or 'a value'} is not set", _SEE_CHECK)
        return re.sub(SECRET, lambda found: resolve_secret(found[1]), text) if self.secrets else text

    def bind(self, node: Any, path: Path_, provided: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The target and its arguments."""
        if not is_node(node):
            raise ConfigError(f"{dotted(path) or 'the node'} has no {TARGET}", "write {_target_: package.Class, ...}")
        target = resolve(node[TARGET], self.allowed)
        takes = signature(target)
        given = {name: value for name, value in provided.items() if name in takes.arguments and node.get(name) is None}
        named = {name: value for name, value in node.items() if name != TARGET and name not in given}
        arguments = {name: self.argument(name, value, path, target, takes) for name, value in named.items()}
        arguments.update(given)
        return target, arguments

    def argument(self, name: str, value: Any, path: Path_, target: Any, takes: Signature) -> Any:
        at = (*path, name)
        if name not in takes.arguments and not takes.open:
            valid = list(takes.arguments)
            raise ConfigError(f"{dotted(at)}: {target.__name__} takes no such argument", did_you_mean(nearest(name, valid), valid))
        built = self.value(value, at, {})
        try:
            return convert(built, takes.arguments[name].hint) if name in takes.arguments else built
        except Mismatch as error:
            raise ConfigError(f"{dotted(at)}: {error}", f"see {node_name(target)}") from None


def node_name(target: Any) -> str:
    return f"{target.__module__}.{getattr(target, '__qualname__', target)}"


def _call(target: Any, arguments: dict[str, Any], path: Path_) -> Any:
    missing = [each.name for each in signature(target).arguments.values() if each.required and each.name not in arguments]
    if missing:
        raise ConfigError(f"{dotted((*path, missing[0]))} is required by {node_name(target)}, not set", _SEE_CHECK)
    try:
        return target(**arguments)
    except ValueError as error:                  # the class's own words about a value; its TypeErrors are bugs and keep their traceback
        raise ConfigError(f"{dotted(path) or node_name(target)}: {error}", f"{node_name(target)} refused its arguments") from error
