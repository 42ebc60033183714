"""Does a value from YAML fit a type hint? Strictly: "3" is no int, 1 is no bool, 3.0 is no int; 3 is a float.

`convert` gives back what the hint asks for (a tuple for a list, a Path or an Enum for text). Plain types are msgspec's; unions and
containers are walked here, because a value may be a node (a dict with `_target_`) anywhere inside.
"""
from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import types
import typing
from pathlib import Path, PurePath
from typing import Any

import msgspec

from mltrain.config.origin import TARGET
from mltrain.config.problem import shown

_SEQUENCES = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_SCALARS = (bool, int, float, str, bytes, type(None))


class Mismatch(Exception):
    """What was expected, for the message."""


def is_node(value: object) -> bool:
    return isinstance(value, dict) and TARGET in value


def convert(value: Any, hint: Any) -> Any:
    """value as the hint wants it. Nodes and objects that are built already pass where an object can stand. Raises Mismatch."""
    hint = _bare(hint)
    if hint is Any or hint is object or hint is None and value is None:
        return value
    if _is_union(hint):
        return _one_of(value, typing.get_args(hint))
    origin = typing.get_origin(hint) or hint
    if is_node(value) or not isinstance(value, (*_SCALARS, list, dict)):
        if origin in (*_SCALARS, *_SEQUENCES, typing.Literal):
            raise Mismatch(f"expected {describe(hint)}, got {shown(value)}")
        return value
    if origin in _SEQUENCES:
        return _sequence(value, hint, origin)
    if origin in _MAPPINGS:
        return _mapping(value, hint)
    if inspect.isclass(origin) and issubclass(origin, PurePath):
        return Path(_plain(value, str))
    if _is_plain(origin):
        return _plain(value, hint)
    raise Mismatch(f"expected {describe(hint)} (a node with _target_), got {shown(value)}")


def describe(hint: Any) -> str:
    """A hint in words."""
    hint = _bare(hint)
    if hint in (None, type(None)):
        return "null"
    if typing.get_origin(hint) is typing.Annotated:
        inner, *limits = typing.get_args(hint)
        return " ".join([describe(inner), *(text for limit in limits for text in _limits(limit))])
    if _is_union(hint):
        return " or ".join(describe(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return "one of " + ", ".join(str(each.value) for each in hint)
    if typing.get_origin(hint) is not None:
        inner = ", ".join("..." if part is ... else describe(part) for part in typing.get_args(hint))
        return f"{getattr(typing.get_origin(hint), '__name__', hint)}[{inner}]"
    return "text" if hint is str else str(getattr(hint, "__name__", hint))


def choices(hint: Any) -> list[str]:
    """The values a Literal or Enum names, also inside a union; for the nearest one."""
    hint = _bare(hint)
    if _is_union(hint):
        return [name for part in typing.get_args(hint) for name in choices(part)]
    if typing.get_origin(hint) is typing.Literal:
        return [str(value) for value in typing.get_args(hint)]
    return [str(each.value) for each in hint] if inspect.isclass(hint) and issubclass(hint, enum.Enum) else []


def _limits(meta: Any) -> list[str]:
    """What msgspec.Meta demands: >= 1."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return [f"{sign} {getattr(meta, name)}" for name, sign in signs.items() if getattr(meta, name, None) is not None]


def _bare(hint: Any) -> Any:
    """Without Required, Final, NewType, and with a type variable's bound in its place."""
    while True:
        if isinstance(hint, typing.TypeVar):
            hint = hint.__bound__ or Any
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif typing.get_origin(hint) is typing.Final or _is_annotated_class(hint):
            hint = typing.get_args(hint)[0]
        else:
            return hint


def _is_annotated_class(hint: Any) -> bool:
    """Annotated[int, limits] is msgspec's; Annotated[Module, ...] is a Module."""
    return typing.get_origin(hint) is typing.Annotated and typing.get_args(hint)[0] not in _SCALARS


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _is_plain(origin: Any) -> bool:
    """A type that msgspec can make of plain data."""
    return (origin in (*_SCALARS, typing.Literal, typing.Annotated) or dataclasses.is_dataclass(origin) or typing.is_typeddict(origin)
            or inspect.isclass(origin) and (issubclass(origin, (enum.Enum, msgspec.Struct)) or hasattr(origin, "_fields")))


def _one_of(value: Any, hints: tuple[Any, ...]) -> Any:
    reason = ""
    for hint in sorted(hints, key=lambda hint: hint in (float, Path)):       # int | float: 3 stays an int; str | Path: text stays text
        try:
            return convert(value, hint)
        except Mismatch as error:
            if isinstance(value, (list, dict)) and type(value) is (typing.get_origin(hint) or hint):
                reason = str(error)              # what is wrong inside says more than what else could stand here
    raise Mismatch(reason or f"expected {' or '.join(describe(hint) for hint in hints)}, got {shown(value)}")


def _sequence(value: Any, hint: Any, origin: Any) -> Any:
    inner = typing.get_args(hint)
    if not isinstance(value, list):
        raise Mismatch(f"expected {describe(hint)}, got {shown(value)}")
    if origin is tuple and inner and inner[-1] is not ...:
        if len(inner) != len(value):
            raise Mismatch(f"expected {len(inner)} values, got {len(value)}: {shown(value)}")
        return tuple(convert(item, part) for item, part in zip(value, inner, strict=True))
    items = [convert(item, inner[0] if inner else Any) for item in value]
    return origin(items) if origin in (tuple, set, frozenset) else items


def _mapping(value: Any, hint: Any) -> Any:
    keys, values = typing.get_args(hint) or (Any, Any)
    if not isinstance(value, dict):
        raise Mismatch(f"expected {describe(hint)}, got {shown(value)}")
    return {convert(key, keys): item if item is None else convert(item, values) for key, item in value.items()}


def _plain(value: Any, hint: Any) -> Any:
    try:
        return msgspec.convert(value, hint, strict=True)
    except (msgspec.ValidationError, TypeError) as error:
        reason = str(error) if not isinstance(value, _SCALARS) else ""
        raise Mismatch(f"expected {describe(hint)}, got {shown(value)}" + (f": {reason}" if reason else "")) from None
