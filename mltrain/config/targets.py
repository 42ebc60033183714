"""Which `_target_` may be named, and the class or function behind a name.

Importing a module runs its code, so the name is judged first: only names under the allowed prefixes are imported at all. What comes out
must be a class or function *defined* under such a prefix: no walking through modules that others import (`mltrain.task.torch.load`).
"""
from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from mltrain.config.problem import did_you_mean, shown
from mltrain.config.suggest import nearest
from mltrain.errors import ConfigError

# The rooms of mltrain that hold parts. The others (agent, api, runs, ...) start processes and write files at a caller's word.
ROOMS = ("checkpoint", "data", "launch", "metrics", "models", "optim", "parallel", "recipes", "task", "testing", "trainer")
BUILT_IN = (*(f"mltrain.{room}." for room in ROOMS), "torch.optim.", "torch.nn.")
_added: list[str] = []            # project folders that were put on sys.path


@dataclass(frozen=True)
class Allowed:
    """project: the folder that holds the user's recipes/ (its modules may be named). prefixes: allowed beside the built-in ones."""

    project: str | None = None
    prefixes: tuple[str, ...] = ()

    @classmethod
    def of(cls, project: Path | None, packages: Sequence[str] = (), site: Sequence[str] = ()) -> Allowed:
        """packages: installed packages whose recipes are used. site: `allow_targets` of the site file."""
        return cls(str(project) if project else None, tuple(f"{name.rstrip('.')}." for name in [*packages, *site]))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, for the run directory."""
        return {"project": self.project, "prefixes": list(self.prefixes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Allowed:
        return cls(values["project"], tuple(values["prefixes"]))

    def names(self, name: str) -> bool:
        """May a module or class of this dotted name be used? Decided without importing anything."""
        return f"{name}.".startswith((*BUILT_IN, *self.prefixes)) or self.in_project(name)

    def in_project(self, name: str) -> bool:
        if self.project is None:
            return False
        top = Path(self.project, name.partition(".")[0])
        return top.with_suffix(".py").is_file() or (top.is_dir() and top.name not in ("mltrain", "torch"))


def resolve(name: object, allowed: Allowed) -> Callable[..., Any]:
    """The class or function that a `_target_` names. Raises ConfigError (78)."""
    if not isinstance(name, str) or name.count(".") < 1 or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"_target_ {shown(name)} is no dotted name", "write package.module.Class")
    if any(part.startswith("_") for part in name.split(".")):
        raise ConfigError(f"_target_ {name} is private", "name a public class or function")
    if not allowed.names(name):
        raise ConfigError(f"_target_ {name} is not allowed", _how_to_allow(name, allowed))
    module, rest = _import(name, allowed)
    thing: Any = module
    for part in rest:
        if isinstance(thing, ModuleType) and not _defined(vars(thing).get(part)) or not hasattr(thing, part):
            public = [key for key, value in vars(thing).items() if not key.startswith("_") and _defined(value)]
            raise ConfigError(f"{_name(thing)} has no class or function {part!r}", did_you_mean(nearest(part, public)))
        thing = getattr(thing, part)
    if not _defined(thing):
        raise ConfigError(f"_target_ {name} is no class or function", "name the class itself")
    home = f"{thing.__module__}.{getattr(thing, '__qualname__', '')}"
    if not allowed.names(home):
        why = f"it is {home}, which {module.__name__} only imports"
        raise ConfigError(f"_target_ {name} is not allowed: {why}", _how_to_allow(home, allowed))
    found: Callable[..., Any] = thing
    return found


def _defined(thing: object) -> bool:
    """A class, function or class method: something with a home."""
    return (inspect.isclass(thing) or inspect.isroutine(thing)) and isinstance(getattr(thing, "__module__", None), str)


def _name(thing: object) -> str:
    return str(getattr(thing, "__qualname__", None) or getattr(thing, "__name__", thing))


def _how_to_allow(name: str, allowed: Allowed) -> str:
    own = f"modules of {allowed.project}" if allowed.project else "modules beside your recipes/ folder"
    top = name.partition(".")[0]
    return f"allowed are {own}, mltrain's parts, torch.nn, torch.optim, and what the site file lists: allow_targets: [{top}.]"


def _import(name: str, allowed: Allowed) -> tuple[ModuleType, list[str]]:
    """The deepest module of the name, and what is left of it."""
    parts = name.split(".")
    if allowed.in_project(name) and allowed.project:
        _put_on_path(allowed.project, parts[0])
    module = _import_one(parts[0], name)
    _must_be_ours(module, allowed)
    for number in range(1, len(parts) - 1):
        # A package's attribute of that name may be a foreign module; only a real submodule is entered.
        if not hasattr(module, "__path__") or _spec(".".join(parts[:number + 1])) is None:
            return module, parts[number:]
        module = _import_one(".".join(parts[:number + 1]), name)
    return module, parts[len(module.__name__.split(".")):]


def _spec(name: str) -> object:
    try:
        return find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None


def _import_one(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 a user's module may raise anything, and a mistake there is one line here
        if isinstance(error, ModuleNotFoundError) and error.name and module.startswith(error.name):
            raise ConfigError(f"_target_ {name}: there is no module {module}", "check the spelling; is its package installed?") from None
        failed = f"importing {module} failed: {_where(error)}"
        raise ConfigError(f"_target_ {name}: {failed}", f"python -c 'import {module}' shows more") from error


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (
        (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace else (None, None))
    place = f" ({Path(file).name}:{line})" if file and not file.startswith("<") else ""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}{place}"


def _put_on_path(project: str, top: str) -> None:
    """Make the project's modules importable, and forget those of another project in the same process that bear the same name."""
    for other in [folder for folder in _added if folder != project]:
        if (file := _file(sys.modules.get(top))) and file.startswith(other + "/"):
            for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
                del sys.modules[name]
    if project in sys.path:
        sys.path.remove(project)
    sys.path.insert(0, project)
    if project not in _added:
        _added.append(project)
    importlib.invalidate_caches()


def _file(module: ModuleType | None) -> str | None:
    """Where a module or package lies."""
    if module is None:
        return None
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else next(iter(getattr(module, "__path__", [])), None)


def _must_be_ours(module: ModuleType, allowed: Allowed) -> None:
    """A project's model.py must not be hidden by an installed module `model`."""
    top, file = module.__name__, _file(module)
    if not allowed.project or not allowed.in_project(top) or f"{top}.".startswith(("mltrain.", "torch.", *allowed.prefixes)):
        return
    if not file or Path(allowed.project).resolve() not in Path(file).resolve().parents:
        raise ConfigError(f"{allowed.project}/{top} is hidden by the module {file or top + ' of Python itself'}", "give yours another name")
