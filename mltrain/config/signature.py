"""Which arguments a class or function takes, and of which types: its signature is the schema of its recipe.

A class whose __init__ passes **kwargs on takes those of its base class too.
"""
from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class Argument:
    """hint: its type; Any if it has none or the name cannot be found. required: it has no default."""

    name: str
    hint: Any
    required: bool
    default: Any = None


@dataclass(frozen=True, slots=True)
class Signature:
    """arguments: by name. open: takes any other name too (**kwargs that go somewhere we cannot see)."""

    arguments: dict[str, Argument]
    open: bool


def signature(target: Callable[..., Any]) -> Signature:
    """The arguments that can be given by name."""
    arguments: dict[str, Argument] = {}
    is_open = True
    for function in _chain(target):
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (ValueError, TypeError):          # written in C, without a text signature
            break
        bound = inspect.isclass(target) and function is not target
        for parameter in parameters[1:] if bound else parameters:
            if parameter.kind in _NAMED and parameter.name not in arguments:
                required = parameter.default is parameter.empty
                arguments[parameter.name] = Argument(parameter.name, _hint(parameter.annotation, function), required,
                                                     None if required else parameter.default)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            is_open = False
            break
    return Signature(arguments, is_open)


def _chain(target: Callable[..., Any]) -> list[Callable[..., Any]]:
    """What is called: of a class each __init__ of its own or inherited, nearest first, else the whole class (dataclass, metaclass)."""
    if not inspect.isclass(target):
        return [target]
    inits = [vars(base)["__init__"] for base in target.__mro__ if base is not object and inspect.isfunction(vars(base).get("__init__"))]
    own_new = [base for base in target.__mro__ if base is not object and "__new__" in vars(base) and "Generic" not in base.__name__]
    return [target] if own_new and not inits or not inits else inits


def _hint(annotation: Any, function: Callable[..., Any]) -> Any:
    """The type an annotation stands for. One that is known to type checkers only (TYPE_CHECKING) counts as Any."""
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    module = sys.modules.get(getattr(function, "__module__", "") or "")
    try:
        holder = type("holder", (), {"__annotations__": {"hint": annotation}})
        return typing.get_type_hints(holder, globalns=vars(module) if module else {}, include_extras=True)["hint"]
    except Exception:  # noqa: BLE001 an annotation is an expression of someone else's: whatever it raises, it tells us nothing
        return Any
