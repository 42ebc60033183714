"""One YAML file as plain data, with the line of every key. Guarded; no tags that run code, no key twice.

Scalars are read as Hydra reads them (1e-3 is a number, a date stays text).
"""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mltrain.config import guard
from mltrain.config.problem import Path_, dotted
from mltrain.errors import ConfigError, MissingInput

_HEADER = re.compile(r"^#\s*@package\s+(\S+)\s*$", re.MULTILINE)
_FLOAT = re.compile(r"^(?:[-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)"
                    r"|\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$")
_FLOAT_TAG, _TIME_TAG, _MERGE_TAG = (f"tag:yaml.org,2002:{name}" for name in ("float", "timestamp", "merge"))
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def _loader() -> Any:
    """PyYAML's safe loader (the C one where it was built) with Hydra's idea of numbers and without dates."""
    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    kept = {first: [rule for rule in rules if rule[0] not in (_FLOAT_TAG, _TIME_TAG)]
            for first, rules in base.yaml_implicit_resolvers.items()}
    loader: Any = type("Loader", (base,), {"yaml_implicit_resolvers": kept})
    loader.add_implicit_resolver(_FLOAT_TAG, _FLOAT, list("-+0123456789."))
    return loader


_LOADER = _loader()


@dataclass(frozen=True, slots=True)
class Document:
    """file: as shown in messages. tree: the values without `defaults`. lines: line of each key and list element.
    defaults: the `defaults` list as written. package: of a `# @package` header."""

    file: str
    tree: dict[str, Any]
    lines: dict[Path_, int] = field(repr=False)
    defaults: list[Any]
    package: str | None = None

    def line(self, path: Path_) -> int:
        return self.lines.get(path, 0)


def read(path: Path, file: str | None = None) -> Document:
    """Read and guard a YAML file. file: its name in messages. Raises ConfigError (78) with the line, or MissingInput (66)."""
    file = file or str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(guard.MAX_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise MissingInput(f"{file}: no such file", "give the path of a YAML file") from None
    except OSError as error:
        raise MissingInput(f"{file}: {error.strerror or error}", "check the path and its permissions") from None
    guard.check_size(len(data), file)
    try:
        return parse(data.decode("utf-8"), file)
    except UnicodeDecodeError as error:
        line = data[:error.start].count(b"\n") + 1
        raise ConfigError(f"{file}:{line}: not UTF-8 text", "save the file as UTF-8") from None


def parse(text: str, file: str) -> Document:
    """The same for text. Raises ConfigError (78)."""
    try:
        guard.check_events(text, file, _LOADER)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise ConfigError(f"{where}: {problem}", "check indentation, quotes and brackets there") from None
    if root is None or (isinstance(root, yaml.ScalarNode) and root.value == ""):
        return Document(file, {}, {}, [])
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{file}:{root.start_mark.line + 1}: must be keys and values", "write key: value")
    guard.check_nodes(root, file)
    lines: dict[Path_, int] = {}
    tree: dict[str, Any] = _Builder(file, lines).value(root, ())
    defaults = tree.pop("defaults", [])
    if not isinstance(defaults, list):
        raise ConfigError(f"{file}:{lines[('defaults',)]}: defaults must be a list", "write - override /optimizer: sgd")
    header = _HEADER.search(text[:root.start_mark.index])
    return Document(file, tree, lines, defaults, header[1] if header else None)


class _Builder:
    """YAML nodes to plain data, noting lines."""

    def __init__(self, file: str, lines: dict[Path_, int]) -> None:
        self.file, self.lines = file, lines
        self.scalars = yaml.constructor.SafeConstructor()
        self.flat: set[int] = set()              # mappings whose `<<` is merged already: an aliased one is met again

    def value(self, node: yaml.Node, path: Path_) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
            raise ConfigError(f"{self.file}:{node.start_mark.line + 1}: the tag {node.tag} is not read", "only plain YAML values are read")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, str(number))) for number, item in enumerate(node.value)]
        return self.scalar(node)

    def mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        if id(node) not in self.flat:
            self.refuse_twice(node, path)
            self.flatten(node)
        result: dict[str, Any] = {}
        for key, value in node.value:
            name = self.name(key)
            self.lines[(*path, name)] = key.start_mark.line + 1
            result[name] = self.value(value, (*path, name))
        return result

    def refuse_twice(self, node: yaml.MappingNode, path: Path_) -> None:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag != _MERGE_TAG:
                name, line = self.name(key), key.start_mark.line + 1
                if name in seen:
                    raise ConfigError(f"{self.file}:{line}: {dotted((*path, name))} is set twice (first in line {seen[name]})", "keep one")
                seen[name] = line

    def flatten(self, node: yaml.MappingNode) -> None:
        """Put keys merged by `<<: *name` first: a key written out wins."""
        self.flat.add(id(node))
        try:
            self.scalars.flatten_mapping(node)
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or error
            raise ConfigError(f"{self.file}:{node.start_mark.line + 1}: {problem}", "merge mappings only") from None

    def name(self, node: yaml.Node) -> str:
        value = self.scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(value, str) or not value or "." in value:
            raise ConfigError(f"{self.file}:{node.start_mark.line + 1}: a key must be text without dots, not {node.value!r:.40}",
                              "nest the keys, or quote a name that looks like a number")
        return value

    def scalar(self, node: yaml.Node) -> Any:
        try:
            return self.scalars.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError) as error:
            problem = getattr(error, "problem", None) or error
            raise ConfigError(f"{self.file}:{node.start_mark.line + 1}: {problem}", "only plain YAML values are read") from None
