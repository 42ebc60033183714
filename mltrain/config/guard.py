"""Refuses text that is small on disk and huge in memory, before anything is built from it.

OmegaConf 2.3 needs 15 s for 211 bytes of YAML aliases and 35 s for 255 bytes of `${a}${a}`. So YAML is first read as a stream of
events (no tree yet), then as a graph of nodes whose aliases are counted but not copied. Interpolations are counted by
`interpolation.py` with the limit from here.
"""
from __future__ import annotations

from typing import Any

import yaml

from mltrain.errors import ConfigError, UsageError

MAX_BYTES = 1 << 20
MAX_ALIASES = 64
MAX_DEPTH = 32
MAX_NODES = 10_000               # after every alias is replaced by what it stands for
MAX_FAN_OUT = 1_000              # values that one value is made of, through interpolation
MAX_OVERRIDE = 10_000            # characters of one key=value; Hydra's parser is slow

_SPLIT = "split the file, or move data out of it"


def check_size(size: int, file: str) -> None:
    if size > MAX_BYTES:
        raise ConfigError(f"{file}: larger than {MAX_BYTES:,} bytes", _SPLIT)


def check_events(text: str, file: str, loader: Any) -> None:
    """Walk the events: no memory is spent on a tree that is too deep or too large. Raises ConfigError; yaml.YAMLError passes through."""
    depth = aliases = nodes = 0
    for event in yaml.parse(text, Loader=loader):
        line = event.start_mark.line + 1
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > MAX_DEPTH:
                raise ConfigError(f"{file}:{line}: nested more than {MAX_DEPTH} deep", _SPLIT)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
            if aliases > MAX_ALIASES:
                raise ConfigError(f"{file}:{line}: more than {MAX_ALIASES} aliases (*name)", "write the values out")
        nodes += isinstance(event, yaml.NodeEvent)
        if nodes > MAX_NODES:
            raise ConfigError(f"{file}:{line}: more than {MAX_NODES:,} values", _SPLIT)


def check_nodes(root: yaml.Node, file: str) -> None:
    """Count the nodes after alias expansion, each node once. Raises ConfigError naming the line where it goes over."""
    _expanded(root, file, {}, set())


def _expanded(node: yaml.Node, file: str, counted: dict[int, tuple[int, int]], open_nodes: set[int]) -> tuple[int, int]:
    """(number of nodes, depth) that this node stands for."""
    known = counted.get(id(node))
    if known:
        return known
    line = node.start_mark.line + 1
    if id(node) in open_nodes:
        raise ConfigError(f"{file}:{line}: an alias inside the value it stands for", "write the value out")
    open_nodes.add(id(node))
    total, depth = 1, 0
    for child in _children(node):
        size, below = _expanded(child, file, counted, open_nodes)
        total, depth = total + size, max(depth, below + 1)
        if total > MAX_NODES:
            raise ConfigError(f"{file}:{line}: aliases (*name) stand for more than {MAX_NODES:,} values", "write fewer, or write them out")
        if depth > MAX_DEPTH:
            raise ConfigError(f"{file}:{line}: nested more than {MAX_DEPTH} deep through aliases", _SPLIT)
    open_nodes.discard(id(node))
    counted[id(node)] = total, depth
    return total, depth


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def check_override(text: str) -> None:
    """A key=value of the command line, before Hydra's parser sees it. Raises UsageError."""
    if len(text) > MAX_OVERRIDE:
        raise UsageError(f"{text[:40]}...: longer than {MAX_OVERRIDE:,} characters", "put the values into a recipe file")
    depth = 0
    for letter in text:
        depth += (letter in "[{(") - (letter in "]})")
        if depth > MAX_DEPTH:
            raise UsageError(f"{text[:40]}...: nested more than {MAX_DEPTH} deep", "put the values into a recipe file")
    if any(ord(letter) < 32 and letter not in "\t\n" for letter in text):
        raise UsageError(f"{text[:40]!r}: control characters in an override", "remove them")
